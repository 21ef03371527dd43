"""One connection to a mail server that is opened before a login needs it, until one takes it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from emailproxy.errors import ServerUnavailable
from emailproxy.net.handshake import connect_server, secure_server
from emailproxy.net.pipes import ServerPipe
from emailproxy.net.tls import client_context
from emailproxy.wire import events as ev
from emailproxy.wire.opening import OPENINGS

if TYPE_CHECKING:
    from emailproxy.config.model import Server
    from emailproxy.net.pipes import Owner
    from emailproxy.net.shared import Shared

OPEN_S = 30.0  # from the dial until the server has told what it offers
IMPATIENCE_S = 5.0  # a server that does not even acknowledge a login's first octets for so long is not there any more


class AheadPipe(ServerPipe):
    """The server's side. A host that has moved to another network finds a connection dead only by waiting: it waits
    less, until the server has answered once."""

    sock: socket.socket
    _on_trial = False

    def hand_over(self, owner: Owner) -> None:
        """From now on its events are for `owner`."""
        self._session = owner
        self._on_trial = True
        self._wait_at_most(IMPATIENCE_S)

    def data_received(self, data: bytes) -> None:
        if self._on_trial:
            self._on_trial = False
            self._wait_at_most(0)  # as long as the system does
        super().data_received(data)

    def _wait_at_most(self, seconds: float) -> None:
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            with contextlib.suppress(OSError):  # it is closed already
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


class Ahead:
    """One connection. `open` it once; then `hand_over` or `close`."""

    since_s = due_s = 0.0
    """When it was dialled, and when another is to take its place, by the loop's clock."""

    def __init__(self, server: Server, shared: Shared) -> None:
        target = server.target
        assert target is not None
        self._target = target
        self._ca_file = server.ca_file
        self._protocol = server.protocol
        self._shared = shared
        self._context = client_context(server.ca_file)
        ehlo_name = server.ehlo_name or ev.DEFAULT_EHLO_NAME
        terms = ev.Terms(starttls=target.starttls, host=target.address, port=target.port, ehlo_name=ehlo_name)
        self._opening = OPENINGS[server.protocol](terms)
        self._pipe = AheadPipe(self)
        self._began_s = time.time()
        self.ready: ev.Ready | None = None
        self.on_end: Callable[[Ahead], None] | None = None
        """Called when the server ends it, or breaks its silence."""
        self.ended = ""
        """Why it was given up."""

    async def open(self) -> None:
        """Dials, and goes as far as anybody's login may.

        Raises:
            ServerUnavailable: it cannot be had; nothing is left open.
        """
        try:
            async with asyncio.timeout(OPEN_S):
                await self._open()
        except TimeoutError:
            self.close()
            raise ServerUnavailable(f"{self._target.address} does not get ready within {OPEN_S:.0f} s") from None
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        target, loop = self._target, asyncio.get_running_loop()
        self._pipe.sock = await self._shared.dialer.connect(target.address, target.port)
        self._milestone: asyncio.Future[ev.StartTls | ev.Ready] = loop.create_future()
        await connect_server(self._pipe, self._pipe.sock, target, self._context)
        self.feed(ev.ServerConnected())
        if isinstance(await self._milestone, ev.StartTls):
            self._milestone = loop.create_future()
            await secure_server(self._pipe, self._context, target.address, target.port)
            self.feed(ev.TlsStarted(ev.Side.SERVER))
            await self._milestone
        if self.ended:
            raise ServerUnavailable(self.ended)
        self._pipe.keep_tls_session()

    def hand_over(self, owner: Owner) -> ServerPipe:
        """A login takes it: what the server says from now on is for `owner`."""
        self._pipe.hand_over(owner)
        return self._pipe

    def close(self) -> None:
        self._pipe.detach()
        if self._pipe.wire is not None:
            self._pipe.wire.finish()

    def has_overslept(self, limit_s: float) -> bool:
        """By the clock on the wall, which goes on while a laptop sleeps: the server knows nothing of it any more."""
        return time.time() - self._began_s > limit_s

    @property
    def is_trusted(self) -> bool:
        """Whether its certificate was verified by what counts now."""
        return self._context is client_context(self._ca_file)

    # ---- for its pipe

    def feed(self, event: ev.Event) -> None:
        wire = self._pipe.wire
        assert wire is not None
        for effect in self._opening.handle(event):
            match effect:
                case ev.ToServer(data):
                    wire.transport.write(data)
                case ev.StartTls():
                    wire.pause()
                    self._reach(effect)
                case ev.Learned(capabilities):
                    self._shared.seen.learn(self._protocol, self._target, capabilities)
                case ev.Ready():
                    self.ready = effect
                    self._reach(effect)
                case ev.Hangup(reason):
                    self._end(reason)

    def hold_client(self) -> None:
        """There is none yet."""

    def _reach(self, milestone: ev.StartTls | ev.Ready) -> None:
        if not self._milestone.done():  # nobody waits any more
            self._milestone.set_result(milestone)

    def _end(self, reason: str) -> None:
        self.ended = reason
        self.close()
        if not self._milestone.done():
            self._milestone.set_exception(ServerUnavailable(reason))
        if self.on_end is not None:
            self.on_end(self)
