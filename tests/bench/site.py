"""What all candidates stand in front of: a provider, Dovecot, and a stub for what Dovecot would be too slow for."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from emailproxy.demo.ledger import Client
from tests.bench.candidate import Candidate
from tests.bench.clients import BLOCK, LINE, Account, Imap
from tests.bench.effort import MB, Effort
from tests.bench.upstream import Upstream, upstream
from tests.e2e.harness.dovecot import Upstream as Ports
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Program
from tests.e2e.harness.world import CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, Endpoints, World, world

TOKEN_LIFETIME_S = 24 * 3600
"""Longer than any bench: a renewal would be measured with a login now and then."""
MESSAGE = BLOCK[: MB // len(LINE) * len(LINE)]
"""What the large mailbox is made of: a little less than a megabyte."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Servers:
    """The mail servers' ports on 127.0.0.1, all with TLS from the first octet; their certificate says `localhost`."""

    imap: int
    pop: int
    smtp: int


@dataclass
class Bench:
    """What a measure is given: everything around the candidates. `round` counts from 0."""

    world: World
    stub: Upstream
    token: str
    """An access token of `world.USER`, for those who log in to the server themselves."""
    round: int = 0
    _results: dict[tuple[str, str, int], object] = field(default_factory=dict)
    _folders: int = 0

    @property
    def servers(self) -> Servers:
        """Dovecot; but the stub takes submitted mail, because Dovecot passes that on and waits."""
        return Servers(self.world.server.imap.tls, self.world.server.pop.tls, self.stub.smtp)

    @property
    def with_password(self) -> Account:
        return Account(USER, PASSWORD)

    @property
    def with_token(self) -> Account:
        return Account(USER, self.token, xoauth2=True)

    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts the mail servers."""
        return self.world.authority.client_context()

    def folder(self, name: str) -> Path:
        """A new one, which others may pass but not read."""
        self._folders += 1
        made = self.world.folder / f"{self._folders}-{name}"
        made.mkdir(mode=0o711)
        return made

    def world_for(self, name: str, servers: Servers) -> World:
        """The same world with a folder and local ports for one more proxy, in front of these servers."""
        local = Endpoints(*free_ports(7))
        known = self.world.provider.clients[CLIENT_ID].redirect_uris
        uris = (*known, f"http://localhost:{local.redirect}/")
        self.world.provider.clients[CLIENT_ID] = Client(CLIENT_ID, CLIENT_SECRET, uris)
        imap, pop, smtp = (Ports(port, port) for port in dataclasses.astuple(servers))
        server = dataclasses.replace(self.world.server, imap=imap, pop=pop, smtp=smtp)
        return dataclasses.replace(self.world, folder=self.folder(name), server=server, local=local)

    async def sign_in(self, world: World, program: Program, candidate: Candidate) -> None:
        """The account's first login, and its consent."""
        assert candidate.imap is not None
        world.provider.account = candidate.account.user
        login = asyncio.create_task(asyncio.to_thread(log_in_once, candidate))
        try:
            found = await program.printed(r"Please visit the following URL to authenticate account \S+: (\S+)\r?\n")
            page = await world.visit(found[1])
            if page.status != 200:
                raise RuntimeError(f"{candidate.name}: the sign-in failed: {page.text}")
            await login
        finally:  # where it is interrupted, nobody waits for the login's refusal
            login.cancel()
            await asyncio.gather(login, return_exceptions=True)

    async def shared(self, what: str, candidate: Candidate, make: Callable[[], Awaitable[Result]]) -> Result:
        """A round's result that several measures read: made when the first of them asks."""
        key = (what, candidate.name, self.round)
        if key not in self._results:
            self._results[key] = await make()
        return cast("Result", self._results[key])


def log_in_once(candidate: Candidate) -> None:
    assert candidate.imap is not None
    with Imap(candidate.imap) as client:
        client.login(candidate.account)
        client.logout()


@contextlib.asynccontextmanager
async def bench(folder: Path, effort: Effort) -> AsyncIterator[Bench]:
    """Starts everything but the candidates. The account's INBOX has `effort.octets`, or a little more."""
    async with (
        world(folder, expires_in=TOKEN_LIFETIME_S) as around,
        upstream(around.authority.issue("localhost")) as stub,
    ):
        around.server.deliver(USER, [MESSAGE] * -(-effort.octets // len(MESSAGE)))
        yield Bench(around, stub, around.provider.access_token(USER))
