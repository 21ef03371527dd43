"""Mail servers that break off, keep silent, or do not stop talking."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from emailproxy.config.model import MIB
from tests.bench.upstream import BLOCK
from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.crowd import RESET_AT_CLOSE
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import judge
from tests.endure.servers import READ, REFUSED, Misbehaving, Told, misbehaving, started
from tests.endure.talk import connect, steps
from tests.endure.watch import seconds_until
from tests.net.stubs import GREETING, Handler, accept_login

SOON_S = 5.0
"""A login at a server that breaks off is refused by then; it is tried a second time, as the server hung up."""
GONE_S = 1.0
"""The client of a session whose server broke off is told so by then."""
LITERAL, PART = 1_000_000, 300_000
"""Octets of a message, and of what comes of it."""
AT_ONCE = 2
"""More would be a load, and what others notice is to be the resets."""


# ---- resets


async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Before a word."""


async def in_the_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """With the ClientHello read, and not answered."""
    await reader.read(READ)


async def in_the_greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING[:9])
    await writer.drain()


async def after_the_greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await reader.readexactly(1)


async def after_the_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await reader.readline()


async def in_the_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    tag = (await reader.readline()).split()[0]
    writer.write(b"* CAPABILITY IMAP4rev1\r\n" + tag + b" O")
    await writer.drain()


async def in_a_challenge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await reader.readline()
    writer.write(b"+ eyJzdGF0dXMiOiI0MDEifQ==\r\n")
    await reader.readline()


PLAIN = (at_once, in_the_handshake)
"""Those that never speak TLS."""
STEPS = (*PLAIN, in_the_greeting, after_the_greeting, after_the_login, in_the_answer, in_a_challenge)


def then_reset(step: Handler) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await step(reader, writer)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        writer.transport.abort()

    return handle


@dataclass
class Cut:
    """A server that breaks off in the middle of a message, to or from the client."""

    cut_at_s: float = 0.0
    got: bytes = b""

    async def download(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        await reader.readline()
        writer.write(b"* 1 FETCH (BODY[] {%d}\r\n" % LITERAL + sent(PART))
        await writer.drain()
        self.cut_at_s = time.monotonic()

    async def upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        await reader.readline()
        writer.write(b"+ go ahead\r\n")
        self.got = await reader.readexactly(PART)
        self.cut_at_s = time.monotonic()


def sent(octets: int) -> bytes:
    return (BLOCK * (octets // len(BLOCK) + 1))[:octets]


@scenario("server-resets", group="upstream", what="The mail server resets the connection in a login, and in a message.")
async def server_resets(stage: Stage) -> None:
    async with misbehaving(stage) as servers:
        for step in STEPS:
            context = None if step in PLAIN else servers.good()
            await servers.add(step.__name__, then_reset(step), context=context)
        cut = Cut()
        for way in (cut.download, cut.upload):
            await servers.add(way.__name__, then_reset(way), context=servers.good())
        async with started(servers) as here:
            await _logins_in_rounds(servers, 1)  # what is done a first time
            descriptors = here.watch.descriptors
            async with here.others.beating() as during:
                told = await _logins_in_rounds(servers, stage.effort(100, 20))
                late_s = [await _broken_off(servers, cut, way) for way in ("download", "upload")
                          for _ in range(stage.effort(20, 3))]  # fmt: skip
            stage.figure("logins that a reset ended", len(told))
            judge_refusals(stage, told, "IMAP", within_s=SOON_S)
            stage.figure("messages that a reset broke off", len(late_s))
            stage.figure("clients of these that got wrong octets, or no end", late_s.count(float("inf")), exactly=0)
            stage.figure("the last was told after", max(late_s), "s", at_most=GONE_S, timing=True)
            back_s = await seconds_until(lambda: here.watch.descriptors <= descriptors, 10.0)
            stage.figure("file descriptors back to what they were, after", back_s, "s", at_most=10.0)
            judge(stage, here.before, during)
            here.watch.judge_log(stage)


def judge_refusals(stage: Stage, told: list[Told], protocol: str, *, within_s: float) -> None:
    odd = [one.text for one in told if REFUSED[protocol] not in one.text]
    for text in odd[:3]:
        stage.say(f"told: {text}")
    stage.figure("clients that were not told to try again later", len(odd), exactly=0)
    slowest_s = max(one.took_s for one in told)
    stage.figure("the last was told after", slowest_s, "s", at_most=within_s, timing=True)


async def _logins_in_rounds(servers: Misbehaving, rounds: int) -> list[Told]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def login(step: Handler) -> Told:
        async with turns:
            return await servers.told(step.__name__)

    return list(await asyncio.gather(*(login(step) for _ in range(rounds) for step in STEPS)))


async def _broken_off(servers: Misbehaving, cut: Cut, way: str) -> float:
    """Seconds until the client's connection ends, too; infinity, where it does not, or has got or sent other octets."""
    talk = await connect(servers.ports[way])
    try:
        for step in steps("IMAP", USER, PASSWORD).login:
            await talk.say(step)
        if way == "download":
            talk.writer.write(b"d FETCH 1 BODY[]\r\n")
            wanted = b"* 1 FETCH (BODY[] {%d}\r\n" % LITERAL + sent(PART)
        else:
            talk.writer.write(b"u APPEND INBOX {%d}\r\n" % LITERAL)
            assert (await talk.reader.readline()).startswith(b"+")
            talk.writer.write(sent(LITERAL))
            wanted = b""
        got = b""
        async with asyncio.timeout(20.0):
            with suppress(ConnectionError):
                while data := await talk.reader.read(READ):
                    got += data
        ended_s = time.monotonic() - cut.cut_at_s
    except TimeoutError:
        return float("inf")
    finally:
        talk.close()
    whole = wanted.startswith(got) and (way == "download" or cut.got == sent(PART))
    return ended_s if whole else float("inf")


# ---- silence


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(READ):
        pass


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An octet of its greeting a second."""
    for octet in GREETING:
        writer.write(bytes((octet,)))
        await asyncio.sleep(1)


async def silent_after_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETING)
    await reader.readline()
    await silent(reader, writer)


SILENT: dict[str, tuple[Handler, bool]] = {
    "no TLS handshake": (silent, False),
    "no greeting": (silent, True),
    "an octet a second": (dripping, True),
    "no answer to the login": (silent_after_login, True),
}
"""What does not come, and whether there is TLS."""


@scenario("silent-server", group="upstream", what="Mail servers accept connections, and then say nothing.")
async def silent_server(stage: Stage) -> None:
    timeout_s, clients = stage.effort(60, 6), stage.effort(40, 10)
    async with misbehaving(stage) as servers:
        servers.ground.settings["login_timeout"] = timeout_s
        for name, (handler, tls) in SILENT.items():
            await servers.add(name, handler, context=servers.good() if tls else None)
        async with started(servers) as here:
            descriptors = here.watch.descriptors
            async with here.others.beating() as during:
                waiting = [servers.told(name) for name in SILENT for _ in range(clients)]
                told = list(await asyncio.gather(*waiting))
            stage.figure("clients of silent servers", len(told))
            silent_to = [one.text for one in told if "BYE" not in one.text and REFUSED["IMAP"] not in one.text]
            for text in silent_to[:3]:
                stage.say(f"told: {text}")
            stage.figure("clients that were told nothing, or something else", len(silent_to), exactly=0)
            slowest_s = max(one.took_s for one in told)
            stage.figure("the last was told after", slowest_s, "s", at_most=timeout_s + 1.0, timing=True)
            back_s = await seconds_until(lambda: here.watch.descriptors <= descriptors, 10.0)
            stage.figure("file descriptors back to what they were, after", back_s, "s", at_most=10.0)
            judge(stage, here.before, during)
            here.watch.judge_log(stage)


# ---- a line without an end


@dataclass
class Endless:
    """A server whose line does not end, from its greeting on or after the login."""

    octets: int
    taken: int = 0
    """That the other side took before it left."""

    async def greeting(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken = 0
        writer.write(b"* OK ")
        with suppress(OSError):
            await self._talk(writer)

    async def message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        await self._talk(writer)

    async def _talk(self, writer: asyncio.StreamWriter) -> None:
        line = ONE_LINE
        while self.taken < self.octets:
            writer.write(line)
            await writer.drain()
            self.taken += len(line)


ONE_LINE = BLOCK.replace(b"\r\n", b"==")
FLAT_KIB = 4096
"""What memory may grow by meanwhile: buffers of 64 KiB a side, and what the allocator keeps to itself."""
IN_FLIGHT = 32 * MIB
"""Octets that were written and not read: buffers of the kernel and of TLS, on both sides."""


@scenario("long-line", group="upstream", what="A mail server sends a line of 1 GB, before the login and after it.")
async def long_line(stage: Stage) -> None:
    octets = stage.effort(1_000_000_000, 100_000_000) // len(ONE_LINE) * len(ONE_LINE)
    async with misbehaving(stage) as servers:
        endless = Endless(octets)
        for handler in (endless.greeting, Endless(octets).message):
            await servers.add(handler.__name__, handler, context=servers.good())
        async with started(servers) as here:
            start_kib = here.watch.rss_kib
            async with here.others.beating() as during, here.watch.peak() as peak:
                told = await servers.told("greeting")
                stage.figure("before the login: octets sent until it was closed", endless.taken, at_most=IN_FLIGHT)
                stage.figure("before the login: the client was told after", told.took_s, "s", at_most=SOON_S)
                stage.figure("before the login: the client knows why", int("64 KiB" in told.text), exactly=1)
                began_s = time.perf_counter()
                sound = await _read_line(servers.ports["message"], octets)
                took_s = time.perf_counter() - began_s
            stage.figure("after the login: octets that arrived, as they were sent", sound, exactly=octets)
            stage.figure("after the login: passed on", octets / took_s / 1e6, "MB/s")
            stage.figure("memory grown by, at the most", peak.kib - start_kib, "KiB", at_most=FLAT_KIB)
            judge(stage, here.before, during)
            here.watch.judge_log(stage)


async def _read_line(port: int, octets: int) -> int:
    """How many octets of the line arrived before the first wrong one, or the end."""
    pattern, arrived = ONE_LINE * 2, 0
    talk = await connect(port, limit=READ)
    try:
        for step in steps("IMAP", USER, PASSWORD).login:
            await talk.say(step)
        while arrived < octets and (data := await talk.reader.read(len(ONE_LINE))):
            start = arrived % len(ONE_LINE)
            if data != pattern[start : start + len(data)]:
                break
            arrived += len(data)
    finally:
        talk.close()
    return arrived
