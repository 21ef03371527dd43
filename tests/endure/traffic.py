"""Ordinary mail programs at work, through the proxy, by every protocol; every message is compared by its digest."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.e2e.harness.world import PASSWORD, USER
from tests.endure.site import Site
from tests.endure.talk import Step, Talk, Unexpected, connect, imap_step, steps

PATIENCE_S = 60.0
"""For one round of a program."""
PAUSE_S = (0.2, 0.8)
"""Between two rounds: so that two cores also have time for the mail server and for us."""
IDLE_S = (1.0, 4.0)
WRONG_S = (3.0, 6.0)
"""Between two wrong passwords: each costs a derivation."""
KIB, MIB = 1024, 1024 * 1024
LONGEST = 16 * MIB
"""Octets that a program takes in at once: a whole message."""
CHANCE = random.Random()  # noqa: S311 - nothing here is to be guessed
SIZES = [*(number * 5 * KIB for number in range(1, 31)), 5 * MIB]
OK_LINE = re.compile(rb"\+OK")
ANSWER = re.compile(rb"\+OK|-ERR")


class WrongOctets(ValueError):
    """A message is not what was sent."""


def message(name: str, octets: int) -> bytes:
    """In lines of hexadecimal digits, none of which begins with a dot; ends of lines are CRLF."""
    digits = os.urandom(octets // 2).hex().encode()
    lines = [digits[start : start + 76] for start in range(0, len(digits), 76)]
    return f"Subject: {name}\r\n\r\n".encode() + b"\r\n".join(lines) + b"\r\n"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def name_of(content: bytes) -> str:
    found = re.search(rb"^Subject: (.*?)\r?$", content, re.MULTILINE)
    if found is None:
        raise WrongOctets(f"no subject in {content[:80]!r}")
    return found[1].decode()


@dataclass
class Traffic:
    """Programs that go on until they are told that it is over, and stand still while `paused`."""

    site: Site
    rounds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    octets: int = 0
    over: bool = False
    _digests: dict[str, str] = field(default_factory=dict)
    _sent: dict[str, asyncio.Future[str]] = field(default_factory=dict)
    _going: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: int = 0

    def deliver(self) -> None:
        """What is in the mailbox from the beginning."""
        contents = [message(f"delivered {number}", octets) for number, octets in enumerate(SIZES)]
        self._digests = {name_of(content): digest(content) for content in contents}
        self.site.world.server.deliver(USER, [content.replace(b"\r\n", b"\n") for content in contents])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        local = self.site.world.local
        programs: list[tuple[str, Callable[[int, int], Awaitable[None]], Sequence[int], tuple[float, float]]] = [
            ("IMAP, FETCH", self._fetch, [local.imap, local.imap_starttls] * 2, PAUSE_S),
            ("IMAP, APPEND", self._append, [local.imap, local.imap_starttls], PAUSE_S),
            ("IMAP, IDLE", self._idle, [local.imap, local.imap_starttls] * 3, PAUSE_S),
            ("POP3, RETR", self._retrieve, [local.pop, local.pop_starttls], PAUSE_S),
            ("SMTP, DATA", self._submit, [local.smtp, local.smtp_starttls], PAUSE_S),
            ("a wrong password", self._guess, [local.imap], WRONG_S),
        ]
        self._going.set()
        tasks = [asyncio.create_task(self._receive())]
        for name, program, ports, pause_s in programs:
            tasks += [
                asyncio.create_task(self._repeat(name, program, number, port, pause_s))
                for number, port in enumerate(ports)
            ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def pause(self) -> None:
        """Returns once no program is at work."""
        self._going.clear()
        while self._busy:
            await asyncio.sleep(0.05)

    def go_on(self) -> None:
        self._going.set()

    async def _repeat(
        self,
        name: str,
        program: Callable[[int, int], Awaitable[None]],
        number: int,
        port: int,
        pause_s: tuple[float, float],
    ) -> None:
        while True:
            await self._going.wait()
            self._busy += 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await program(number, port)
                self.rounds[name] += 1
            except Exception as error:  # whatever it is, it is one round's, and told in the end
                self.faults[f"{name}: {type(error).__name__}: {str(error).strip()[:200]}"] += 1
            finally:
                self._busy -= 1
            await asyncio.sleep(CHANCE.uniform(*pause_s))

    def _compare(self, content: bytes) -> None:
        name = name_of(content)
        self.compared += 1
        self.octets += len(content)
        if self._digests[name] != digest(content):
            raise WrongOctets(f"the message {name} has changed")

    # ---- the programs

    @asynccontextmanager
    async def _logged_in(self, protocol: str, port: int, password: str = PASSWORD) -> AsyncIterator[Talk]:
        talk = await connect(port, source="127.0.4.1", limit=LONGEST)
        try:
            dialogue = steps(protocol, USER, password)
            for step in dialogue.login:
                await talk.say(step)
            yield talk
            await talk.say(dialogue.goodbye)
            # The end of the stream is the session's end, too: what comes next finds it gone.
            await talk.reader.read()
        finally:
            talk.close()

    async def _fetch(self, number: int, port: int) -> None:
        async with self._logged_in("IMAP", port) as talk:
            await talk.say(imap_step(b"s", b"EXAMINE INBOX"))
            for one in CHANCE.sample(range(1, len(SIZES) + 1), 3):
                self._compare(await _literal(talk, one))

    async def _append(self, number: int, port: int) -> None:
        """Into a mailbox of its own, and out of it again."""
        folder = f"Work{number}".encode()
        content = message(f"appended {number} {self.rounds.total()}", CHANCE.choice(SIZES[:20]))
        self._digests[name_of(content)] = digest(content)
        async with self._logged_in("IMAP", port) as talk:
            with suppress(Unexpected):  # it is there from the last round
                await talk.say(imap_step(b"k", b"CREATE " + folder))
            go_ahead = Step(b"l APPEND %b {%d}\r\n" % (folder, len(content)), re.compile(rb"\+"), re.compile(rb"\+|l "))
            await talk.say(go_ahead)
            await talk.say(Step(content + b"\r\n", re.compile(rb"l OK"), re.compile(rb"l ")))
            await talk.say(imap_step(b"m", b"SELECT " + folder))
            self._compare(await _literal(talk, 1))
            await talk.say(imap_step(b"o", rb"STORE 1 +FLAGS.SILENT (\Deleted)"))
            await talk.say(imap_step(b"p", b"EXPUNGE"))
        del self._digests[name_of(content)]

    async def _idle(self, number: int, port: int) -> None:
        async with self._logged_in("IMAP", port) as talk:
            await talk.say(imap_step(b"s", b"EXAMINE INBOX"))
            await talk.say(Step(b"i IDLE\r\n", re.compile(rb"\+"), re.compile(rb"\+|i ")))
            await asyncio.sleep(CHANCE.uniform(*IDLE_S))
            await talk.say(Step(b"DONE\r\n", re.compile(rb"i OK"), re.compile(rb"i ")))

    async def _retrieve(self, number: int, port: int) -> None:
        async with self._logged_in("POP", port) as talk:
            one = CHANCE.randint(1, len(SIZES))
            await talk.say(Step(b"RETR %d\r\n" % one, OK_LINE, ANSWER))
            self._compare((await talk.reader.readuntil(b"\r\n.\r\n"))[:-3])

    async def _submit(self, number: int, port: int) -> None:
        name = f"sent {number} {self.rounds.total()}"
        content = message(name, CHANCE.choice(SIZES[:20]))
        arrived = self._sent[name] = asyncio.get_running_loop().create_future()
        try:
            async with self._logged_in("SMTP", port) as talk:
                for command, code in (
                    (f"MAIL FROM:<{USER}>".encode(), b"250"),
                    (b"RCPT TO:<bob@example.com>", b"250"),
                    (b"DATA", b"354"),
                    (content + b".", b"250"),
                ):
                    await talk.say(Step(command + b"\r\n", re.compile(code + b" "), re.compile(rb"\d{3} ")))
            if await arrived != digest(content):
                raise WrongOctets(f"the message {name} has changed")
            self.compared += 1
            self.octets += len(content)
        finally:
            del self._sent[name]

    async def _receive(self) -> None:
        """What arrives where submitted mail ends."""
        sink = self.site.world.sink
        while True:
            content = (await sink.next()).content
            sink.mails.clear()
            content = content[content.index(b"Subject: ") :]  # behind what servers put before it
            arrived = self._sent.get(name_of(content))
            if arrived is not None and not arrived.done():
                arrived.set_result(digest(content))

    async def _guess(self, number: int, port: int) -> None:
        try:
            async with self._logged_in("IMAP", port, f"a guess, {self.rounds.total()}"):
                pass
        except Unexpected as refused:
            if not re.search(r"\[(AUTHENTICATIONFAILED|LIMIT)\]", str(refused)):
                raise
        else:
            raise WrongOctets("a wrong password was taken")


async def _literal(talk: Talk, number: int) -> bytes:
    """A message of the selected mailbox."""
    talk.writer.write(b"f FETCH %d BODY.PEEK[]\r\n" % number)
    while not (found := re.search(rb"BODY\[\] \{(\d+)\}\r\n", line := await talk.reader.readline())):
        if not line.startswith(b"* "):
            raise Unexpected(line.decode(errors="replace"))
    content = await talk.reader.readexactly(int(found[1]))
    await talk.say(Step(b"", re.compile(rb"f OK"), re.compile(rb"f ")))
    return content
