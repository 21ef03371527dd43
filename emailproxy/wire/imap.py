"""IMAP4rev1 and rev2 (RFC 3501, RFC 9051) up to the login, towards the client."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from emailproxy.errors import Kind, LoginRefused, ProtocolError
from emailproxy.wire import events as ev
from emailproxy.wire import sasl
from emailproxy.wire.dialogue import Dialogue
from emailproxy.wire.imap_server import ImapServer
from emailproxy.wire.lines import MAX_LINE, MAX_LITERAL, fit
from emailproxy.wire.serverside import Steps

MAX_COMMAND = 16_384  # octets of a command before login, its literals included

# RFC 9051 section 9: tag = 1*<any ASTRING-CHAR except "+">; command = tag SP (...)
COMMAND = re.compile(rb"([^\x00-\x20\x7f-\xff(){%*\"\\+]{1,64}) +([A-Za-z]+)(?: (.*))?", re.DOTALL)
# RFC 9051 section 9: literal = "{" number64 ["+"] "}" CRLF *CHAR8
LITERAL = re.compile(rb"(?:\A|(?<=[ (]))\{(\d+)(\+?)\}\Z")
# RFC 9051 section 9: quoted = DQUOTE *QUOTED-CHAR DQUOTE; what is neither quoted nor a literal goes to the next space,
# since programs send passwords with odd characters unquoted
ASTRING = re.compile(rb' *(?:"((?:[^"\\]|\\.)*)"|([^ "][^ ]*))(?= |\Z)', re.DOTALL)
AUTHENTICATE = re.compile(rb"[^ ]{1,64} +AUTHENTICATE ", re.IGNORECASE)

CODES = {
    Kind.WRONG_LOGIN: b"AUTHENTICATIONFAILED",
    Kind.CONSENT_NEEDED: b"UNAVAILABLE",
    Kind.UNAVAILABLE: b"UNAVAILABLE",
    Kind.TOKEN_REFUSED: b"AUTHORIZATIONFAILED",
    Kind.MISCONFIGURED: b"CONTACTADMIN",
    Kind.TOO_MANY: b"LIMIT",
    Kind.TOO_MANY_SESSIONS: b"LIMIT",
}
OURS = ("IMAP4rev1", "SASL-IR")
OUR_AUTH = ("AUTH=PLAIN", "AUTH=LOGIN")
# RFC 9051 section 6.3 and 6.4, and what clients pipeline behind LOGIN: no mistakes, so they are not counted as such
AFTER_LOGIN = frozenset(
    b"APPEND CHECK CLOSE COPY CREATE DELETE ENABLE EXAMINE EXPUNGE FETCH GETQUOTAROOT IDLE LIST LSUB MOVE NAMESPACE "
    b"RENAME SEARCH SELECT STATUS STORE SUBSCRIBE UID UNSELECT UNSUBSCRIBE XLIST".split()
)
NOT_THROUGH_US = {"IMAP4REV1", "SASL-IR", "STARTTLS", "LOGINDISABLED", "LOGIN-REFERRALS", "UNAUTHENTICATE"}


@dataclass(slots=True)
class Command:
    """A command as read: `texts` and `literals` take turns, a text first."""

    texts: list[bytes] = field(default_factory=list)
    literals: list[bytes] = field(default_factory=list)
    size: int = 0
    """Octets so far, line ends and the announcements of literals included."""


class LiteralRefused(Exception):
    """A literal is too large; the client waits for our go-ahead, so its octets do not come."""


class BadCommand(Exception):
    """A command's arguments make no sense; the text says why."""


class TlsMissing(Exception):
    """A login comes before TLS, on a port that demands it."""


def parse_astrings(first: bytes, command: Command) -> list[bytes]:
    """The arguments of a command, `first` being what is left of its first text (RFC 9051 section 9, astring).

    Raises:
        BadCommand: a quoted string does not end.
    """
    values = []
    for text, literal in zip([first, *command.texts[1:]], [*command.literals, None], strict=True):
        position, text = 0, text.rstrip(b" ")
        while position < len(text):
            match = ASTRING.match(text, position)
            if match is None:
                raise BadCommand("an argument is not a quoted string, a literal or an atom")
            quoted, atom = match.groups()
            values.append(re.sub(rb'\\(["\\])', rb"\1", quoted) if atom is None else atom)
            position = match.end()
        if literal is not None:
            values.append(literal)
    return values


def offered_to_client(seen: ev.Capabilities | None, local_tls: ev.LocalTls) -> bytes:
    """What we can do before login, and what the server will do after it."""
    theirs = [name for name in seen or () if name not in NOT_THROUGH_US and not name.startswith("AUTH=")]
    ours: tuple[str, ...]
    match local_tls:
        case ev.LocalTls.REQUIRED:
            ours = (*OURS, "STARTTLS", "LOGINDISABLED")
        case ev.LocalTls.OFFERED:
            ours = (*OURS, "STARTTLS", *OUR_AUTH)
        case _:
            ours = (*OURS, *OUR_AUTH)
    return " ".join((*ours, *theirs)).encode("ascii", "replace")


class ImapDialogue(ImapServer, Dialogue):
    """One IMAP connection until its login is decided."""

    carries_response = AUTHENTICATE
    common = ("IMAP4REV1", "CHILDREN", "ID", "IDLE", "NAMESPACE", "UIDPLUS", "UNSELECT")

    def __init__(self, terms: ev.Terms) -> None:
        super().__init__(terms)
        self._tag = b"*"

    # ---- the client

    @classmethod
    def turned_away(cls, text: str) -> bytes:
        return fit(b"* BYE [LIMIT] ", text)

    def _refusal(self, error: LoginRefused) -> bytes:
        return fit(self._tag + b" NO [" + CODES[error.kind] + b"] ", str(error))

    def _farewell(self, text: str) -> bytes:
        pending = b"" if self._login is None else fit(self._tag + b" NO [UNAVAILABLE] ", text)
        return pending + fit(b"* BYE ", text)

    def _last_words(self, error: LoginRefused) -> bytes:
        return self._farewell(str(error))

    def _complaint(self, error: ProtocolError) -> bytes:
        return fit(b"* BAD ", str(error)) + fit(b"* BYE ", "closing")

    def _converse(self) -> Steps[None]:
        seen = yield from self._known()
        self._say(b"* OK [CAPABILITY " + offered_to_client(seen, self._local_tls) + b"] emailproxy ready\r\n")
        while True:
            self._tag = b"*"
            try:
                command = yield from self._command()
                yield from self._perform(command)
            except BadCommand as error:
                self._bad_command(fit(self._tag + b" BAD ", str(error)))
            except LiteralRefused:
                self._bad_command(fit(self._tag + b" BAD ", "the literal is too long"))
            except TlsMissing:
                self._say(self._tag + b" NO [PRIVACYREQUIRED] log in after STARTTLS: switch it on in the client\r\n")
            except LoginRefused as error:
                self._refuse(error)

    def _command(self) -> Steps[Command]:
        """A whole command, literals asked for and read."""
        command = Command()
        while True:
            text = yield from self._client_line(MAX_LINE if command.texts else None)
            command.size += len(text) + 2
            literal = LITERAL.search(text)
            command.texts.append(text[: literal.start()] if literal else text)
            if literal is None:
                return command
            size = self._literal_size(command, literal)
            if not literal[2]:
                self._expect_no_password_in(command)
                self._say(b"+ OK\r\n")
            command.literals.append((yield from self._client_octets(size)))
            command.size += size

    def _literal_size(self, command: Command, literal: re.Match[bytes]) -> int:
        digits, non_synchronising = literal.groups()
        size = int(digits) if len(digits) <= 10 else MAX_LITERAL + 1
        if size <= MAX_LITERAL and command.size + size <= MAX_COMMAND:
            return size
        if non_synchronising:
            raise ProtocolError("a literal is too long")
        head = COMMAND.match(command.texts[0])
        self._tag = head[1] if head else b"*"
        raise LiteralRefused

    def _expect_no_password_in(self, command: Command) -> None:
        """What we ask for must not be a password before TLS."""
        head = COMMAND.match(command.texts[0])
        if head and head[2].upper() in {b"LOGIN", b"AUTHENTICATE"} and self._lacks_tls():
            self._tag = head[1]
            raise TlsMissing

    def _expect_tls(self) -> None:
        if self._lacks_tls():
            raise TlsMissing

    def _perform(self, command: Command) -> Steps[None]:
        head = COMMAND.fullmatch(command.texts[0])
        if head is None:
            raise BadCommand("this is not a command: a tag and a name are expected")
        self._tag, name, rest = head[1], head[2].upper(), head[3] or b""
        if any(b"\0" in part for part in (*command.texts, *command.literals)):
            raise BadCommand("NUL is not allowed")
        if name in AFTER_LOGIN:
            self._say(self._tag + b" BAD log in first\r\n")
            return
        perform = COMMANDS.get(name)
        if perform is None:
            raise BadCommand("log in first")
        yield from perform(self, rest, command)

    def _ok(self, text: bytes) -> None:
        self._say(self._tag + b" OK " + text + b"\r\n")

    def _expect_no_arguments(self, rest: bytes, command: Command) -> None:
        if rest.strip() or command.literals:
            raise BadCommand("this command takes no arguments")

    def _capability(self, rest: bytes, command: Command) -> Steps[None]:
        self._expect_no_arguments(rest, command)
        seen = yield from self._known()
        self._say(b"* CAPABILITY " + offered_to_client(seen, self._local_tls) + b"\r\n")
        self._ok(b"CAPABILITY completed")

    def _noop(self, rest: bytes, command: Command) -> Steps[None]:
        self._expect_no_arguments(rest, command)
        self._ok(b"NOOP completed")
        yield from ()

    def _id(self, rest: bytes, command: Command) -> Steps[None]:
        self._say(b"* ID NIL\r\n")
        self._ok(b"ID completed")
        yield from ()

    def _logout(self, rest: bytes, command: Command) -> Steps[None]:
        self._expect_no_arguments(rest, command)
        self._say(b"* BYE logging out\r\n")
        self._ok(b"LOGOUT completed")
        self._hang_up("the client logged out")
        yield

    def _starttls(self, rest: bytes, command: Command) -> Steps[None]:
        """RFC 9051 section 6.2.1: no greeting follows, and the client asks for the capabilities again."""
        self._expect_the_end_of("STARTTLS")
        if not self._offers_tls:
            raise BadCommand(self._why_no("STARTTLS"))
        self._expect_no_arguments(rest, command)
        yield from self._secure_client(self._tag + b" OK begin TLS\r\n")

    def _login_command(self, rest: bytes, command: Command) -> Steps[None]:
        """RFC 9051 section 6.2.3, in every spelling."""
        self._expect_tls()
        arguments = parse_astrings(rest, command)
        if len(arguments) != 2:
            raise BadCommand("LOGIN takes a user name and a password")
        yield from self._log_in(sasl.make_login(*arguments))

    def _authenticate_command(self, rest: bytes, command: Command) -> Steps[None]:
        """RFC 9051 section 6.2.2, with or without an initial response (RFC 4959), offered or not."""
        self._expect_tls()
        if command.literals:
            raise BadCommand("AUTHENTICATE takes no literals")
        try:
            login = yield from sasl.read_login(rest, self._ask_client)
        except sasl.BadResponse as error:
            raise BadCommand(str(error)) from error
        yield from self._log_in(login)


COMMANDS: dict[bytes, Callable[[ImapDialogue, bytes, Command], Steps[None]]] = {
    b"CAPABILITY": ImapDialogue._capability,
    b"NOOP": ImapDialogue._noop,
    b"ID": ImapDialogue._id,
    b"LOGOUT": ImapDialogue._logout,
    b"LOGIN": ImapDialogue._login_command,
    b"AUTHENTICATE": ImapDialogue._authenticate_command,
    b"STARTTLS": ImapDialogue._starttls,
}
"""What is done about a command before the login."""
