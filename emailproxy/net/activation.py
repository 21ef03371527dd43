"""Socket activation: listening sockets that the service manager opened for us (systemd's sd_listen_fds(3)).

That is how an unprivileged process serves ports below 1024, and how a restart loses no connection.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, MutableMapping

log = logging.getLogger("emailproxy.net")

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
UNNAMED = "unknown"  # sd_listen_fds_with_names(3): what a socket without a name is called


def inherited(environ: MutableMapping[str, str]) -> dict[str, list[socket.socket]]:
    """The listening sockets passed to this process, by name; the variables are removed, so that no child sees them.

    What is no listening TCP socket is left alone, with a notice.
    """
    for_whom, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if for_whom != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + index
        name = names[index] if index < len(names) and names[index] else UNNAMED
        sock = _listening(descriptor)
        if sock is None:
            log.warning("descriptor %d (%s) from the service manager is no listening TCP socket", descriptor, name)
        else:
            found.setdefault(name, []).append(sock)
    return found


def _listening(descriptor: int) -> socket.socket | None:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return None
    inet = sock.family in {socket.AF_INET, socket.AF_INET6} and sock.type == socket.SOCK_STREAM
    if not inet or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        return None
    sock.setblocking(False)
    return sock


class Activated:
    """The sockets that came with the process. They stay open as long as it lives; sections get duplicates."""

    def __init__(self, sockets: Mapping[str, list[socket.socket]]) -> None:
        self._sockets = [(name, sock) for name, of_name in sockets.items() for sock in of_name]
        self._claims: dict[socket.socket, tuple[str, object]] = {}

    def claim(self, section: str, port: int, claimant: object) -> list[socket.socket]:
        """Those of a section: named as it is, without regard to case, or else those at its port that no other has."""
        named = [sock for name, sock in self._sockets if name.casefold() == section.casefold()]
        claimed = named or [
            sock
            for _, sock in self._sockets
            if sock.getsockname()[1] == port and self._claims.get(sock, (section, None))[0] == section
        ]
        for sock in claimed:
            self._claims[sock] = section, claimant
        return [sock.dup() for sock in claimed]

    def release(self, claimant: object) -> None:
        """It listens no more; who connects before another does waits."""
        self._claims = {sock: claim for sock, claim in self._claims.items() if claim[1] is not claimant}

    def notices(self) -> list[str]:
        """What to say of those that no section listens on."""
        return [
            f"the service manager passed a socket at {sock.getsockname()[0]} port {sock.getsockname()[1]} (named "
            f"{name}) that no section listens on; name it as its section, with FileDescriptorName="
            for name, sock in self._sockets
            if sock not in self._claims
        ]

    def close(self) -> None:
        """At the end of the process."""
        for _, sock in self._sockets:
            sock.close()


class Handed(Activated):
    """The sockets that a process of ours opened for this one. They are their section's, and end with it."""

    def __init__(self) -> None:
        super().__init__({})
        self._given: dict[str, list[socket.socket]] = {}

    def give(self, section: str, sockets: list[socket.socket]) -> None:
        """Those of a section that is about to open."""
        self._given.setdefault(section, []).extend(sockets)

    def claim(self, section: str, port: int, claimant: object) -> list[socket.socket]:
        return self._given.pop(section, [])

    def close(self) -> None:
        """Closes what no section has claimed."""
        for sockets in self._given.values():
            for sock in sockets:
                sock.close()
        self._given.clear()
