"""A mail server over TLS that says just enough, for more connections than a real one takes; in a process of its own.

It takes any user and any token. Its only message has as many octets as the caller likes: those of `BLOCK`, again and
again; ``FETCH 1 BODY[]<0.N>`` (RFC 9051 section 6.4.5) asks for the first N of them, whatever its size.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import random
import re
import resource
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from emailproxy.demo.certificates import Certificate
from emailproxy.service import new_event_loop

START_S, STOP_S = 20.0, 5.0
BACKLOG = 4096  # connections that wait to be accepted: a bench opens thousands in a row
MAX_PENDING = 64 * 1024  # octets of a line, or of commands that wait for a message to be out
MESSAGE_OCTETS = 1_000_000
LINE = 57  # octets in one line of base64 (RFC 2045 section 6.8): 76 characters
BLOCK = b"".join(
    base64.b64encode(random.Random(number).randbytes(LINE)) + b"\r\n"  # noqa: S311 - the same octets every time
    for number in range(840)  # together a little less than 64 KiB
)
"""Lines of text that do not compress, none of which begins with a dot."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running server: its process, and its ports on 127.0.0.1, all with TLS from the first octet."""

    pid: int
    imap: int
    pop: int
    smtp: int


@contextlib.asynccontextmanager
async def upstream(certificate: Certificate, *, message_octets: int = MESSAGE_OCTETS) -> AsyncIterator[Upstream]:
    """Runs the server. It ends with its standard input, so it never outlives the caller."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, certificate.certificate_file, certificate.key_file, str(message_octets),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        start_new_session=True,  # a Ctrl-C is for us: it ends with its standard input
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        yield Upstream(process.pid, **json.loads(line))
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


# ---- what runs in its process


class Speaker(asyncio.Protocol):
    """One connection: lines in, lines out, and octets that nobody looks at.

    `_next` takes one line in place of `command`; `_swallow` takes octets that are no lines, and returns what is left.
    """

    __slots__ = ("_next", "_octets", "_outgoing", "_paused", "_pending", "_swallow", "_tail", "_transport")
    greeting: bytes

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._pending = b""
        self._next: Callable[[bytes], None] | None = None
        self._swallow: Callable[[bytes], bytes] | None = None
        self._outgoing = 0
        self._tail = b""
        self._paused = False

    def command(self, line: bytes) -> None:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=4 * len(BLOCK))
        self.say(self.greeting)

    def data_received(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        while data and not self._outgoing:
            if self._swallow is not None:
                data = self._swallow(data)
                continue
            line, end, rest = data.partition(b"\r\n")
            if not end:
                break
            data = rest
            handler, self._next = self._next or self.command, None
            handler(line)
        self._pending = data
        if len(data) > MAX_PENDING:
            self._transport.abort()

    def say(self, *lines: bytes) -> None:
        self._transport.write(b"\r\n".join((*lines, b"")))

    def close(self) -> None:
        self._transport.close()

    def pour(self, octets: int, tail: bytes) -> None:
        """Sends so much of the message, no faster than it is taken, and then the tail; commands wait meanwhile."""
        self._outgoing, self._tail = octets, tail
        self._go_on()

    def _go_on(self) -> None:
        while self._outgoing and not self._paused:
            size = min(self._outgoing, len(BLOCK))
            self._outgoing -= size
            self._transport.write(BLOCK[:size])
        if self._tail and not self._outgoing:
            tail, self._tail = self._tail, b""
            self._transport.write(tail)
            pending, self._pending = self._pending, b""
            if pending:
                asyncio.get_running_loop().call_soon(self.data_received, pending)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()


def is_xoauth2(response: bytes) -> bool:
    """Whether this is Google's and Microsoft's form of a login by a token, whatever the token."""
    try:
        return b"\x01auth=Bearer " in base64.b64decode(response, validate=True)
    except ValueError:
        return False


class Imap(Speaker):
    """RFC 9051, as far as logins, idle clients and messages need it."""

    __slots__ = ("_left", "_tag")
    greeting = b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=XOAUTH2] ready"
    capability = b"* CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=XOAUTH2"
    fetch = re.compile(rb"\S+ \(?BODY(?:\.PEEK)?\[\](?:<0\.(\d+)>)?\)?", re.IGNORECASE)
    literal = re.compile(rb".*\{(\d+)(\+?)\}", re.DOTALL)

    def command(self, line: bytes) -> None:
        tag, _, rest = line.partition(b" ")
        name, _, arguments = rest.partition(b" ")
        handler = self.commands.get(name.upper())
        if handler is None:
            self.say(tag + b" BAD that is not spoken here")
        else:
            handler(self, tag, arguments)

    def _capability(self, tag: bytes, arguments: bytes) -> None:
        self.say(self.capability, tag + b" OK done")

    def _id(self, tag: bytes, arguments: bytes) -> None:
        self.say(b'* ID ("name" "upstream")', tag + b" OK done")

    def _done(self, tag: bytes, arguments: bytes = b"") -> None:
        self.say(tag + b" OK done")

    def _authenticate(self, tag: bytes, arguments: bytes) -> None:
        _mechanism, _, response = arguments.partition(b" ")
        if response:
            self._authenticated(tag, response)
        else:
            self.say(b"+ ")
            self._next = lambda line: self._authenticated(tag, line)

    def _authenticated(self, tag: bytes, response: bytes) -> None:
        self.say(tag + (b" OK logged in" if is_xoauth2(response) else b" NO [AUTHENTICATIONFAILED] no token"))

    def _idle(self, tag: bytes, arguments: bytes) -> None:
        self.say(b"+ idling")
        self._next = lambda line: self._done(tag)

    def _logout(self, tag: bytes, arguments: bytes) -> None:
        self.say(b"* BYE", tag + b" OK done")
        self.close()

    def _select(self, tag: bytes, arguments: bytes) -> None:
        self.say(b"* FLAGS ()", b"* 1 EXISTS", b"* OK [UIDVALIDITY 1] valid", tag + b" OK [READ-WRITE] done")

    def _fetch(self, tag: bytes, arguments: bytes) -> None:
        asked = self.fetch.fullmatch(arguments)
        if asked is None:
            self.say(tag + b" BAD only BODY[] is here")
            return
        partial = asked[1] is not None
        octets = int(asked[1]) if partial else self._octets
        self.say(b"* 1 FETCH (BODY[]%b {%d}" % (b"<0>" if partial else b"", octets))
        self.pour(octets, b")\r\n%b OK done\r\n" % tag)

    def _append(self, tag: bytes, arguments: bytes) -> None:
        announced = self.literal.fullmatch(arguments)
        if announced is None:
            self.say(tag + b" BAD a literal is missing")
            return
        if not announced[2]:
            self.say(b"+ go ahead")
        self._left = int(announced[1])
        if self._left:
            self._swallow = self._take_literal
        self._next = lambda line: self._done(tag)  # what is behind the literal

    def _take_literal(self, data: bytes) -> bytes:
        taken = min(len(data), self._left)
        self._left -= taken
        if not self._left:
            self._swallow = None
        return data[taken:]

    commands = {
        b"CAPABILITY": _capability, b"ID": _id, b"AUTHENTICATE": _authenticate, b"LOGIN": _done, b"NOOP": _done,
        b"IDLE": _idle, b"LOGOUT": _logout, b"SELECT": _select, b"FETCH": _fetch, b"APPEND": _append,
    }  # fmt: skip


class Pop3(Speaker):
    """RFC 1939 and 5034, as far as a login and one message need it."""

    __slots__ = ()
    greeting = b"+OK ready"

    def command(self, line: bytes) -> None:
        name, _, arguments = line.partition(b" ")
        match name.upper():
            case b"CAPA":
                self.say(b"+OK", b"SASL XOAUTH2", b"USER", b"UIDL", b".")
            case b"AUTH":
                self._authenticate(arguments.partition(b" ")[2])
            case b"STAT":
                self.say(b"+OK 1 %d" % self._octets)
            case b"LIST" | b"UIDL":
                self.say(b"+OK", b"1 %d" % self._octets, b".")
            case b"RETR":
                self.say(b"+OK")
                self.pour(self._octets, b"\r\n.\r\n")
            case b"QUIT":
                self.say(b"+OK")
                self.close()
            case b"NOOP" | b"USER" | b"PASS":
                self.say(b"+OK")
            case _:
                self.say(b"-ERR that is not spoken here")

    def _authenticate(self, response: bytes) -> None:
        if response:
            self.say(b"+OK logged in" if is_xoauth2(response) else b"-ERR [AUTH] no token")
        else:
            self.say(b"+ ")
            self._next = self._authenticate


class Smtp(Speaker):
    """RFC 5321 and 4954, as far as a login and a message need it."""

    __slots__ = ("_end",)
    greeting = b"220 upstream ESMTP"
    end = b"\r\n.\r\n"

    def command(self, line: bytes) -> None:
        name, _, arguments = line.partition(b" ")
        match name.upper():
            case b"EHLO":
                self.say(b"250-upstream", b"250-PIPELINING", b"250-8BITMIME", b"250 AUTH XOAUTH2")
            case b"AUTH":
                self._authenticate(arguments.partition(b" ")[2])
            case b"DATA":
                self.say(b"354 go ahead")
                self._end = b"\r\n"  # an empty message is but the dot
                self._swallow = self._take_message
            case b"QUIT":
                self.say(b"221 2.0.0 bye")
                self.close()
            case b"MAIL" | b"RCPT" | b"RSET" | b"NOOP":
                self.say(b"250 2.0.0 done")
            case _:
                self.say(b"502 5.5.1 that is not spoken here")

    def _authenticate(self, response: bytes) -> None:
        if response:
            self.say(b"235 2.7.0 logged in" if is_xoauth2(response) else b"535 5.7.8 no token")
        else:
            self.say(b"334 ")
            self._next = self._authenticate

    def _take_message(self, data: bytes) -> bytes:
        seen = self._end + data
        before, end, rest = seen.partition(self.end)
        if not end:
            self._end = before[-len(self.end) + 1 :]
            return b""
        self._swallow = None
        self.say(b"250 2.0.0 taken")
        return rest


async def serve(certificate: Certificate, message_octets: int) -> None:
    """Until the standard input ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    loop = asyncio.get_running_loop()
    context = certificate.server_context()
    ports: dict[str, Any] = {}
    speakers: dict[str, type[Speaker]] = {"imap": Imap, "pop": Pop3, "smtp": Smtp}
    for name, speaker in speakers.items():
        server = await loop.create_server(
            functools.partial(speaker, message_octets), "127.0.0.1", 0, ssl=context, backlog=BACKLOG
        )
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 4096) else ended.set())
    await ended.wait()


def main() -> None:
    certificate_file, key_file, message_octets = sys.argv[1:]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(Certificate(Path(certificate_file), Path(key_file)), int(message_octets)))


if __name__ == "__main__":
    main()
