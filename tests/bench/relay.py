"""The relay's CPU: a plain client and a TLS server in processes of their own, the proxy's network half in this one."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import socket
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from emailproxy.demo.certificates import Authority, Certificate
from tests.net.stubs import GREETING, proxy_to

CHUNK = 64 * 1024
GB = 1_000_000_000
SPAWN = multiprocessing.get_context("spawn")  # a fork of this process would count what it has in memory
DOWN, UP = b"DOWN", b"UP"
WAYS = {"server to client": DOWN, "client to server": UP}


@dataclass(frozen=True, slots=True)
class Figures:
    cpu_s_per_gb: float
    mb_per_s: float


async def measure(octets: int) -> dict[str, Figures]:
    """What the proxy's process spends on passing so many octets, by direction."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.create(Path(folder))
        theirs, ours = SPAWN.Pipe()
        server = SPAWN.Process(target=serve, args=(authority.issue("localhost"), theirs, len(WAYS)), daemon=True)
        server.start()
        theirs.close()  # so that a peer that fails ends the wait for it
        port = await asyncio.to_thread(ours.recv)
        async with proxy_to(port, authority.certificate_file) as proxy:
            figures = {name: await _transfer(proxy.port, way, octets) for name, way in WAYS.items()}
        await asyncio.to_thread(server.join)
        return figures


async def _transfer(port: int, way: bytes, octets: int) -> Figures:
    theirs, ours = SPAWN.Pipe()
    client = SPAWN.Process(target=connect, args=(port, way, octets, theirs), daemon=True)
    client.start()
    theirs.close()
    await asyncio.to_thread(ours.recv)  # it is logged in
    start_s, cpu_s = time.perf_counter(), _cpu_s()
    ours.send(None)
    await asyncio.to_thread(ours.recv)  # all has arrived
    cpu_s, took_s = _cpu_s() - cpu_s, time.perf_counter() - start_s
    ours.send(None)
    await asyncio.to_thread(client.join)
    return Figures(cpu_s / octets * GB, octets / took_s / 1_000_000)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# ---- the peers, each in a process of its own


def serve(certificate: Certificate, told: Connection, connections: int) -> None:
    """An IMAP server that takes any login; then ``DOWN n`` asks for n octets, and ``UP n`` announces as many."""
    context = certificate.server_context()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        told.send(listening.getsockname()[1])
        for _ in range(connections):
            plain, _address = listening.accept()
            with (
                context.wrap_socket(plain, server_side=True) as connection,
                connection.makefile("rb", buffering=0) as lines,
            ):
                connection.sendall(GREETING)
                connection.sendall(lines.readline().split()[0] + b" OK logged in\r\n")
                way, count = lines.readline().split()
                if way == DOWN:
                    send(connection, int(count))
                else:
                    receive(connection, int(count))
                    connection.sendall(b"*")


def connect(port: int, way: bytes, octets: int, turns: Connection) -> None:
    """A mail client. It waits for its turn to begin, and says when all octets have arrived."""
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb", buffering=0) as lines:
        lines.readline()
        connection.sendall(b"a LOGIN user@example.com secret\r\n")
        reply = lines.readline()
        if not reply.startswith(b"a OK"):
            raise ConnectionError(f"the login was refused: {reply!r}")
        turns.send(None)
        turns.recv()
        connection.sendall(way + b" %d\r\n" % octets)
        if way == DOWN:
            receive(connection, octets)
        else:
            send(connection, octets)
            receive(connection, 1)
        turns.send(None)
        turns.recv()


def send(connection: socket.socket, octets: int) -> None:
    chunk = bytes(CHUNK)
    for _ in range(octets // CHUNK):
        connection.sendall(chunk)
    connection.sendall(chunk[: octets % CHUNK])


def receive(connection: socket.socket, octets: int) -> None:
    buffer = bytearray(4 * CHUNK)
    while octets:
        count = connection.recv_into(buffer, min(len(buffer), octets))
        if not count:
            raise ConnectionError("the connection ended too early")
        octets -= count
