"""Parts for scenarios with several accounts, a provider with faults, or a proxy that is started more than once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emailproxy.admin.client import Client
from emailproxy.demo.certificates import Authority
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.world import PASSWORD, World, upstream, world
from tests.endure.dealer import Dealer
from tests.endure.pulse import Pulse
from tests.endure.site import room_for_clients

SIGN_IN_S = 60.0
"""A consent in full; on a busy machine, several at once."""

Sections = dict[str, dict[str, object]]


@dataclass
class Ground:
    """Dovecot and the provider run. The proxy's configuration is written when it is started."""

    world: World
    provider: Dealer
    runtime: Path
    settings: dict[str, object] = field(default_factory=dict)
    sections: Sections = field(default_factory=dict)

    @property
    def authority(self) -> Authority:
        return self.world.authority

    @property
    def accounts_folder(self) -> Path:
        return self.world.state / "accounts"

    def add_account(self, name: str, **keys: object) -> str:
        """An account whose owner has to sign in once; the provider is told who signs in (`login_hint`)."""
        self.sections[name] = {**self.world.account, "login_hint": name, **keys}
        return name

    def add_server(self, port: int, *, protocol: str = "IMAP", host: str = "localhost", starttls: bool = False) -> int:
        """A listening section for a mail server at this port; returns its local port."""
        (local,) = free_ports(1)
        self.sections[f"{protocol}-{local}"] = upstream(port, host=host, starttls=starttls)
        return local

    def serve(self, through: Sequence[str] = ()) -> AbstractAsyncContextManager[Proxy]:
        """The proxy, as `tests.e2e.harness.proxy.serve` runs it."""
        globals_ = {**self.world.globals, "runtime_dir": self.runtime, **self.settings}
        config = self.world.configure(**{"emailproxy": globals_, **self.sections})
        folder = self.world.folder
        return serve("--config", config, log_file=self.world.log_file, home=folder, through=through)

    def pulse(self, user: str, *, source: str = "127.0.2.1") -> Pulse:
        """Logins of this account, at Dovecot."""
        return Pulse(self.world.local.imap, user, PASSWORD, source=source)

    async def sign_in(self, proxy: Proxy, user: str) -> None:
        """A login whose consent is approved while the client waits."""
        start = len(proxy.output)
        login = asyncio.create_task(self.pulse(user).login_ms())
        try:
            async with asyncio.timeout(SIGN_IN_S):
                page = await self.world.visit(await proxy.consent_url(user, start=start))
                assert f"Email OAuth 2.0 authentication succeeded for {user}" in page.text, page
                await login
        except (OSError, EOFError, ValueError) as error:
            raise AssertionError(f"{user} did not get in: {error}\n{proxy.output[start:]}") from error
        finally:
            login.cancel()
            await asyncio.gather(login, return_exceptions=True)

    async def sign_in_all(self, proxy: Proxy, users: Iterable[str]) -> None:
        await asyncio.gather(*(self.sign_in(proxy, user) for user in users))

    def status(self) -> Mapping[str, Any]:
        """What `emailproxy status --json` prints, asked for in the same way. Blocks."""
        return Client(self.world.state, self.runtime).ask("GET", "/status")


@asynccontextmanager
async def ground(folder: Path, **world_options: Any) -> AsyncIterator[Ground]:
    """Starts all but the proxy, in a folder that exists."""
    room_for_clients()
    async with world(folder, provider_type=Dealer, **world_options) as started:
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        assert isinstance(started.provider, Dealer)
        yield Ground(started, started.provider, runtime)
