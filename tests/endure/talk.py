"""Mail clients for the scenarios: each protocol's login as steps, over asyncio streams."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass

READ = 1024 * 1024
"""Octets that a stream holds."""


class Unexpected(ValueError):
    """A reply that is not the one that was waited for."""


@dataclass(frozen=True)
class Step:
    """What a client sends, and the last line of the answer that it waits for."""

    sends: bytes
    wants: re.Pattern[bytes]
    """Of a whole line."""
    last: re.Pattern[bytes]
    """Of the line that ends the answer, be it the wanted one or not."""


@dataclass(frozen=True)
class Steps:
    """A dialogue, from the greeting to the end."""

    login: tuple[Step, ...]
    """The greeting is its first: it sends nothing."""
    after: Step
    """Something small that only who is logged in may."""
    goodbye: Step


@dataclass(frozen=True)
class Talk:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, step: Step) -> bytes:
        """The whole answer.

        Raises:
            Unexpected: it is another.
            EOFError: the connection ended before it.
        """
        if step.sends:
            self.writer.write(step.sends)
        said = bytearray()
        while True:
            line = await self.reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError(f"the connection ended after {bytes(said + line)!r}")
            said += line
            if step.last.match(line):
                if not step.wants.match(line):
                    raise Unexpected(said.decode(errors="replace"))
                return bytes(said)

    def close(self) -> None:
        self.writer.close()


async def connect(port: int, *, source: str = "127.0.0.1", limit: int = READ) -> Talk:
    return Talk(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), limit=limit))


def imap_step(tag: bytes, command: bytes) -> Step:
    """A command of IMAP, without literals either way."""
    return Step(tag + b" " + command + b"\r\n", re.compile(tag + rb" OK"), re.compile(tag + rb" "))


def _imap(user: str, password: str) -> Steps:
    step = imap_step
    greeting = Step(b"", re.compile(rb"\* OK"), re.compile(rb"\* "))
    login = step(b"b", f'LOGIN "{user}" "{password}"'.encode())
    return Steps((greeting, step(b"a", b"CAPABILITY"), login), step(b"c", b"SELECT INBOX"), step(b"z", b"LOGOUT"))


def _pop(user: str, password: str) -> Steps:
    def step(command: bytes) -> Step:
        return Step(command + b"\r\n", re.compile(rb"\+OK"), re.compile(rb"\+OK|-ERR"))

    greeting = Step(b"", re.compile(rb"\+OK"), re.compile(rb""))
    capabilities = Step(b"CAPA\r\n", re.compile(rb"\.\r\n"), re.compile(rb"\.\r\n|-ERR"))
    login = (step(b"USER " + user.encode()), step(b"PASS " + password.encode()))
    return Steps((greeting, capabilities, *login), step(b"STAT"), step(b"QUIT"))


def _smtp(user: str, password: str) -> Steps:
    def step(command: bytes, code: bytes = b"250") -> Step:
        return Step(command + b"\r\n", re.compile(code + b" "), re.compile(rb"\d{3} "))

    greeting = Step(b"", re.compile(rb"220 "), re.compile(rb"\d{3} "))
    plain = base64.b64encode(f"\0{user}\0{password}".encode())
    login = (step(b"EHLO client.example"), step(b"AUTH PLAIN " + plain, b"235"))
    return Steps((greeting, *login), step(f"MAIL FROM:<{user}>".encode()), step(b"QUIT", b"221"))


DIALOGUES = {"IMAP": _imap, "POP": _pop, "SMTP": _smtp}
PROTOCOLS = tuple(DIALOGUES)


def steps(protocol: str, user: str, password: str) -> Steps:
    """One protocol's dialogue, with this login."""
    return DIALOGUES[protocol](user, password)
