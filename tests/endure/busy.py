"""Sessions that are at work all the time, whose every message is compared."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.bench.upstream import BLOCK
from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.site import Site
from tests.endure.talk import Step, Talk, connect, imap_step, steps

PIECE = 64 * 1024
RECIPIENT = "bob@example.com"
LITERAL = re.compile(rb"\* 1 FETCH \(BODY\[\] \{(\d+)\}\r\n")
IDLING = Step(b"i IDLE\r\n", re.compile(rb"\+ "), re.compile(rb"\+ |i "))
IDLED = Step(b"DONE\r\n", re.compile(rb"i OK"), re.compile(rb"i "))
IDLE_S = 0.5
"""Between two IDLE commands."""
HELD_S = 0.05
"""A slow client takes a piece, and then so long a rest."""


def message(octets: int) -> bytes:
    """The stub's only one."""
    return (BLOCK * (octets // len(BLOCK) + 1))[:octets]


def mail(number: int, octets: int) -> bytes:
    """A mail like no other, as it is sent: in lines of base64."""
    body = base64.encodebytes(random.Random(number).randbytes(octets * 3 // 4)).replace(b"\n", b"\r\n")  # noqa: S311
    return b"Subject: %d\r\n\r\n" % number + body


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


async def logged_in(port: int, protocol: str = "IMAP", *, limit: int = PIECE) -> Talk:
    """A client that has logged in.

    Raises:
        OSError, EOFError, Unexpected: it was not let in.
    """
    talk = await connect(port, limit=limit)
    try:
        for step in steps(protocol, USER, PASSWORD).login:
            await talk.say(step)
    except BaseException:
        talk.close()
        raise
    return talk


async def fetch(talk: Talk, *, held_s: float = 0.0, begun: Callable[[], object] = lambda: None) -> str:
    """The digest of the stub's message; `begun` is called once its first piece is there.

    Raises:
        OSError, EOFError, ValueError: it did not come, or not in this form.
    """
    talk.writer.write(b"f FETCH 1 BODY[]\r\n")
    announced = LITERAL.fullmatch(await talk.reader.readline())
    if announced is None:
        raise ValueError("no message was announced")
    left, received = int(announced[1]), hashlib.sha256()
    while left:
        piece = await talk.reader.readexactly(min(PIECE, left))
        received.update(piece)
        left -= len(piece)
        begun()
        await asyncio.sleep(held_s)
    await talk.say(Step(b"", re.compile(rb"f OK"), re.compile(rb"f ")))
    return received.hexdigest()


async def send(talk: Talk, content: bytes, *, held_s: float = 0.0, begun: Callable[[], object] = lambda: None) -> None:
    """A mail; the server has taken it.

    Raises:
        OSError, EOFError, Unexpected: it did not.
    """
    for line, code in ((f"MAIL FROM:<{USER}>", b"250"), (f"RCPT TO:<{RECIPIENT}>", b"250"), ("DATA", b"354")):
        await talk.say(_smtp(line.encode() + b"\r\n", code))
    for start in range(0, len(content), PIECE):
        talk.writer.write(content[start : start + PIECE])
        await talk.writer.drain()
        begun()
        await asyncio.sleep(held_s)
    await talk.say(_smtp(b".\r\n", b"250"))


def _smtp(octets: bytes, code: bytes) -> Step:
    return Step(octets, re.compile(code + b" "), re.compile(rb"\d{3} "))


@dataclass
class Work:
    """What sessions do until it is over; whatever ends one of them before that is in `failures`."""

    site: Site
    octets: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    inside: int = 0
    """Standing sessions that have logged in."""
    fetched: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    idled: int = 0
    came: int = 0
    failures: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def standing(self, kind: Callable[[Talk], Awaitable[None]], protocol: str, port: int) -> None:
        """One session from now until it is over."""
        talk = await logged_in(port, protocol)
        self.inside += 1
        try:
            while not self.over.is_set():
                await kind(talk)
        except (OSError, EOFError, ValueError) as error:
            self.failures.append(f"{kind.__name__}: {type(error).__name__}: {error}")
        finally:
            talk.close()

    async def fetch(self, talk: Talk) -> None:
        self.fetched.append(await fetch(talk))

    async def send(self, talk: Talk) -> None:
        content = mail(next(self._numbers), 20_000)
        await send(talk, content)
        self.sent.append(digest(content))

    async def idle(self, talk: Talk) -> None:
        await talk.say(IDLING)
        await asyncio.wait({waiting := asyncio.ensure_future(self.over.wait())}, timeout=IDLE_S)
        waiting.cancel()
        await talk.say(IDLED)
        self.idled += 1

    async def come_and_go(self, port: int) -> None:
        """Logins, one after another."""
        while not self.over.is_set():
            try:
                talk = await logged_in(port)
                await talk.say(imap_step(b"z", b"LOGOUT"))
            except (OSError, EOFError, ValueError) as error:
                self.failures.append(f"login: {type(error).__name__}: {error}")
                return
            talk.close()
            self.came += 1

    def judge(self) -> None:
        stage = self.site.stage
        for failure in self.failures[:5]:
            stage.say(f"a session ended: {failure}")
        stage.figure("sessions that were dropped, logins that failed", len(self.failures), exactly=0)
        right = digest(message(self.octets))
        stage.figure("messages fetched", len(self.fetched), at_least=1)
        stage.figure("of them otherwise than they are", sum(one != right for one in self.fetched), exactly=0)
        judge_mails(self.site, self.sent)
        stage.figure("IDLE commands ended", self.idled, at_least=1)
        stage.figure("logins meanwhile", self.came, at_least=1)


def judge_mails(site: Site, sent: Sequence[str]) -> None:
    """Each that the server took has arrived, octet by octet."""
    arrived = {digest(_as_sent(one.content)) for one in site.world.sink.mails}
    site.stage.figure("mails sent", len(sent), at_least=1)
    site.stage.figure("of them not arrived as they were sent", len(set(sent) - arrived), exactly=0)


def _as_sent(content: bytes) -> bytes:
    """Without the headers that the server adds (RFC 5321 section 4.4)."""
    return content[content.index(b"Subject: ") :]
