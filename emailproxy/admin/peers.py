"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct

CREDENTIALS = struct.Struct("iii")  # ucred of unix(7): process, user and group ID


def user_of(peer: socket.socket) -> int | None:
    """The user ID of the process at the other end; None where the system does not tell.

    There the modes of the socket and its folder, which let nobody else in, have to do.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, option, CREDENTIALS.size))
    return int(uid)


def is_trusted(uid: int | None, *others: int) -> bool:
    """Whether this is root, ourselves, or one of the others."""
    return uid is None or uid in {0, os.geteuid(), *others}
