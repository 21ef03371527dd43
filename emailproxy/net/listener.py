"""Listens for mail clients: one listening section's sockets, and the sessions behind them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emailproxy.config.model import FirstLogin
from emailproxy.net.admission import is_loopback
from emailproxy.net.binding import BACKLOG, bind
from emailproxy.net.door import Door
from emailproxy.net.draining import PATIENCE, Patience
from emailproxy.net.section import Section

if TYPE_CHECKING:
    from emailproxy.config.model import Server
    from emailproxy.net.session import Session
    from emailproxy.net.shared import Shared
    from emailproxy.net.tokens import TokenSource

log = logging.getLogger("emailproxy.net")


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say of a listening section."""

    section: str
    addresses: tuple[tuple[str, int], ...]
    sessions: int
    """All that stand, and those that are still at the door."""
    logged_in: int
    prewarmed: int = 0
    """Connections to its mail server that stand ready."""


class Listener:
    """One listening section: its sockets and its sessions.

    `tokens` takes the place of the `shared` ones, where this section has its own.
    """

    def __init__(self, server: Server, shared: Shared, tokens: TokenSource | None = None) -> None:
        self._server = server
        self._shared = shared
        self._tokens = tokens
        self._section: Section | None = None
        self._accepting: list[asyncio.Server] = []
        self._at_door: set[Door] = set()
        self._sessions: set[Session] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.on_loopback = True
        self.addresses: list[tuple[str, int]] = []

    @property
    def section(self) -> Section:
        """What new connections meet."""
        assert self._section is not None
        return self._section

    @property
    def sessions(self) -> int:
        """How many connections there are, those at the door included."""
        return len(self._sessions) + len(self._at_door)

    def facts(self) -> Facts:
        ready = self.section.prewarmed.ready
        return Facts(self._server.section, tuple(self.addresses), self.sessions, self.logged_in, ready)

    def may_set_first_password(self, server: Server) -> bool | None:
        """Whether a first login here brings the account's password; None: if the account's section says so.

        The default trusts whoever is on this host. Who comes through a reverse proxy is not, wherever that one is. What
        the configuration says was judged by its `local_address`: sockets that the service manager passed instead may
        let in more, and then nothing is trusted.
        """
        if self._is_wider_than(server):
            return False
        match server.first_login:
            case FirstLogin.TRUST:
                return True
            case FirstLogin.DENY:
                return False
            case None:
                return True if self.on_loopback and not server.proxy_protocol_from else None

    def _is_wider_than(self, server: Server) -> bool:
        return not self.on_loopback and server.for_this_host

    async def open(self) -> None:
        """Binds and accepts, or accepts on the sockets that the service manager passed for this section.

        Raises:
            ServiceError: an address is in use, is not this host's, or is not permitted; or a file of the section is
                unusable. Nothing is left open.
        """
        server = self._server
        self._section = Section.of(server, self._shared, self._tokens)
        sockets = self._shared.activated.claim(server.section, server.local_port, self) or await bind(server)
        loop = asyncio.get_running_loop()
        for sock in sockets:
            host, port = sock.getsockname()[:2]
            self.addresses.append((host, port))
            self.on_loopback = self.on_loopback and is_loopback(host)
        if self._is_wider_than(server) and server.first_login is not FirstLogin.DENY:
            log.warning(
                "[%s] the service manager passed a socket that is not on a loopback: no first login sets a password "
                "there; write its address as local_address, and first_login = trust if that is meant",
                server.section,
            )
        for sock in sockets:
            self._accepting.append(await loop.create_server(lambda: Door(self), sock=sock, backlog=BACKLOG))
        self._section.prewarmed.start()

    def update(self, server: Server, tokens: TokenSource | None = None) -> None:
        """After a reload that leaves the sockets as they are: new connections meet the new settings.

        Raises:
            ServiceError: a file of the section is unusable; then nothing changes.
        """
        before, self._section = self.section, Section.of(server, self._shared, tokens)
        self._section.prewarmed.start(before.prewarmed)
        self._server = server
        self._tokens = tokens

    @property
    def logged_in(self) -> int:
        """How many of them have logged in."""
        return sum(session.logged_in for session in self._sessions)

    async def close(self, patience: Patience = PATIENCE) -> None:
        """Stops accepting, and waits until nobody is left.

        Who has not logged in is told, and cut soon; sessions end when they are idle.

        Sockets that the service manager passed stay open: who connects from now on waits for the next listener.
        """
        self.stop_accepting()
        for door in list(self._at_door):
            door.cut()
        for session in list(self._sessions):
            session.drain(patience)
        await self._empty.wait()

    def stop_accepting(self) -> None:
        """Gives the sockets back; who is in stays in."""
        accepting, self._accepting = self._accepting, []
        for server in accepting:
            server.close()
        if self._section is not None:
            self._section.prewarmed.close()
        self._shared.activated.release(self)

    def abort(self) -> int:
        """Cuts what is left; returns how many sessions were not idle."""
        busy = sum(session.is_busy for session in self._sessions)
        for session in list(self._sessions):
            session.abort()
        return busy

    # ---- for doors and sessions

    def arrive(self, door: Door) -> None:
        self._at_door.add(door)
        self._empty.clear()

    def enter(self, door: Door, session: Session) -> None:
        """A session begins."""
        self._at_door.discard(door)
        self._sessions.add(session)

    def leave(self, door: Door) -> None:
        """A connection ended at the door."""
        self._at_door.discard(door)
        self._settle()

    def forget(self, session: Session) -> None:
        """A session ended."""
        self._sessions.discard(session)
        self._settle()

    def _settle(self) -> None:
        if not self._sessions and not self._at_door:
            self._empty.set()
