"""Mail servers that misbehave, each before a listening section of its own, and a client that asks them for a login."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.e2e.harness.proxy import Proxy
from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.frame import Stage
from tests.endure.ground import Ground, ground
from tests.endure.pulse import Beats, Pulse
from tests.endure.talk import connect, steps
from tests.endure.watch import Watch
from tests.net.stubs import Handler, upstream_server

PATIENCE_S = 180.0
READ = 65_536
REFUSED = {"IMAP": "NO [UNAVAILABLE]", "POP": "-ERR [SYS/TEMP]", "SMTP": "454 4.7.0"}
"""What is to be tried again later, and no fault of the password."""


@dataclass(frozen=True)
class Told:
    """What became of a client's login."""

    text: str
    took_s: float


@dataclass
class Misbehaving:
    """Ground with such servers; `add` them before the proxy is started."""

    ground: Ground
    stack: AsyncExitStack
    ports: dict[str, int] = field(default_factory=dict)
    """The proxy's, by the name that each server was given."""
    upstream_ports: dict[str, int] = field(default_factory=dict)
    """The servers' own."""

    async def add(
        self,
        name: str,
        handler: Handler,
        *,
        context: ssl.SSLContext | None = None,
        protocol: str = "IMAP",
        host: str = "localhost",
        starttls: bool = False,
    ) -> None:
        """A server; over TLS from the first octet where there is a context."""
        port = await self.stack.enter_async_context(upstream_server(handler, context))
        self.upstream_ports[name] = port
        self.ports[name] = self.ground.add_server(port, protocol=protocol, host=host, starttls=starttls)

    def good(self) -> ssl.SSLContext:
        """Of a certificate that the proxy trusts."""
        return self.ground.authority.issue("localhost").server_context()

    async def told(self, name: str, protocol: str = "IMAP", *, source: str = "127.0.2.3") -> Told:
        """Tries to log in there."""
        began_s = time.perf_counter()
        text = await self._login(self.ports[name], protocol, source)
        return Told(text, time.perf_counter() - began_s)

    @staticmethod
    async def _login(port: int, protocol: str, source: str) -> str:
        try:
            async with asyncio.timeout(PATIENCE_S):
                talk = await connect(port, source=source)
                try:
                    for step in steps(protocol, USER, PASSWORD).login:
                        said = await talk.say(step)
                finally:
                    talk.close()
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            return f"{type(error).__name__}: {error}".rstrip()
        return said.decode(errors="replace")


@asynccontextmanager
async def misbehaving(stage: Stage) -> AsyncIterator[Misbehaving]:
    async with AsyncExitStack() as stack, ground(stage.folder) as here:
        yield Misbehaving(here, stack)


@dataclass(frozen=True)
class Started:
    proxy: Proxy
    watch: Watch
    others: Pulse
    """Of an account at Dovecot, which does not misbehave."""
    before: Beats


@asynccontextmanager
async def started(servers: Misbehaving, through: Sequence[str] = ()) -> AsyncIterator[Started]:
    """The proxy before all of them, with the harness's user signed in; run by such a command, where one is given."""
    here = servers.ground
    async with here.serve(through) as proxy:
        await here.sign_in(proxy, USER)
        others = here.pulse(USER)
        yield Started(proxy, Watch(proxy), others, await others.before())


async def heard_to_its_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes, until the other side leaves."""
    heard = b""
    with suppress(OSError, asyncio.IncompleteReadError):
        while data := await reader.read(READ):
            heard += data
    return heard
