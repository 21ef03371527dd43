"""Mail clients that cost little, so that what is measured is not they.

`Imap`, `Pop` and `Smtp` are blocking sockets that read into one large buffer and look for nothing but the end of a
reply; `Holder` keeps many idle IMAP connections in an event loop.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import socket
import ssl
from dataclasses import dataclass
from typing import Self

HOST, SERVER_NAME = "127.0.0.1", "localhost"
PATIENCE_S = 60.0
LARGE = 1024 * 1024
"""The buffer for messages, and the piece in which they are sent."""
LINE = b"x" * 76 + b"\r\n"
BLOCK = LINE * (LARGE // len(LINE))
LONGEST_LINE = 8192


class Refused(Exception):
    """The other side said no, or left."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom to log in, and with what."""

    user: str
    secret: str
    """A password; with `xoauth2`, an access token."""
    xoauth2: bool = False

    @property
    def initial_response(self) -> str:
        """Of SASL PLAIN (RFC 4616) or XOAUTH2, in base64."""
        if self.xoauth2:
            message = f"user={self.user}\x01auth=Bearer {self.secret}\x01\x01"
        else:
            message = f"\0{self.user}\0{self.secret}"
        return base64.b64encode(message.encode()).decode()

    @property
    def imap_login(self) -> bytes:
        """The command that logs in, without its tag."""
        if self.xoauth2:
            return f"AUTHENTICATE XOAUTH2 {self.initial_response}\r\n".encode()
        return f'LOGIN {self.user} "{self.secret}"\r\n'.encode()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port of 127.0.0.1; with TLS from the first octet where there is a context."""

    port: int
    tls: ssl.SSLContext | None = None


class Connection:
    """A blocking connection, and what has been read of it but not used."""

    def __init__(self, endpoint: Endpoint) -> None:
        plain = socket.create_connection((HOST, endpoint.port), PATIENCE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        try:
            self._socket = endpoint.tls.wrap_socket(plain, server_hostname=SERVER_NAME) if endpoint.tls else plain
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_message(self, octets: int) -> None:
        """At least so many, in lines, the last one ended."""
        self._socket.sendall(LINE * (message_size(octets) % len(BLOCK) // len(LINE)))
        for _ in range(message_size(octets) // len(BLOCK)):
            self._socket.sendall(BLOCK)

    def line(self) -> bytes:
        """The next line with its end."""
        while (end := self._rest.find(b"\n") + 1) == 0:
            data = self._socket.recv(65_536)
            if not data or len(self._rest) > 16 * LONGEST_LINE:
                raise Refused(f"no whole line, but {self._rest[:LONGEST_LINE]!r}")
            self._rest += data
        line, self._rest = self._rest[:end], self._rest[end:]
        return line

    def expect(self, start: bytes) -> bytes:
        """The next line, which begins so."""
        line = self.line()
        if not line.startswith(start):
            raise Refused(f"{line!r} instead of {start!r}")
        return line

    def count_until(self, start: bytes) -> int:
        """Reads on until the last line that has come begins so; how many octets were before that line."""
        buffer = bytearray(LARGE)
        view = memoryview(buffer)
        total, tail = len(self._rest), self._rest[-LONGEST_LINE:]
        self._rest = b""
        while True:
            if tail.endswith(b"\n"):
                last = tail[tail.rfind(b"\n", 0, -1) + 1 :]
                if last.startswith(start):
                    return total - len(last)
            count = self._socket.recv_into(buffer)
            if not count:
                raise Refused(f"the connection ended after {total} octets: {tail[-80:]!r}")
            total += count
            tail = (tail + bytes(view[max(0, count - LONGEST_LINE) : count]))[-LONGEST_LINE:]

    def drain(self) -> None:
        """Reads up to the end."""
        while self._socket.recv(65_536):
            pass


class Imap(Connection):
    """RFC 9051."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._tags = (b"t%d " % number for number in itertools.count(1))

    def login(self, account: Account) -> None:
        """Reads the greeting, and logs in."""
        self.expect(b"* OK")
        self.command(account.imap_login)

    def command(self, command: bytes) -> int:
        """Sends it behind a tag, waits for its OK; how many octets of reply came before."""
        tag = next(self._tags)
        self.send(tag + command)
        return self._completed(tag)

    def noop(self) -> None:
        self.command(b"NOOP\r\n")

    def select(self, mailbox: bytes = b"INBOX") -> None:
        self.command(b"SELECT " + mailbox + b"\r\n")

    def fetch(self) -> int:
        """All messages of the selected mailbox, whole; how many octets that took."""
        tag = next(self._tags)
        self.send(tag + b"FETCH 1:* BODY.PEEK[]\r\n")
        return self.count_until(tag)  # no message has a line that begins so

    def append(self, octets: int, mailbox: bytes = b"INBOX") -> int:
        """One message of at least so many octets; of how many."""
        tag, size = next(self._tags), message_size(octets)
        self.send(tag + b"APPEND " + mailbox + b" {%d}\r\n" % size)
        self.expect(b"+")
        self.send_message(octets)
        self.send(b"\r\n")
        self._completed(tag)
        return size

    def logout(self) -> None:
        self.send(next(self._tags) + b"LOGOUT\r\n")
        self.drain()

    def _completed(self, tag: bytes) -> int:
        before = 0
        while not (line := self.line()).startswith(tag):
            before += len(line)
        if not line.startswith(tag + b"OK"):
            raise Refused(repr(line))
        return before


class Pop(Connection):
    """RFC 1939."""

    def login(self, account: Account) -> None:
        """Reads the greeting, and logs in."""
        self.expect(b"+OK")
        if account.xoauth2:
            self.command(f"AUTH XOAUTH2 {account.initial_response}")
        else:
            self.command(f"USER {account.user}")
            self.command(f"PASS {account.secret}")

    def command(self, command: str) -> None:
        self.send(f"{command}\r\n".encode())
        self.expect(b"+OK")

    def noop(self) -> None:
        self.command("NOOP")

    def logout(self) -> None:
        self.command("QUIT")
        self.drain()


class Smtp(Connection):
    """RFC 5321."""

    def login(self, account: Account) -> None:
        """Reads the greeting, says hello, and logs in."""
        self.reply(b"220")
        self.command("EHLO client.example.com", b"250")
        mechanism = "XOAUTH2" if account.xoauth2 else "PLAIN"
        self.command(f"AUTH {mechanism} {account.initial_response}", b"235")

    def command(self, command: str, code: bytes) -> None:
        self.send(f"{command}\r\n".encode())
        self.reply(code)

    def reply(self, code: bytes) -> None:
        """RFC 5321 section 4.2.1: all lines but the last have a hyphen behind the code."""
        while self.expect(code)[3:4] == b"-":
            pass

    def noop(self) -> None:
        self.command("NOOP", b"250")

    def data(self, octets: int, sender: str) -> int:
        """One message of at least so many octets, to the sender; of how many."""
        self.command(f"MAIL FROM:<{sender}>", b"250")
        self.command(f"RCPT TO:<{sender}>", b"250")
        self.command("DATA", b"354")
        self.send_message(octets)
        self.command(".", b"250")
        return message_size(octets)

    def logout(self) -> None:
        self.command("QUIT", b"221")
        self.drain()


def message_size(octets: int) -> int:
    """Of the message that is sent where so many are asked for: whole lines."""
    return -(-octets // len(LINE)) * len(LINE)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Holder:
    """IMAP connections that are logged in and stand idle, in the caller's event loop."""

    def __init__(self, endpoint: Endpoint, account: Account, *, at_once: int = 32) -> None:
        self._endpoint = endpoint
        self._account = account
        self._turns = asyncio.Semaphore(at_once)
        self._held: list[Stream] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __len__(self) -> int:
        return len(self._held)

    async def open(self, count: int) -> None:
        """So many more.

        Raises:
            ExceptionGroup: of what befell the first that was refused.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._open())

    async def alive(self) -> int:
        """How many answer a NOOP."""
        answers = await asyncio.gather(*(self._noop(stream) for stream in self._held), return_exceptions=True)
        return sum(answer is True for answer in answers)

    async def close(self) -> None:
        """Without a word, as a client that is switched off."""
        for _, writer in self._held:
            writer.close()
        for _, writer in self._held:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._held.clear()

    async def _open(self) -> None:
        async with self._turns, asyncio.timeout(PATIENCE_S):
            tls = self._endpoint.tls
            reader, writer = await asyncio.open_connection(
                HOST, self._endpoint.port, ssl=tls, server_hostname=SERVER_NAME if tls else None
            )
            self._held.append((reader, writer))
            greeting = await reader.readline()
            if not greeting.startswith(b"* OK"):
                raise Refused(repr(greeting))
            writer.write(b"l " + self._account.imap_login)
            if not await self._completed(reader, b"l "):
                raise Refused("the login failed")

    async def _noop(self, stream: Stream) -> bool:
        async with self._turns, asyncio.timeout(PATIENCE_S):
            reader, writer = stream
            writer.write(b"n NOOP\r\n")
            return await self._completed(reader, b"n ")

    @staticmethod
    async def _completed(reader: asyncio.StreamReader, tag: bytes) -> bool:
        """Reads up to the command's completion; whether that is an OK."""
        while not (line := await reader.readline()).startswith(tag):
            if not line:
                raise Refused("the connection ended")
        return line.startswith(tag + b"OK")
