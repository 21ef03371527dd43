"""Listens for mail clients: binds, counts, turns away what is too much, and makes a session of the rest."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import socket
from collections import Counter
from typing import TYPE_CHECKING, cast

from emailproxy.errors import ServiceError
from emailproxy.net.dial import tune
from emailproxy.net.session import DIALOGUES, Session, Upstream
from emailproxy.net.tls import client_context
from emailproxy.wire.events import Visit

if TYPE_CHECKING:
    from emailproxy.config.model import Server

log = logging.getLogger("emailproxy.net")

BACKLOG = 1024
SPARE_DESCRIPTORS = 64  # for files, the redirect listener, look-ups
DESCRIPTORS_PER_SESSION = 2
TURNED_AWAY_LOG_S = 1.0  # at most one log line in so many seconds
LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def descriptor_cap() -> int:
    """How many sessions the process's file descriptors allow; the soft limit is raised to the hard one first."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 16
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (hard - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_SESSION)


class Doorman:
    """Counts the connections of all listeners: in all, and by address."""

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        self._max = max_connections
        self._max_per_address = max_per_address
        self._by_address: Counter[str] = Counter()
        self._last_log_s = 0.0
        self._unlogged = 0

    def admit(self, address: str) -> str | None:
        """Counts a connection in, or says why it is turned away."""
        if self._by_address.total() >= self._max:
            return "too many connections; try again later"
        if self._by_address[address] >= self._max_per_address:
            return "too many connections from your address; try again later"
        self._by_address[address] += 1
        return None

    def leave(self, address: str) -> None:
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def complain(self, protocol: str, address: str, reason: str) -> None:
        """Logs who was turned away, at most once a second."""
        self._unlogged += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._last_log_s >= TURNED_AWAY_LOG_S:
            log.warning("%s from %s: turned away (%d so far): %s", protocol, address, self._unlogged, reason)
            self._last_log_s = now_s


class TurnedAway(asyncio.Protocol):
    """A client that may not even begin."""

    def __init__(self, last_words: bytes) -> None:
        self._last_words = last_words

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(self._last_words)
        stream.close()


class Door(asyncio.Protocol):
    """What every accepted connection meets first; it hands over to a session at once."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # uvloop's are not instances of it
        protocol = self._listener.receive(stream)
        stream.set_protocol(protocol)
        protocol.connection_made(stream)


class Listener:
    """One listening section: its sockets and its sessions."""

    def __init__(self, upstream: Upstream, doorman: Doorman) -> None:
        self._upstream = upstream
        self._doorman = doorman
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._on_loopback = True
        self.addresses: list[tuple[str, int]] = []

    async def open(self) -> None:
        """Binds and accepts.

        Raises:
            ServiceError: an address is in use, is not this host's, or is not permitted; or ca_file is unusable.
        """
        server = self._upstream.server
        client_context(server.ca_file)
        loop = asyncio.get_running_loop()
        for sock in await _bind(server):
            self._servers.append(await loop.create_server(lambda: Door(self), sock=sock, backlog=BACKLOG))
            host, port = sock.getsockname()[:2]
            self.addresses.append((host, port))
            self._on_loopback = self._on_loopback and _is_loopback(host)

    def receive(self, transport: asyncio.Transport) -> asyncio.Protocol:
        """The protocol for a new connection: a session's, or one that turns it away."""
        peer = transport.get_extra_info("peername") or ("unknown", 0)
        address = str(peer[0]).removeprefix("::ffff:")
        protocol = self._upstream.server.protocol
        reason = self._doorman.admit(address)
        if reason is not None:
            self._doorman.complain(protocol, address, reason)
            return TurnedAway(DIALOGUES[protocol].turned_away(reason))
        visit = Visit(secrets.token_hex(4), protocol, address, self._on_loopback)
        session = Session(self._upstream, visit, lambda ended: self._forget(ended, address))
        self._sessions.add(session)
        self._empty.clear()
        return session.protocol

    def _forget(self, session: Session, address: str) -> None:
        self._sessions.discard(session)
        self._doorman.leave(address)
        if not self._sessions:
            self._empty.set()

    async def close(self) -> None:
        """Stops accepting, tells the clients that are still there, and waits until they are gone."""
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.drain()
        await self._empty.wait()

    def abort(self) -> None:
        """Cuts what is left."""
        for session in list(self._sessions):
            session.abort()


async def _bind(server: Server) -> list[socket.socket]:
    """Sockets on the configured address, or on the loopbacks that this host has."""
    if server.local_address is None:
        bound = [_bind_one(server, family, address, optional=True) for family, address in LOOPBACKS]
        sockets = [sock for sock in bound if sock is not None]
        if not sockets:
            raise ServiceError(f"[{server.section}] this host has no loopback address; give local_address")
        return sockets
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(server.local_address, server.local_port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ServiceError(f"[{server.section}] local_address {server.local_address}: {error.strerror}") from None
    names = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
    sockets = []
    for family, address in names:
        sock = _bind_one(server, family, address, optional=False)
        if sock is not None:
            sockets.append(sock)
    return sockets


def _bind_one(server: Server, family: int, address: str, *, optional: bool) -> socket.socket | None:
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        tune(sock)  # accepted connections inherit it
        sock.bind((address, server.local_port))
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        if optional and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return None
        raise ServiceError(_explain(server, address, error)) from None
    sock.setblocking(False)
    return sock


def _explain(server: Server, address: str, error: OSError) -> str:
    place = f"[{server.section}] cannot listen on {address} port {server.local_port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{place}: the port is in use; is emailproxy running already? Else choose another"
        case errno.EACCES:
            return f"{place}: not permitted; choose a port of 1024 or above"
        case errno.EADDRNOTAVAIL:
            return f"{place}: this host does not have that address; check local_address"
        case _:
            return f"{place}: {error.strerror}"


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")
