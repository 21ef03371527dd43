"""One listening address for several processes.

On Linux each has a socket of its own there, and the kernel spreads the connections (SO_REUSEPORT, socket(7)); what one
of them has not accepted when it dies is lost, and the others get all that comes from then on. Elsewhere, and where the
service manager opened the socket, all accept from the same one.
"""

from __future__ import annotations

import socket
import sys

from emailproxy.errors import ServiceError, system_words
from emailproxy.net.binding import BACKLOG
from emailproxy.net.dial import tune

SPREADS = sys.platform == "linux"
"""Whether the kernel spreads connections over sockets at the same address; elsewhere the option means less."""


class SharedAddress:
    """An address, kept for as long as this lives, whoever listens there or not."""

    def __init__(self, first: socket.socket, *, spread: bool = SPREADS) -> None:
        """`first` listens there, and got the address for itself alone: so nobody else's connections are shared.

        Args:
            spread: whether each process gets a socket of its own.

        Raises:
            ServiceError: the system does not permit it. Nothing is left open.
        """
        self._name = first.getsockname()
        self._family = first.family
        self._v6_only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) if self._is_v6 else 0
        self._first: socket.socket | None = None
        if not spread:
            self._kept = first
            return
        try:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # others of this user may join from now on
            self._kept = self._another()
            # It never listens, and gets no connections; nor does anybody else get the address, whose socket has
            # SO_REUSEADDR alone, while none of ours listens.
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            first.close()
            raise self._failed(error) from None
        self._first = first

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._name[:2]
        return host, port

    @property
    def _is_v6(self) -> bool:
        return self._family == socket.AF_INET6

    def take(self) -> socket.socket:
        """A socket that listens there, for one process.

        Raises:
            ServiceError: the system gives none.
        """
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            if self._kept.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return self._kept.dup()
            another = self._another()
            another.listen(BACKLOG)
        except OSError as error:
            raise self._failed(error) from None
        return another

    def close(self) -> None:
        """Gives the address back, once those who took sockets have closed them."""
        for sock in (self._first, self._kept):
            if sock is not None:
                sock.close()
        self._first = None

    def _another(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            if self._is_v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self._v6_only)
            tune(sock)
            sock.bind(self._name)
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def _failed(self, error: OSError) -> ServiceError:
        host, port = self.address
        return ServiceError(f"the workers cannot share {host} port {port}: {system_words(error)}; set workers = 1")
