"""Guessing at a real server's passwords, from fifty addresses, by IMAP and SMTP: the owner gets in all the same."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from emailproxy.config.model import HOURS
from tests.bench.processes import Tree
from tests.e2e.harness.proxy import emailproxy
from tests.e2e.harness.tenant import Tenant, tenant
from tests.e2e.harness.world import PASSWORD, USER

LONG = bool(os.environ.get("EMAILPROXY_LONG_TESTS"))
WAVES = 10 if LONG else 1
EACH = 10_000 if LONG else 3_000  # guesses of one wave
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 51)]
PROTOCOLS = ("IMAP", "SMTP")
OWNERS = "127.0.2.51"
OWNERS_LOGINS = (0.001, 0.5)  # after these parts of a wave: while all wait for their first derivation, and later
ROOM_KIB = 16 * 1024  # of memory: for so many connections, and what the allocator keeps to itself


class Flood:
    """What fifty addresses guess, and what they are told."""

    def __init__(self, ours: Tenant) -> None:
        self._ours = ours
        self._numbers: Iterator[int] = itertools.count()
        self._left = 0
        self._over = asyncio.Event()
        self.told: Counter[str] = Counter()

    @property
    def answered(self) -> int:
        return self.told.total()

    async def run(self, guesses: int) -> None:
        """Until so many are answered; those that wait for a derivation then give up."""
        self._left, self._over = guesses, asyncio.Event()
        clients = zip(ADDRESSES, itertools.cycle(PROTOCOLS))
        guessing = [asyncio.create_task(self._guess(*client)) for client in clients]
        await self._over.wait()
        for task in guessing:
            task.cancel()
        await asyncio.gather(*guessing, return_exceptions=True)

    async def _guess(self, address: str, protocol: str) -> None:
        while True:
            # A server may end a connection: the guesser comes back.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                async with self._connected(address, protocol) as (reader, writer):
                    while True:
                        writer.write(login(protocol, f"guess {next(self._numbers)}"))
                        self._count(meaning(await reader.readuntil(b"\r\n")))

    def _count(self, told: str) -> None:
        self.told[told] += 1
        self._left -= 1
        if self._left <= 0:
            self._over.set()

    @contextlib.asynccontextmanager
    async def _connected(
        self, address: str, protocol: str
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        port = self._ours.imap if protocol == "IMAP" else self._ours.smtp
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        try:
            await reader.readuntil(b"\r\n")
            if protocol == "SMTP":
                writer.write(b"EHLO guesser\r\n")
                while (await reader.readuntil(b"\r\n")).startswith(b"250-"):
                    pass
            yield reader, writer
        finally:
            writer.close()


def login(protocol: str, password: str) -> bytes:
    if protocol == "IMAP":
        return f'a LOGIN {USER} "{password}"\r\n'.encode()
    return b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{password}".encode()) + b"\r\n"


def meaning(reply: bytes) -> str:
    if b"[AUTHENTICATIONFAILED]" in reply or reply.startswith(b"535 "):
        return "wrong"
    if b"[LIMIT]" in reply or reply.startswith((b"421 ", b"454 ")):
        return "wait"
    return reply.decode()


async def owners_login_s(ours: Tenant, password: str) -> float:
    """From the connection on to the mailbox, with a password that this process has not seen."""
    began_s = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", ours.imap, local_addr=(OWNERS, 0))
    await reader.readuntil(b"\r\n")
    writer.write(f'a LOGIN {USER} "{password}"\r\n'.encode())
    while not (reply := await reader.readuntil(b"\r\n")).startswith(b"a "):
        pass
    took_s = time.perf_counter() - began_s
    writer.close()
    assert reply.startswith(b"a OK"), reply
    return took_s


async def at_rest_kib(ours: Tenant, most: int) -> int:
    """The server's memory once the derivations under way are over: each takes 64 MiB meanwhile."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while ours.proxy.resident_kib >= most:
                await asyncio.sleep(0.05)
    return ours.proxy.resident_kib


async def device(folder: Path, name: str) -> str:
    """A further password of the owner's: a given one, which takes a full derivation."""
    password = f"the password of {name}"
    given = ("--name", name, "--password-file", "-", "--json", "--config", folder / "emailproxy.ini")
    made = await emailproxy("accounts", "add-password", USER, *given, home=folder, stdin=password.encode())
    assert made.code == 0, made.output
    assert json.loads(made.output)["name"] == name
    return password


@pytest.mark.timeout(1 * HOURS if LONG else 300)
# CPython's own, where a client is gone before the handshake begins: nobody could close what `wrap_socket` made.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
async def test_the_owner_logs_in_amid_a_flood_of_guesses(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:
        async with tenant(tmp_path, settings={"runtime_dir": runtime, "login_timeout": 600}) as ours:
            await asyncio.to_thread(lambda: ours.log_in_imap().logout())
            await ours.proxy.printed(f"account {USER} is set up")
            logins = WAVES * len(OWNERS_LOGINS)
            passwords = [await device(tmp_path, f"device {number}") for number in range(logins + 1)]
            at_rest_s = await owners_login_s(ours, passwords.pop())
            flood, memory_kib, owner_s = Flood(ours), [ours.proxy.resident_kib], list[tuple[float, float]]()
            server, began_s = Tree(ours.proxy.pid), time.perf_counter()
            for _ in range(WAVES):
                answered = flood.answered
                guessing = asyncio.create_task(flood.run(EACH))
                for part in OWNERS_LOGINS:
                    while flood.answered < answered + part * EACH:
                        await asyncio.sleep(0.01)
                    before, before_s = flood.told["wrong"], server.cpu_s()
                    took_s = await owners_login_s(ours, passwords.pop())
                    owner_s.append((took_s, server.cpu_s() - before_s))
                    # First come, first served, all that were there before would have had their turn.
                    assert flood.told["wrong"] - before < len(ADDRESSES) // 4
                await guessing
                memory_kib.append(await at_rest_kib(ours, memory_kib[0] + ROOM_KIB))
            figures = {
                "s": time.perf_counter() - began_s, "told": dict(flood.told), "memory_kib": memory_kib,
                "owner_s_and_the_servers_cpu_s": owner_s, "owner_at_rest_s": at_rest_s,
            }  # fmt: skip
            record_property("flood", figures)
            assert flood.answered >= WAVES * EACH
            assert set(flood.told) == {"wrong", "wait"}
            assert max(memory_kib) - memory_kib[0] < ROOM_KIB, figures
            # Others use the machine, too: what the server did meanwhile is bounded, and that it was at work.
            assert all(cpu_s < 3.0 and (took_s < 1.0 or took_s < 30 * cpu_s) for took_s, cpu_s in owner_s), figures
            (await asyncio.to_thread(ours.log_in_imap, USER, PASSWORD)).logout()
    print(figures)
