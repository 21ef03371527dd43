"""Listening sockets of our own: on an address, on all addresses of a name, or on the loopbacks."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from emailproxy.errors import ServiceError
from emailproxy.net.dial import tune

if TYPE_CHECKING:
    from emailproxy.config.model import Server

BACKLOG = 1024
FIRST_UNPRIVILEGED_PORT = 1024
LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
EVERYWHERE = "::"  # all addresses, of IPv4 too where the system permits it
LOCALHOST = frozenset({"localhost", "localhost."})  # RFC 6761 section 6.3: the loopbacks, whatever /etc/hosts says


async def bind(server: Server) -> list[socket.socket]:
    """Sockets on the configured address or name, or on the loopbacks that this host has.

    Raises:
        ServiceError: an address is in use, is not this host's, or is not permitted. Nothing is left open.
    """
    name = server.local_address
    if name is None or name.casefold() in LOCALHOST:
        sockets = _bind_all(server, LOOPBACKS, optional=True)
        if not sockets:
            raise ServiceError(f"[{server.section}] this host has no loopback address; give local_address")
        return sockets
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name.strip("[]"), server.local_port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise ServiceError(f"[{server.section}] local_address {name}: {reason}") from None
    return _bind_all(server, dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _bind_all(server: Server, places: Iterable[tuple[int, str]], *, optional: bool = False) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, address in places:
            sock = _bind_one(server, family, address, optional=optional)
            if sock is not None:
                sockets.append(sock)
    except ServiceError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_one(server: Server, family: int, address: str, *, optional: bool) -> socket.socket | None:
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == EVERYWHERE else 1)
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
        case errno.EACCES if server.local_port < FIRST_UNPRIVILEGED_PORT:
            return (
                f"{place}: not permitted below port {FIRST_UNPRIVILEGED_PORT}; pass the socket by systemd socket "
                f"activation (FileDescriptorName={server.section}), or give the service the capability "
                "CAP_NET_BIND_SERVICE (AmbientCapabilities=), or choose a higher port; root is not needed"
            )
        case errno.EACCES:
            return f"{place}: not permitted; choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{place}: this host does not have that address; check local_address"
        case _:
            return f"{place}: {error.strerror}"
