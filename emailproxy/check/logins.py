"""A real login, through the proxy's own code: as a mail program sends it, and to the mail server's answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from emailproxy.check.finding import Finding, Grade, Link, refused
from emailproxy.check.ways import Way
from emailproxy.config.model import KIB, SECONDS, Account, FirstLogin, MailProtocol, Route, Server
from emailproxy.errors import LoginRefused, PasswordNotPermitted, ServiceError, TokenRefused, one_line
from emailproxy.net.admission import within
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Listener
from emailproxy.net.shared import SessionLimits, Shared
from emailproxy.net.tokens import TokenSource
from emailproxy.oauth.advice import advise
from emailproxy.oauth.broker import sasl_user
from emailproxy.oauth.identity import expected
from emailproxy.secret import Secret
from emailproxy.wire.events import Advice, Credential, Login, Visit

LOGIN_S = 60 * SECONDS
REPLY_S = 30 * SECONDS  # for a command after the login
HERE = "127.0.0.1"
CLOSE_S = 2 * SECONDS
LINE_LIMIT = 64 * KIB


class Refused(Exception):
    """The reply to a command was not the one hoped for."""


class Watched:
    """The account's tokens; notes why a login is refused."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens
        self.refusal: LoginRefused | None = None

    def route(self, login: Login, visit: Visit) -> Route:
        return self._tokens.route(login, visit)

    def at_once(self, login: Login, visit: Visit) -> Credential | None:
        return self._tokens.at_once(login, visit)

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        return await self._tokens.token(login, visit, rejected)

    def is_settled(self, login: Login, visit: Visit) -> bool:
        return self._tokens.is_settled(login, visit)

    async def accepted(self, login: Login, visit: Visit) -> None:
        await self._tokens.accepted(login, visit)

    def refused(self, login: Login, visit: Visit, error: LoginRefused) -> None:
        self.refusal = error
        self._tokens.refused(login, visit, error)

    def advise(self, text: str) -> Advice | None:
        return self._tokens.advise(text)


async def log_in(way: Way, account: Account, password: Secret, tokens: TokenSource, dialer: Dialer) -> Finding:
    """One login at one server, and a command that only works once the mailbox is open."""
    server, about = way.server, f"{account.name} at {way.server.section}"
    if account.allow_from and not within(HERE, account.allow_from):
        networks = ", ".join(map(str, account.allow_from))
        text = f"logins are allowed from {networks} only (allow_from), and a check comes from this machine"
        return Finding(Link.LOGIN, about, Grade.SKIPPED, text)
    watched = Watched(tokens)
    try:
        shared = Shared(dialer, watched, SessionLimits(login_timeout_s=LOGIN_S))
        async with listening(private(server), shared) as (host, port):
            async with asyncio.timeout(LOGIN_S + REPLY_S):
                done = await converse(host, port, server.protocol, account, password)
        text = f"a login by {server.protocol} goes through{done}{in_whose_name(account, server.protocol)}"
        return Finding(Link.LOGIN, about, Grade.OK, text)
    except ServiceError as error:
        return Finding(Link.LOGIN, about, Grade.FAILED, str(error))
    except (Refused, OSError, EOFError, ValueError) as error:  # ValueError: a line beyond LINE_LIMIT
        return failed(about, account, server.protocol, watched.refusal, one_line(str(error)))


def failed(about: str, account: Account, protocol: str, refusal: LoginRefused | None, words: str) -> Finding:
    """Why a login, or the command behind it, did not go through: `refusal` is ours, `words` are the mail server's."""
    if isinstance(refusal, PasswordNotPermitted):
        return Finding(Link.LOGIN, about, Grade.SKIPPED, str(refusal))
    shared = who_may(account, protocol)
    if refusal is not None:
        finding = refused(Link.LOGIN, about, refusal)
        return replace(finding, action=shared) if isinstance(refusal, TokenRefused) else finding
    words = words or "the connection was closed"
    known = advise(words)
    meaning = f"{known.meaning} (the mail server says: {words})" if known else f"the mail server says: {words}"
    action = "; ".join(filter(None, (known.action if known else "", shared)))
    return Finding(Link.LOGIN, about, Grade.FAILED, meaning, action)


def in_whose_name(account: Account, protocol: str) -> str:
    """Where one person's sign-in serves another mailbox, or the mail server knows it by another name."""
    user, owner = sasl_user(account, protocol), expected(account)
    told = [f"as {user}" if user != account.name else "", f"with {owner}'s sign-in" if owner != account.name else ""]
    words = " ".join(filter(None, told))
    return f" ({words})" if words else ""


def who_may(account: Account, protocol: str) -> str:
    """What a sign-in that serves another mailbox needs there; empty for one that serves its own."""
    user, owner = sasl_user(account, protocol), expected(account)
    if owner.casefold() == user.casefold():
        return ""
    right = "send as" if protocol == MailProtocol.SMTP else "open"
    exchange = "Send As" if protocol == MailProtocol.SMTP else "Full Access"
    return f"see that {owner}, whose sign-in this is, may {right} {user} ({exchange}, at Microsoft), or change auth_as"


def private(server: Server) -> Server:
    """The same section behind a port of its own, on loopback, in plaintext; it sets nobody's first password."""
    return Server(
        section=server.section,
        protocol=server.protocol,
        local_port=0,
        local_address=HERE,
        server_address=server.server_address,
        server_port=server.server_port,
        server_starttls=server.server_starttls,
        ca_file=server.ca_file,
        ehlo_name=server.ehlo_name,
        first_login=FirstLogin.DENY,
    )


@asynccontextmanager
async def listening(server: Server, shared: Shared) -> AsyncIterator[tuple[str, int]]:
    listener = Listener(server, shared)
    await listener.open()
    try:
        yield listener.addresses[0]
    finally:
        try:
            async with asyncio.timeout(CLOSE_S):
                await listener.close()
        except TimeoutError:
            listener.abort()


async def converse(host: str, port: int, protocol: MailProtocol, account: Account, password: Secret) -> str:
    """A login and what is behind it; what was done there.

    Raises:
        Refused, OSError, EOFError, ValueError: it does not go through.
    """
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_LIMIT)
    talk = Talk(reader, writer)
    try:
        match protocol:
            case MailProtocol.IMAP:
                return await imap(talk, account.name, password)
            case MailProtocol.POP:
                return await pop3(talk, account.name, password)
            case MailProtocol.SMTP:
                return await smtp(talk, account.name, password)
    finally:
        writer.close()


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
