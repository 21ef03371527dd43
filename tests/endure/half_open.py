"""A peer that is gone without a word, as after a power cut or behind a dead line: keepalive finds out (tcp(7))."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import judge
from tests.endure.servers import READ, misbehaving, started
from tests.endure.talk import Talk, connect, steps
from tests.endure.watch import seconds_until
from tests.net.stubs import accept_login

SESSIONS = 10
FOUND_S = 60 + 6 * 15
"""An idle minute, and six questions a quarter of a minute apart."""
LATE_S = 5.0
"""Timers of TCP keepalive may be late by some seconds, to save wake-ups."""
WANTED = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 6}
SO_ATTACH_FILTER = 26
BPF_RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""``ret #0``, a whole classic BPF program (socket(7)): not one octet of a segment passes."""
PIDFD_GETFD = 438
"""pidfd_getfd(2), which Python has not; the number is the same on all architectures."""


def fall_silent(connection: socket.socket) -> None:
    """From now on its kernel drops whatever comes for this socket, and acknowledges nothing: for the other side, the
    machine is gone. Needs no rights."""
    program = ctypes.create_string_buffer(BPF_RETURN_NOTHING)
    described = struct.pack("HP", 1, ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


@dataclass
class Server:
    """Takes logins, and can be gone."""

    connections: list[socket.socket] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        self.connections.append(writer.get_extra_info("socket"))
        while await reader.read(READ):
            pass


@scenario(
    "half-open",
    group="upstream",
    what="Mail servers, and mail clients, are gone without a word, and their sessions stand idle.",
)
async def half_open(stage: Stage) -> None:
    server = Server()
    async with misbehaving(stage) as servers:
        await servers.add("server", server.handle, context=servers.good())
        async with started(servers) as here:
            port, descriptors = servers.ports["server"], here.watch.descriptors
            lost_server = [await _session(port) for _ in range(SESSIONS)]
            lost_client = [await _session(port) for _ in range(SESSIONS)]
            _judge_options(stage, here.proxy.pid, {port, servers.upstream_ports["server"]})
            if stage.short:
                stage.say("not waited for: half of these sessions' peers would be gone, and found so after 150 s")
            else:
                async with here.others.beating() as during:
                    await _judge_found(
                        stage, server, lost_server, lost_client, lambda: here.watch.descriptors <= descriptors
                    )
                judge(stage, here.before, during)
            here.watch.judge_log(stage)
            for talk in (*lost_server, *lost_client):
                talk.close()


async def _session(port: int) -> Talk:
    talk = await connect(port)
    for step in steps("IMAP", USER, PASSWORD).login:
        await talk.say(step)
    return talk


# ---- what the sockets are set to


def _judge_options(stage: Stage, pid: int, ports: set[int]) -> None:
    """Of all established connections of these sessions, on both sides of the proxy."""
    try:
        found = _connections(pid, ports)
    except PermissionError as error:
        stage.say(f"the proxy's sockets cannot be looked at here: {error}")
        return
    sound = sum(is_kept_alive(connection) for connection in found)
    for connection in found:
        connection.close()
    stage.figure("connections on both sides of the proxy", len(found), exactly=4 * SESSIONS)
    stage.figure("of these with keepalive as promised, 60 s and 6 x 15 s", sound, exactly=4 * SESSIONS)


def _connections(pid: int, ports: set[int]) -> list[socket.socket]:
    """Duplicates of a process's TCP connections that have one of these ports at either end.

    Raises:
        PermissionError: the process may not be looked into (ptrace(2)).
    """
    found, process = [], os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if not os.readlink(entry).startswith("socket:"):
                continue
            connection = socket.socket(fileno=_duplicate(process, int(entry.name)))
            here, there = _port(connection.getsockname), _port(connection.getpeername)
            if there and {here, there} & ports:
                found.append(connection)
            else:
                connection.close()
    finally:
        os.close(process)
    return found


def _duplicate(process: int, descriptor: int) -> int:
    duplicate = _LIBC.syscall(PIDFD_GETFD, process, descriptor, 0)
    if duplicate < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))  # PermissionError, where it is that
    return int(duplicate)


def _port(name: Callable[[], object]) -> int:
    """Of one end; 0, where it is not connected."""
    try:
        address = name()
    except OSError:
        return 0
    return int(address[1]) if isinstance(address, tuple) and len(address) > 1 else 0


def is_kept_alive(connection: socket.socket) -> bool:
    on = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    values = {name: connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in WANTED}
    return on and values == WANTED


_LIBC = ctypes.CDLL(None, use_errno=True)


# ---- gone


async def _judge_found(
    stage: Stage, server: Server, lost_server: Sequence[Talk], lost_client: Sequence[Talk], gone: Callable[[], bool]
) -> None:
    for connection in server.connections[: len(lost_server)]:
        fall_silent(connection)
    for talk in lost_client:
        fall_silent(talk.writer.get_extra_info("socket"))
    began_s = time.monotonic()
    limit_s = FOUND_S + LATE_S

    async def ended_s(talk: Talk) -> float:
        async with asyncio.timeout(2 * limit_s):
            with suppress(ConnectionError):
                await talk.reader.read()
        return time.monotonic() - began_s

    took_s = await asyncio.gather(*(ended_s(talk) for talk in lost_server))
    stage.figure("servers gone: clients told so, after at least", min(took_s), "s")
    stage.figure("servers gone: the last client was told so after", max(took_s), "s", at_most=limit_s)
    await seconds_until(gone, limit_s)
    stage.figure("clients gone: their sessions ended after", time.monotonic() - began_s, "s", at_most=limit_s)
