"""The control socket of a running server: who may connect, and what happens where another server has it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from emailproxy.admin import peers
from emailproxy.admin.paths import MAX_PATH
from emailproxy.errors import ServiceError, StateError, system_words
from emailproxy.store import files

BACKLOG = 16

log = logging.getLogger("emailproxy.admin")

Protocols = Callable[[], asyncio.Protocol]
"""What answers a connection."""


class Door(asyncio.Protocol):
    """What every connection meets first: it hands over to what answers, or hangs up on who has no business here."""

    def __init__(self, protocols: Protocols) -> None:
        self._protocols = protocols

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # uvloop's are not instances of it
        uid = peers.user_of(stream.get_extra_info("socket"))
        if not peers.is_trusted(uid):
            log.warning("a process of user %s at the control socket was turned away: only root and the server's own "
                        "user may control it", uid)  # fmt: skip
            stream.abort()
            return
        protocol = self._protocols()
        stream.set_protocol(protocol)
        protocol.connection_made(stream)


class ControlSocket:
    """Listens at a path; `open` it once, `close` it once."""

    def __init__(self, path: Path, protocols: Protocols) -> None:
        self.path = path
        self._protocols = protocols
        self._server: asyncio.Server | None = None
        self._inode = 0

    async def open(self) -> None:
        """Listens there, in place of a server that has died.

        Raises:
            ServiceError: it cannot, or another server that runs has this socket; the text says what to do.
        """
        listening = await asyncio.to_thread(bound, self.path)
        self._inode = self.path.lstat().st_ino
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Door(self._protocols), sock=listening, backlog=BACKLOG)
        log.debug("the control socket is %s", self.path)

    async def close(self) -> None:
        """Stops listening, and removes the socket where it is still ours."""
        if self._server is None:
            return
        self._server.close()
        with suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def bound(path: Path) -> socket.socket:
    """A socket that listens at this path, 0600 in a folder of 0700 from its first moment. Blocks.

    It gets its name when it listens already: of a dead server's socket and of ours, a client finds one, never a gap.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ServiceError(
            f"there is no control socket: its path {path} has more than {MAX_PATH} octets; set runtime_dir to a "
            "folder with a shorter name"
        )
    try:
        files.make_folder(path.parent)
    except StateError as error:
        raise ServiceError(f"there is no control socket: {error}; or set runtime_dir to another folder") from None
    if is_alive(path):
        raise ServiceError(
            f"there is no control socket: another server with this state folder has {path}; "
            "'emailproxy status' and the accounts' commands speak to that one"
        )
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(OSError):  # not everywhere; the folder keeps others out until the next chmod
            os.fchmod(listening.fileno(), files.FILE_MODE)
        listening.bind(os.fspath(temporary))
        if stat.S_IMODE(temporary.lstat().st_mode) & files.OTHERS:  # not on Linux, where a link could be in its place
            temporary.chmod(files.FILE_MODE)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        temporary.replace(path)
    except OSError as error:
        listening.close()
        with suppress(OSError):
            temporary.unlink()
        raise ServiceError(
            f"there is no control socket: {path} cannot be made ({system_words(error)}); set runtime_dir to a folder "
            "that the server may write to"
        ) from None
    return listening


def is_alive(path: Path) -> bool:
    """Whether somebody listens at this path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # its backlog is full: it is busy, not dead
            return True
        except OSError:
            return False
    return True
