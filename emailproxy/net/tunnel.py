"""Through an HTTP or SOCKS5 proxy to a mail server, on a connection to the proxy that stands."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

from emailproxy.config.model import KIB
from emailproxy.config.proxies import Proxy, Scheme
from emailproxy.errors import system_words

if TYPE_CHECKING:
    from python_socks.async_.asyncio import Proxy as Library

VERSION, END_OF_HEAD = b"HTTP/", b"\r\n\r\n"
MAX_HEAD = 16 * KIB  # octets of a proxy's reply, header fields included


class HeadOnly(socket.socket):
    """A connection to an HTTP proxy, of which one read is its whole reply to CONNECT, and not an octet more.

    python-socks takes the first octets that come for the reply. Behind it, in the same segment, the greeting of a mail
    server may follow; and it may itself come in pieces.
    """

    _head = b""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Event loops call this once there is something, and again while it raises BlockingIOError."""
        there = super().recv(MAX_HEAD, socket.MSG_PEEK)
        end = (self._head + there).find(END_OF_HEAD)
        wanted = len(there) if end < 0 else end + len(END_OF_HEAD) - len(self._head)
        self._head += super().recv(wanted) if wanted else b""
        if there and end < 0 and self._head.startswith(VERSION[: len(self._head)]) and len(self._head) < MAX_HEAD:
            raise BlockingIOError
        return self._head


class Standing:
    """Stands where python-socks would ask the proxy before this one: for a connection that is there already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        return self._sock


async def through(proxy: Proxy, sock: socket.socket, host: str, port: int) -> socket.socket:
    """A connection to the host, end to end; `sock` is one to the proxy, and is closed where that fails.

    Raises:
        ProxyFailed: the proxy says no, or nothing sensible.
    """
    import python_socks
    from python_socks.async_.asyncio import Proxy as Library

    near = again(HeadOnly if proxy.scheme is Scheme.HTTP else socket.socket, sock)
    kind = python_socks.ProxyType.HTTP if proxy.scheme is Scheme.HTTP else python_socks.ProxyType.SOCKS5
    user, password = proxy.user or None, proxy.password.reveal() if proxy.user else None
    standing = cast("Library", Standing(near))
    try:
        way = Library(kind, proxy.host, proxy.port, user, password, rdns=True, forward=standing)
        return again(socket.socket, await way.connect(host, port))
    except python_socks.ProxyError as error:
        raise proxy.answered(error.error_code, str(error)) from None
    except OSError as error:
        raise proxy.unreachable(system_words(error)) from None


def again(kind: type[socket.socket], sock: socket.socket) -> socket.socket:
    """The same connection as an object of this kind."""
    other = kind(sock.family, sock.type, sock.proto, sock.detach())
    other.setblocking(False)
    return other
