"""What the embedded mail servers share: listening, XOAUTH2, and the tap that sees every line."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Self

from emailproxy.demo.mailbox import Mailboxes
from emailproxy.demo.transcript import LineTap, Speaker, Tap
from emailproxy.errors import ProtocolError

LINE_LIMIT = 64 * 1024
"""Octets of one command line; a SASL response of 12,288 (RFC 4954 section 4) is well within."""
TLS_SHUTDOWN_S = 1
"""How long a peer may take to answer close_notify."""

Verify = Callable[[str, str], bool]
"""Whether this access token opens this user's mailbox."""

# user=NAME ^A auth=Bearer TOKEN ^A ^A
XOAUTH2 = re.compile(rb"user=([^\x01]*)\x01auth=[Bb]earer ([^\x01]*)\x01\x01\Z")
FAILURE = json.dumps({"status": "400", "schemes": "Bearer", "scope": "mail"}).encode("ascii")
"""What XOAUTH2 says of a token that it does not take, before the protocol's own refusal."""
CHALLENGE = base64.b64encode(FAILURE).decode("ascii")


def decoded(response: bytes) -> bytes:
    """A SASL response from its base64.

    Raises:
        ProtocolError: it is not base64.
    """
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise ProtocolError("the SASL response is not base64") from None


def credentials(response: bytes) -> tuple[str, str]:
    """User and token of an XOAUTH2 response.

    Raises:
        ProtocolError: it is not one.
    """
    found = XOAUTH2.match(response)
    if not found:
        raise ProtocolError("the response is not XOAUTH2")
    try:
        return found[1].decode("utf-8"), found[2].decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the user name or token is not text") from None


class MailServer(ABC):
    """One server, from ``async with`` until its end, on a free port of 127.0.0.1.

    Args:
        tls: the context for implicit TLS; None serves plaintext.
        tap: told of every line, secrets cut out.
    """

    protocol: ClassVar[str]

    def __init__(
        self,
        mailboxes: Mailboxes,
        verify: Verify,
        *,
        tls: ssl.SSLContext | None,
        tap: Tap | None = None,
    ) -> None:
        self.mailboxes = mailboxes
        self.verify = verify
        self.tls = tls
        self.tap = tap
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await self._listen()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self._drop_connections()

    def line_tap(self, speaker: Speaker) -> LineTap | None:
        return LineTap(self.tap, self.protocol, speaker) if self.tap else None

    @abstractmethod
    async def _listen(self) -> asyncio.Server: ...

    @abstractmethod
    async def _drop_connections(self) -> None: ...


class Conversation(ABC):
    """One connection of a server that talks in lines."""

    def __init__(self, server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self._reader = reader
        self._writer = writer
        self._heard = server.line_tap(Speaker.CLIENT)
        self._said = server.line_tap(Speaker.SERVER)

    @abstractmethod
    async def converse(self) -> None:
        """From the greeting until the client has left."""

    async def read_line(self) -> bytes:
        """The next line without its CRLF."""
        line = await self._reader.readuntil(b"\n")
        if self._heard:
            self._heard.feed(line)
        return line.rstrip(b"\r\n")

    async def read_octets(self, count: int) -> bytes:
        octets = await self._reader.readexactly(count)
        if self._heard:
            self._heard.feed(octets)
        return octets

    async def send(self, *lines: str | bytes) -> None:
        octets = b"".join(
            (line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line) + b"\r\n" for line in lines
        )
        if self._said:
            self._said.feed(octets)
        self._writer.write(octets)
        await self._writer.drain()

    def opens(self, user: str, token: str) -> bool:
        return self.server.verify(user, token)


class LineServer(MailServer):
    """A server of `Conversation`s."""

    conversation: ClassVar[type[Conversation]]

    def __init__(
        self,
        mailboxes: Mailboxes,
        verify: Verify,
        *,
        tls: ssl.SSLContext | None,
        tap: Tap | None = None,
    ) -> None:
        super().__init__(mailboxes, verify, tls=tls, tap=tap)
        self._tasks: set[asyncio.Task[None]] = set()

    async def _listen(self) -> asyncio.Server:
        shutdown_s = TLS_SHUTDOWN_S if self.tls else None
        return await asyncio.start_server(
            self._connected,
            "127.0.0.1",
            0,
            ssl=self.tls,
            ssl_shutdown_timeout=shutdown_s,
            limit=LINE_LIMIT,
        )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # IncompleteReadError: the client left. LimitOverrunError: a line without end.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self.conversation(self, reader, writer).converse()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _drop_connections(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
