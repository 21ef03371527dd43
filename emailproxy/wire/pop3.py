"""POP3 (RFC 1939, RFC 2449, RFC 5034) up to the login, towards the client."""

from __future__ import annotations

import re
from collections.abc import Callable

from emailproxy.errors import Kind, LoginRefused, ProtocolError
from emailproxy.wire import events as ev
from emailproxy.wire import sasl
from emailproxy.wire.dialogue import Dialogue
from emailproxy.wire.lines import fit
from emailproxy.wire.pop3_server import Pop3Server
from emailproxy.wire.serverside import Steps

AUTH = re.compile(rb"AUTH ", re.IGNORECASE)

CODES = {
    Kind.WRONG_LOGIN: b"AUTH",
    Kind.CONSENT_NEEDED: b"SYS/TEMP",
    Kind.UNAVAILABLE: b"SYS/TEMP",
    Kind.TOKEN_REFUSED: b"AUTH",
    Kind.MISCONFIGURED: b"SYS/PERM",
    Kind.TOO_MANY: b"IN-USE",
    Kind.TOO_MANY_SESSIONS: b"IN-USE",
}
OURS = ("RESP-CODES", "AUTH-RESP-CODE")
OUR_AUTH = ("USER", "SASL PLAIN LOGIN")
AFTER_LOGIN = frozenset(b"STAT LIST UIDL RETR DELE TOP RSET LAST".split())  # what clients pipeline: no mistakes
NOT_THROUGH_US = {"USER", "SASL", "STLS", "APOP", "RESP-CODES", "AUTH-RESP-CODE", "UTF8"}  # UTF8: before login only
LOGIN_FIRST = b"-ERR log in first, with USER and PASS or with AUTH\r\n"
TLS_FIRST = b"-ERR log in after STLS: switch STARTTLS on in the client\r\n"


def offered_to_client(seen: ev.Capabilities | None, local_tls: ev.LocalTls) -> bytes:
    """What we can do before login, and what the server will do after it: a multi-line answer's body."""
    theirs = [line for line in seen or () if line.split(" ")[0].upper() not in NOT_THROUGH_US]
    ours: tuple[str, ...]
    match local_tls:
        case ev.LocalTls.REQUIRED:
            ours = ("STLS", *OURS)
        case ev.LocalTls.OFFERED:
            ours = (*OUR_AUTH, "STLS", *OURS)
        case _:
            ours = (*OUR_AUTH, *OURS)
    return b"".join(line.encode("ascii", "replace") + b"\r\n" for line in (*ours, *theirs)) + b".\r\n"


class Pop3Dialogue(Pop3Server, Dialogue):
    """One POP3 connection until its login is decided."""

    carries_response = AUTH
    common = ("TOP", "UIDL")

    def __init__(self, terms: ev.Terms) -> None:
        super().__init__(terms)
        self._user: bytes | None = None

    # ---- the client

    @classmethod
    def turned_away(cls, text: str) -> bytes:
        return fit(b"-ERR [IN-USE] ", text)

    def _refusal(self, error: LoginRefused) -> bytes:
        return fit(b"-ERR [" + CODES[error.kind] + b"] ", str(error))

    def _farewell(self, text: str) -> bytes:
        return fit(b"-ERR [SYS/TEMP] ", text)

    def _complaint(self, error: ProtocolError) -> bytes:
        return fit(b"-ERR ", str(error))

    def _converse(self) -> Steps[None]:
        """The greeting has no timestamp: APOP (RFC 1939 section 7) is not offered."""
        self._say(b"+OK emailproxy ready\r\n")
        while True:
            line = yield from self._client_line()
            name, _, rest = line.partition(b" ")
            if name.upper() in AFTER_LOGIN:
                self._say(LOGIN_FIRST)
                continue
            perform = COMMANDS.get(name.upper())
            if perform is None:
                self._bad_command(LOGIN_FIRST)
                continue
            try:
                yield from perform(self, rest)
            except sasl.BadResponse as error:
                self._bad_command(fit(b"-ERR ", str(error)))
            except LoginRefused as error:
                self._refuse(error)

    def _capa(self, rest: bytes) -> Steps[None]:
        seen = yield from self._known()
        self._say(b"+OK capabilities follow\r\n" + offered_to_client(seen, self._local_tls))

    def _user_command(self, rest: bytes) -> Steps[None]:
        yield from ()
        if self._lacks_tls():
            self._say(TLS_FIRST)
            return
        self._user = rest.strip(b" ")
        self._say(b"+OK send PASS\r\n")

    def _pass_command(self, rest: bytes) -> Steps[None]:
        """RFC 1939 section 7: all that follows ``PASS`` and one space is the password, spaces included."""
        user, self._user = self._user, None
        if self._lacks_tls():
            self._say(TLS_FIRST)
            return
        if user is None:
            self._bad_command(b"-ERR send USER first\r\n")
            return
        yield from self._log_in(sasl.make_login(user, rest))

    def _auth_command(self, rest: bytes) -> Steps[None]:
        """RFC 5034 section 4; a bare AUTH lists the mechanisms."""
        if self._lacks_tls():
            self._say(TLS_FIRST)
            return
        if not rest.strip():
            self._say(b"+OK mechanisms follow\r\nPLAIN\r\nLOGIN\r\n.\r\n")
            return
        login = yield from sasl.read_login(rest, self._ask_client)
        yield from self._log_in(login)

    def _stls(self, rest: bytes) -> Steps[None]:
        """RFC 2595 section 4: after TLS the client begins again, in the state after the greeting."""
        self._expect_the_end_of("STLS")
        if not self._offers_tls:
            self._bad_command(fit(b"-ERR ", self._why_no("STLS")))
        elif rest.strip():
            self._bad_command(b"-ERR STLS takes no arguments\r\n")
        else:
            self._user = None
            yield from self._secure_client(b"+OK begin TLS\r\n")

    def _noop(self, rest: bytes) -> Steps[None]:
        self._say(b"+OK\r\n")
        yield from ()

    def _quit(self, rest: bytes) -> Steps[None]:
        self._say(b"+OK bye\r\n")
        self._hang_up("the client quit")
        yield


COMMANDS: dict[bytes, Callable[[Pop3Dialogue, bytes], Steps[None]]] = {
    b"CAPA": Pop3Dialogue._capa,
    b"USER": Pop3Dialogue._user_command,
    b"PASS": Pop3Dialogue._pass_command,
    b"AUTH": Pop3Dialogue._auth_command,
    b"STLS": Pop3Dialogue._stls,
    b"NOOP": Pop3Dialogue._noop,
    b"QUIT": Pop3Dialogue._quit,
}
"""What is done about a command before the login."""
