"""A provider, a state folder and as many emailproxy processes as a test wants, all on one clock that it turns."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
from yarl import URL

from emailproxy.config.model import Account, FlowName
from emailproxy.demo.ledger import Client
from emailproxy.errors import UnknownAccount
from emailproxy.oauth.broker import BrokerSettings, TokenBroker
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.flow import Flow
from emailproxy.oauth.generic import flows
from emailproxy.oauth.happenings import Happening
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.oauth.redirect import RedirectListener
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Record
from emailproxy.store.bounds import MIN_MEMORY_KIB
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from emailproxy.store.slots import Cost
from emailproxy.wire.events import Login, Visit
from tests.e2e.harness.ports import free_ports
from tests.fakes.provider import FakeProvider

CHEAP = Cost(memory_kib=MIN_MEMORY_KIB, iterations=1)
ADA = "ada@example.org"
CLIENT_SECRET = "canary-client-secret"
PASSWORD = Secret("canary-local-password")
WRONG = Secret("canary-wrong-password")


class Turned:
    """A clock that stands still until a test, or somebody's sleep, turns it."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.wall = now_s
        self.monotonic = 1000.0
        self.slept: list[float] = []
        self.alarms: dict[asyncio.Event, float] = {}
        """Those who wait for an event or a moment (monotonic): a test's turn of the clock wakes them, none turns it."""

    def turn(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds
        for event, due_s in self.alarms.items():
            if due_s <= self.monotonic:
                event.set()

    async def wait(self, event: asyncio.Event, timeout_s: float) -> None:
        if timeout_s <= 0:
            return
        self.alarms[event] = self.monotonic + timeout_s
        try:
            await event.wait()
        finally:
            del self.alarms[event]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.turn(seconds)
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic, self.sleep, self.wait)


class Seen(NamedTuple):
    """What a browser shows in the end."""

    status: int
    text: str
    headers: dict[str, str]


@dataclass
class Process:
    """The parts of one emailproxy process."""

    records: IniStore
    pending: IniPendingStore
    endpoint: TokenEndpoint
    consents: Consents
    listener: RedirectListener
    broker: TokenBroker
    turned: Turned
    told: list[Happening]
    """What hooks would get to know."""

    async def login(
        self, user: str = ADA, password: Secret = PASSWORD, rejected: str | None = None, **visit: Any
    ) -> str:
        """A login that the mail server accepts; returns the access token."""
        seen = visit_of(**visit)
        credential = await self.broker.token(Login(user, password), seen, rejected)
        await self.broker.accepted(Login(user, password), seen)
        return credential.token.reveal()

    async def kept(self) -> None:
        """Until everything that is due by now has been renewed, or has failed to."""
        keeper = self.broker._keeper
        while keeper._tasks or keeper._stirred.is_set() or keeper._stirred not in self.turned.alarms:
            if keeper._tasks:
                await asyncio.wait(keeper._tasks)
            await asyncio.sleep(0)


def account_at(token_url: str, name: str = ADA, **changes: Any) -> Account:
    """An account of the test client's at the embedded provider."""
    settings: dict[str, Any] = {
        "section": name,
        "flow": FlowName.AUTHORIZATION_CODE,
        "permission_url": token_url.replace("/token", "/authorize"),
        "scope": "mail offline_access",
        "client_id": "test-client",
        "client_secret": Secret(CLIENT_SECRET),
    }
    return Account(name=name, token_url=token_url, **{**settings, **changes})


def visit_of(
    session: str = "s1", address: str = "127.0.0.1", may_set: bool | None = True, protocol: str = "IMAP"
) -> Visit:
    return Visit(session, protocol, address, may_set)


@dataclass
class World:
    folder: Path
    turned: Turned
    provider: FakeProvider
    port: int
    accounts: dict[str, Account] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    @asynccontextmanager
    async def at(cls, folder: Path, **options: Any) -> AsyncIterator[Self]:
        (port,) = free_ports(1)
        turned = Turned()
        uris = tuple(f"http://{host}:{port}{path}" for host in ("localhost", "127.0.0.1") for path in ("/", "/cb/"))
        client = Client("test-client", CLIENT_SECRET, (*uris, "https://vault.example/oauth/"))
        options = {"auto_approve": True, "now": lambda: turned.wall, **options}
        async with FakeProvider([client], **options) as provider:
            world = cls(folder, turned, provider, port)
            async with world.stack:
                yield world

    def account(self, name: str = ADA, **changes: Any) -> Account:
        """Configures an account."""
        redirect_uri = f"http://127.0.0.1:{self.port}/"
        urls = {"permission_url": self.provider.permission_url, "redirect_uri": redirect_uri}
        account = account_at(changes.pop("token_url", self.provider.token_url), name, **{**urls, **changes})
        self.accounts[account.name.casefold()] = account
        return account

    def application(self, name: str = ADA, **changes: Any) -> Account:
        return self.account(name, flow=FlowName.CLIENT_CREDENTIALS, permission_url=None, **changes)

    def resolve(self, user: str) -> Account:
        try:
            return self.accounts[user.casefold()]
        except KeyError:
            raise UnknownAccount(f"no account {user} is configured") from None

    async def process(
        self,
        *,
        wait_s: float = 30.0,
        header_s: float = 10.0,
        cost: Cost = CHEAP,
        listens: bool = True,
        keeps: bool = False,
        flow: Flow | None = None,
        **options: Any,
    ) -> Process:
        """A process; `keeps` starts its keeper, `flow` stands in place of all grants, `options` are the broker's."""
        records = IniStore(self.folder, now=lambda: self.turned.wall)
        self.stack.callback(records.close)
        pending = IniPendingStore(self.folder, now=lambda: self.turned.wall)
        self.stack.callback(pending.close)
        endpoint = TokenEndpoint(clock=self.turned.clock)
        self.stack.push_async_callback(endpoint.close)
        grants = flows(endpoint) if flow is None else lambda _: flow
        told: list[Happening] = []
        consents = Consents(pending, records, grants, self.resolve, notify=told.append, clock=self.turned.clock)
        listener = RedirectListener(consents, header_s=header_s)
        self.stack.push_async_callback(listener.close)
        told_anew = {name.name for name in fields(BrokerSettings)} & options.keys()
        settings = BrokerSettings(consent_wait_s=wait_s, **{name: options.pop(name) for name in told_anew})
        broker = TokenBroker(
            self.resolve,
            records,
            consents,
            grants,
            listener=listener if listens else None,
            settings=settings,
            clock=self.turned.clock,
            notify=told.append,
            cost=cost,
            **options,
        )
        self.stack.push_async_callback(broker.close)
        if keeps:
            broker.start()
        return Process(records, pending, endpoint, consents, listener, broker, self.turned, told)

    async def signed_in(self, process: Process, name: str = ADA, password: Secret = PASSWORD) -> None:
        """The account has a record with tokens, as after a consent."""
        waiting = await process.broker.sign_in(name, password)
        assert waiting is not None
        seen = await browse(waiting.url)
        assert seen.status == 200, seen.text

    def grants(self) -> list[str]:
        """What the token endpoint was asked for and answered, in order."""
        return [request.grant for request in self.provider.requests]

    def files(self) -> dict[str, bytes]:
        """Every state file, but for locks."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        }


async def with_password(process: Process, password: Secret) -> Record:
    """The account's record, the same key pair behind another password, as another process might write it."""
    record = await process.records.load(ADA)
    assert record is not None
    account = process.broker._resolve(ADA)
    key = await process.broker._keyring.unlock(account, record.lockbox, PASSWORD)
    return replace(record, lockbox=slots.upgrade(record.lockbox, ADA, key, password, cost=CHEAP))


async def browse(url: str, *, follow: bool = True, method: str = "GET", headers: dict[str, str] | None = None) -> Seen:
    """A person's browser, at the end of all redirects."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(url, encoded=True), allow_redirects=follow, headers=headers) as reply,
    ):
        return Seen(reply.status, await reply.text(), dict(reply.headers))


async def until(condition: Callable[[], bool]) -> None:
    """Lets other tasks run until the condition holds; the test's own time limit ends what never does."""
    while not condition():
        await asyncio.sleep(0.001)


async def settled() -> None:
    """Lets the tasks that can go on do so: what has not happened then waits for something."""
    for _ in range(100):
        await asyncio.sleep(0)


def no_space(_source: Path, _target: Path) -> None:
    """In place of `os.replace`, on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")
