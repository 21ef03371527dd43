"""SMTP submission (RFC 5321, RFC 4954, RFC 6409) up to the login, towards the client."""

from __future__ import annotations

import re
from collections.abc import Callable

from emailproxy.errors import Kind, LoginRefused, ProtocolError
from emailproxy.secret import Secret
from emailproxy.wire import events as ev
from emailproxy.wire import sasl
from emailproxy.wire.dialogue import Dialogue
from emailproxy.wire.lines import fit
from emailproxy.wire.serverside import Steps
from emailproxy.wire.smtp_server import SmtpServer

AUTH = re.compile(rb"AUTH ", re.IGNORECASE)

CODES = {
    Kind.WRONG_LOGIN: b"535 5.7.8 ",
    Kind.CONSENT_NEEDED: b"454 4.7.0 ",
    Kind.UNAVAILABLE: b"454 4.7.0 ",
    Kind.TOKEN_REFUSED: b"535 5.7.8 ",
    Kind.MISCONFIGURED: b"454 4.7.0 ",
    Kind.TOO_MANY: b"421 4.7.0 ",
    Kind.TOO_MANY_SESSIONS: b"454 4.7.0 ",
}
# 454 and 535 answer AUTH only (RFC 4954 section 6). MAIL hears 451 (RFC 5321 section 4.3.2), which keeps the mail in
# the sender's queue, or 530, the one code about logins that any command may hear
MAIL_CODES = {
    b"454 4.7.0 ": b"451 4.7.0 ",
    b"535 5.7.8 ": b"530 5.7.0 ",
    b"421 4.7.0 ": b"421 4.7.0 ",
}
OUR_AUTH = "AUTH PLAIN LOGIN"
NOT_THROUGH_US = {"AUTH", "STARTTLS"}
WEB_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT"}
LOGIN_FIRST = (
    b"530 5.7.0 Authentication required: this client sent no login; "
    b"switch on authentication (user name and password) in its outgoing server (SMTP) settings\r\n"
)
TLS_FIRST = b"530 5.7.0 Must issue a STARTTLS command first\r\n"  # RFC 3207 section 4, word by word
MAIL_FIRST = b"503 5.5.1 Send MAIL first\r\n"


def offered_to_client(seen: ev.Capabilities | None, local_tls: ev.LocalTls) -> bytes:
    """Our answer to EHLO: what we can do before login, and what the server will do after it."""
    theirs = [line for line in seen or () if re.split("[ =]", line)[0].upper() not in NOT_THROUGH_US]
    match local_tls:
        case ev.LocalTls.REQUIRED:
            ours = ["STARTTLS"]
        case ev.LocalTls.OFFERED:
            ours = ["STARTTLS", OUR_AUTH]
        case _:
            ours = [OUR_AUTH]
    lines = [b"emailproxy", *(line.encode("ascii", "replace") for line in (*theirs, *ours))]
    return b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"


class SmtpDialogue(SmtpServer, Dialogue):
    """One SMTP connection until its login is decided."""

    bad_command_limit = 10
    carries_response = AUTH
    continuation = b"334 "
    common = ("SIZE", "8BITMIME")
    too_many_ends = True  # RFC 5321 section 3.8: after 421 we close

    def __init__(self, terms: ev.Terms) -> None:
        super().__init__(terms)
        self._login_as = terms.login_as
        self._line = b""
        self._sending = False

    # ---- the client

    @classmethod
    def turned_away(cls, text: str) -> bytes:
        return fit(b"421 4.7.0 ", text)

    def _refusal(self, error: LoginRefused) -> bytes:
        code = CODES[error.kind]
        return fit(MAIL_CODES[code] if self._sending else code, str(error))

    def _farewell(self, text: str) -> bytes:
        return fit(b"421 4.4.2 ", text)

    def _complaint(self, error: ProtocolError) -> bytes:
        return fit(b"500 5.5.2 ", str(error))

    def _converse(self) -> Steps[None]:
        self._say(b"220 emailproxy ESMTP ready\r\n")
        while True:
            self._line = yield from self._client_line()
            name, _, rest = self._line.partition(b" ")
            try:
                yield from self._perform(name.upper(), rest)
            except sasl.NotOffered as error:
                self._bad_command(fit(b"504 5.5.4 ", str(error)))
            except sasl.BadResponse as error:
                self._bad_command(fit(b"501 5.5.2 ", str(error)))
            except LoginRefused as error:
                self._refuse(error)

    def _perform(self, name: bytes, rest: bytes) -> Steps[None]:
        if name in WEB_METHODS:
            self._say(b"554 5.7.0 This is a mail server, not a web server\r\n")
            self._hang_up("the client speaks HTTP")
            return
        perform = COMMANDS.get(name)
        if perform is None:
            self._bad_command(b"500 5.5.1 Command not recognized\r\n")
        else:
            yield from perform(self, rest)

    def _ehlo(self, rest: bytes) -> Steps[None]:
        if not rest.strip():
            self._bad_command(b"501 5.5.4 EHLO takes a name\r\n")
            return
        seen = yield from self._known()
        self._say(offered_to_client(seen, self._local_tls))

    def _helo(self, rest: bytes) -> Steps[None]:
        self._say(b"250 emailproxy\r\n")
        yield from ()

    def _auth_command(self, rest: bytes) -> Steps[None]:
        """RFC 4954 section 4."""
        if self._lacks_tls():
            self._say(TLS_FIRST)
            return
        login = yield from sasl.read_login(rest, self._ask_client)
        yield from self._log_in(login)

    def _starttls(self, rest: bytes) -> Steps[None]:
        """RFC 3207 section 4: after TLS the client begins again with EHLO."""
        self._expect_the_end_of("STARTTLS")
        if not self._offers_tls:
            code = b"503 5.5.1 " if self._local_tls is ev.LocalTls.ACTIVE else b"502 5.5.1 "
            self._bad_command(fit(code, self._why_no("STARTTLS")))
        elif rest.strip():
            self._bad_command(b"501 5.5.4 STARTTLS takes no parameters\r\n")
        else:
            yield from self._secure_client(b"220 2.0.0 Ready to start TLS\r\n")

    def _mail(self, rest: bytes) -> Steps[None]:
        """A client that sends mail without logging in, where that is allowed, is logged in by us: the server hears its
        commands as they came, and so do all that follow."""
        if not self._login_as or self._lacks_tls():
            yield from self._too_early(rest)
            return
        self._sending = True
        yield from self._log_in(ev.Login(self._login_as, Secret("")), self._line + b"\r\n")
        self._sending = False

    def _too_early(self, rest: bytes) -> Steps[None]:
        self._say(TLS_FIRST if self._lacks_tls() else MAIL_FIRST if self._login_as else LOGIN_FIRST)
        yield from ()

    def _bdat(self, rest: bytes) -> Steps[None]:
        """RFC 3030 section 2: the chunk follows unasked; it must not be read as commands."""
        yield from self._too_early(rest)
        self._hang_up("BDAT before login")
        yield

    def _quit(self, rest: bytes) -> Steps[None]:
        self._say(b"221 2.0.0 Bye\r\n")
        self._hang_up("the client quit")
        yield


def _simply(reply: bytes) -> Callable[[SmtpDialogue, bytes], Steps[None]]:
    def perform(dialogue: SmtpDialogue, _rest: bytes) -> Steps[None]:
        dialogue._say(reply)
        yield from ()

    return perform


COMMANDS: dict[bytes, Callable[[SmtpDialogue, bytes], Steps[None]]] = {
    b"EHLO": SmtpDialogue._ehlo,
    b"HELO": SmtpDialogue._helo,
    b"AUTH": SmtpDialogue._auth_command,
    b"STARTTLS": SmtpDialogue._starttls,
    b"NOOP": _simply(b"250 2.0.0 OK\r\n"),
    b"RSET": _simply(b"250 2.0.0 OK\r\n"),
    b"VRFY": _simply(b"252 2.5.0 Cannot verify before login\r\n"),
    b"HELP": _simply(b"214 2.0.0 Log in with AUTH PLAIN or AUTH LOGIN\r\n"),
    b"MAIL": SmtpDialogue._mail,
    b"RCPT": SmtpDialogue._too_early,
    b"DATA": SmtpDialogue._too_early,
    b"BDAT": SmtpDialogue._bdat,
    b"QUIT": SmtpDialogue._quit,
}
"""What is done about a command before the login."""
