"""A real login, through the proxy's own code: as a mail program sends it, and to the mail server's answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from emailproxy.check.finding import Finding, Grade, Link, refused
from emailproxy.config.model import KIB, SECONDS, Account, MailProtocol, Server
from emailproxy.errors import LoginRefused, ServiceError, one_line
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Doorman, Listener
from emailproxy.net.session import TokenSource, Upstream
from emailproxy.oauth.advice import advise
from emailproxy.secret import Secret
from emailproxy.wire.events import Advice, Credential, Login, Visit

LOGIN_S = 60 * SECONDS
REPLY_S = 30 * SECONDS  # for a command after the login
CLOSE_S = 2 * SECONDS
LINE_LIMIT = 64 * KIB


class Refused(Exception):
    """The reply to a command was not the one hoped for."""


class Watched:
    """The account's tokens; notes why a login is refused."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens
        self.refusal: LoginRefused | None = None

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        return await self._tokens.token(login, visit, rejected)

    async def accepted(self, login: Login, visit: Visit) -> None:
        await self._tokens.accepted(login, visit)

    def refused(self, login: Login, visit: Visit, error: LoginRefused) -> None:
        self.refusal = error
        self._tokens.refused(login, visit, error)

    def advise(self, text: str) -> Advice | None:
        return self._tokens.advise(text)


async def log_in(server: Server, account: Account, password: Secret, tokens: TokenSource, dialer: Dialer) -> Finding:
    """One login at one server, and a command that only works once the mailbox is open."""
    watched = Watched(tokens)
    about = f"{account.name} at {server.section}"
    try:
        async with listening(Upstream(private(server), dialer, watched, LOGIN_S)) as (host, port):
            async with asyncio.timeout(LOGIN_S + REPLY_S):
                return await converse(host, port, server.protocol, about, account, password)
    except ServiceError as error:
        return Finding(Link.LOGIN, about, Grade.FAILED, str(error))
    except (Refused, OSError, EOFError, ValueError) as error:  # ValueError: a line beyond LINE_LIMIT
        if watched.refusal is not None:
            return refused(Link.LOGIN, about, watched.refusal)
        words = one_line(str(error)) or "the connection was closed"
        known = advise(words)
        meaning = f"{known.meaning} (the mail server says: {words})" if known else f"the mail server says: {words}"
        return Finding(Link.LOGIN, about, Grade.FAILED, meaning, known.action if known else "")


def private(server: Server) -> Server:
    """The same server behind a port of its own, on loopback."""
    return server.model_copy(update={"local_address": "127.0.0.1", "local_port": 0})


@asynccontextmanager
async def listening(upstream: Upstream) -> AsyncIterator[tuple[str, int]]:
    listener = Listener(upstream, Doorman(1, 1))
    await listener.open()
    try:
        yield listener.addresses[0]
    finally:
        try:
            async with asyncio.timeout(CLOSE_S):
                await listener.close()
        except TimeoutError:
            listener.abort()


async def converse(
    host: str, port: int, protocol: MailProtocol, about: str, account: Account, password: Secret
) -> Finding:
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_LIMIT)
    talk = Talk(reader, writer)
    try:
        match protocol:
            case MailProtocol.IMAP:
                done = await imap(talk, account.name, password)
            case MailProtocol.POP:
                done = await pop3(talk, account.name, password)
            case MailProtocol.SMTP:
                done = await smtp(talk, account.name, password)
    finally:
        writer.close()
    return Finding(Link.LOGIN, about, Grade.OK, f"a login by {protocol} goes through{done}")


class Talk:
    """A mail program's side of a connection, a line at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def line(self) -> str:
        line = await self._reader.readline()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace").rstrip("\r\n")

    async def ask(self, command: str, *, hoped: str, passing: Sequence[str] = ()) -> str:
        """Sends a command; returns the reply's last line.

        Raises:
            Refused: it does not begin as hoped.
        """
        if command:
            self._writer.write(command.encode("utf-8") + b"\r\n")
        line = await self.line()
        while line.startswith(tuple(passing)):
            line = await self.line()
        if not line.startswith(hoped):
            raise Refused(line)
        return line


async def imap(talk: Talk, user: str, password: Secret) -> str:
    """RFC 9051: LOGIN; EXAMINE, which changes nothing; LOGOUT."""
    await talk.ask("", hoped="* OK")
    await talk.ask(f"c1 LOGIN {quoted(user)} {quoted(password.reveal())}", hoped="c1 OK", passing=("* ",))
    await talk.ask("c2 EXAMINE INBOX", hoped="c2 OK", passing=("* ",))
    await talk.ask("c3 LOGOUT", hoped="c3 OK", passing=("* ",))
    return ", and the mailbox opens"


async def pop3(talk: Talk, user: str, password: Secret) -> str:
    """RFC 1939."""
    await talk.ask("", hoped="+OK")
    await talk.ask(f"USER {user}", hoped="+OK")
    await talk.ask(f"PASS {password.reveal()}", hoped="+OK")
    await talk.ask("STAT", hoped="+OK")
    await talk.ask("QUIT", hoped="+OK")
    return ", and the mailbox opens"


async def smtp(talk: Talk, user: str, password: Secret) -> str:
    """RFC 4954: AUTH PLAIN with an initial response; no mail is sent."""
    await talk.ask("", hoped="220", passing=("220-",))
    await talk.ask("EHLO [127.0.0.1]", hoped="250", passing=("250-",))
    response = base64.b64encode(f"\0{user}\0{password.reveal()}".encode()).decode("ascii")
    await talk.ask(f"AUTH PLAIN {response}", hoped="235", passing=("235-",))
    await talk.ask("QUIT", hoped="221", passing=("221-",))
    return "; no mail was sent"


def quoted(text: str) -> str:
    """RFC 9051 section 9: quoted = DQUOTE *QUOTED-CHAR DQUOTE."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
