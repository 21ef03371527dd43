"""A driver for login dialogues: it feeds events, collects effects, and answers those that a network would."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable

from emailproxy.errors import Kind, LoginRefused
from emailproxy.secret import Secret
from emailproxy.wire import events as ev
from emailproxy.wire.dialogue import Dialogue
from emailproxy.wire.imap import ImapDialogue
from emailproxy.wire.pop3 import Pop3Dialogue
from emailproxy.wire.smtp import SmtpDialogue
from tests.wire.servers import ImapServer, Pop3Server, Server, SmtpServer

WHOLE = 10**6
CHUNKS = [1, 2, 3, WHOLE]

USER = "u@x.test"
PASSWORD = "local-canary"
TOKEN = "token-canary"
FRESH = "fresh-canary"

DIALOGUES: dict[str, type[Dialogue]] = {"IMAP": ImapDialogue, "POP3": Pop3Dialogue, "SMTP": SmtpDialogue}
SERVERS: dict[str, type[Server]] = {"IMAP": ImapServer, "POP3": Pop3Server, "SMTP": SmtpServer}
PROTOCOLS = sorted(DIALOGUES)
REMEMBERED: dict[str, ev.Capabilities] = {
    "IMAP": ("IMAP4REV1", "SASL-IR", "AUTH=XOAUTH2"),
    "POP3": ("TOP", "SASL XOAUTH2"),
    "SMTP": ("SIZE 1000", "AUTH XOAUTH2"),
}
LOGIN: dict[str, bytes] = {
    "IMAP": b"a1 LOGIN u@x.test local-canary\r\n",
    "POP3": b"USER u@x.test\r\nPASS local-canary\r\n",
    "SMTP": b"AUTH PLAIN AHVAeC50ZXN0AGxvY2FsLWNhbmFyeQ==\r\n",
}
"""`USER` and `PASSWORD`, as a client sends them."""


def credential(token: str = TOKEN, user: str = USER) -> ev.Credential:
    return ev.Credential(user, Secret(token))


class Talk:
    """One client's connection. `answers` come to `NeedToken`, the first to the first; none: the token is awaited.
    `routes` come before them, one a login. `ready` is what the servers offer whose connections were opened ahead.

    With a `server` the dialogue talks to that; without one the dial still succeeds, and `serve` says what it hears.
    """

    def __init__(
        self,
        protocol: str,
        server: Server | None = None,
        *,
        answers: Iterable[ev.Credential | LoginRefused] = (),
        dials: bool = True,
        shakes_hands: bool = True,
        terms: ev.Terms | None = None,
        routes: Iterable[ev.Terms] = (),
        ready: Iterable[ev.Capabilities] = (),
        greet: bool = True,
    ) -> None:
        starttls = server.starttls if server is not None else False
        self.dialogue = DIALOGUES[protocol](terms or ev.Terms(starttls=starttls))
        self.server = server
        self.answers = deque(answers)
        self.routes = deque(routes)
        self.ready = deque(ready)
        self.dials = dials
        self.shakes_hands = shakes_hands
        self.effects: list[ev.Effect] = []
        self.said = b""
        """To the client."""
        self.sent = b""
        """To the server."""
        if greet:
            self.feed(ev.ClientConnected())

    # ---- events in

    def client(self, data: bytes, chunk: int = WHOLE) -> bytes:
        """What the client sends; returns what it hears."""
        before = len(self.said)
        for start in range(0, len(data), chunk):
            self.feed(ev.ClientData(data[start : start + chunk]))
        return self.said[before:]

    def serve(self, data: bytes, chunk: int = WHOLE) -> bytes:
        """What the server sends; returns what it hears."""
        before = len(self.sent)
        for start in range(0, len(data), chunk):
            self.feed(ev.ServerData(data[start : start + chunk]))
        return self.sent[before:]

    def feed(self, *events: ev.Event) -> list[ev.Effect]:
        """All that comes of these events, and of the answers to what was asked for."""
        before = len(self.effects)
        waiting = deque(events)
        while waiting:
            for effect in self.dialogue.handle(waiting.popleft()):
                assert not self.over, f"{effect} after {self.effects[-1]}"
                self.effects.append(effect)
                waiting.extend(self._answer(effect))
        return self.effects[before:]

    def _answer(self, effect: ev.Effect) -> list[ev.Event]:
        match effect:
            case ev.ToClient(data):
                self.said += data
            case ev.ToServer(data):
                self.sent += data
                return [] if self.server is None else _heard(self.server.hear(data))
            case ev.Connect(anew=False) if self.ready:
                if self.server is not None:
                    self.server.begin()
                    self.server.secured = True
                return [ev.ServerConnected(ev.Ready(self.ready.popleft()))]
            case ev.Connect() if self.dials:
                greeting = b"" if self.server is None else self.server.greet()
                return [ev.ServerConnected(), *_heard(greeting)]
            case ev.StartTls(side, go_ahead):
                self.said += go_ahead
                return [ev.TlsStarted(side)] if self.shakes_hands else []
            case ev.NeedToken(_, rejected):
                routes = [ev.Routed(self.routes.popleft())] if self.routes and rejected is None else []
                if not self.answers:
                    return [*routes]
                answer = self.answers.popleft()
                said = ev.TokenReady(answer) if isinstance(answer, ev.Credential) else ev.TokenFailed(answer)
                return [*routes, said]
        return []

    # ---- what came of it

    @property
    def over(self) -> bool:
        return bool(self.effects) and isinstance(self.effects[-1], ev.Relay | ev.Hangup)

    @property
    def asked(self) -> list[ev.NeedToken]:
        return [effect for effect in self.effects if isinstance(effect, ev.NeedToken)]

    @property
    def login(self) -> tuple[str, str] | None:
        """The user name and password of the last login."""
        return (self.asked[-1].login.user, self.asked[-1].login.password.reveal()) if self.asked else None

    @property
    def refused(self) -> list[ev.Refused]:
        return [effect for effect in self.effects if isinstance(effect, ev.Refused)]

    @property
    def dialled(self) -> int:
        return sum(isinstance(effect, ev.Connect) for effect in self.effects)

    @property
    def commands(self) -> int:
        """How often the server was spoken to: round trips."""
        return sum(isinstance(effect, ev.ToServer) for effect in self.effects)

    @property
    def learned(self) -> list[ev.Capabilities]:
        return [effect.capabilities for effect in self.effects if isinstance(effect, ev.Learned)]

    @property
    def noted(self) -> list[str]:
        return [effect.text for effect in self.effects if isinstance(effect, ev.Noted)]

    @property
    def relay(self) -> ev.Relay | None:
        return next((effect for effect in self.effects if isinstance(effect, ev.Relay)), None)

    @property
    def hung_up(self) -> bool:
        return any(isinstance(effect, ev.Hangup) for effect in self.effects)


def _heard(data: bytes) -> list[ev.Event]:
    return [ev.ServerData(data)] if data else []


# ---- what the tests of all three protocols say

GREETING = {"IMAP": b"* OK hello\r\n", "POP3": b"+OK hello\r\n", "SMTP": b"220 hello\r\n"}
CODES = {
    # IMAP, POP3, SMTP
    Kind.WRONG_LOGIN: (b"a1 NO [AUTHENTICATIONFAILED] ", b"-ERR [AUTH] ", b"535 5.7.8 "),
    Kind.CONSENT_NEEDED: (b"a1 NO [UNAVAILABLE] ", b"-ERR [SYS/TEMP] ", b"454 4.7.0 "),
    Kind.UNAVAILABLE: (b"a1 NO [UNAVAILABLE] ", b"-ERR [SYS/TEMP] ", b"454 4.7.0 "),
    Kind.TOKEN_REFUSED: (b"a1 NO [AUTHORIZATIONFAILED] ", b"-ERR [AUTH] ", b"535 5.7.8 "),
    Kind.MISCONFIGURED: (b"a1 NO [CONTACTADMIN] ", b"-ERR [SYS/PERM] ", b"454 4.7.0 "),
    Kind.TOO_MANY: (b"a1 NO [LIMIT] ", b"-ERR [IN-USE] ", b"421 4.7.0 "),
    Kind.TOO_MANY_SESSIONS: (b"a1 NO [LIMIT] ", b"-ERR [IN-USE] ", b"454 4.7.0 "),
}


def code(protocol: str, kind: Kind) -> bytes:
    return dict(zip(("IMAP", "POP3", "SMTP"), CODES[kind], strict=True))[protocol]


def remembering(protocol: str, **changes: object) -> ev.Terms:
    return dataclasses.replace(ev.Terms(seen=REMEMBERED[protocol]), **changes)  # type: ignore[arg-type]


def logged_in(talk: Talk) -> str:
    """The token that the server took."""
    assert talk.relay is not None
    return talk.relay.credential.token.reveal()


def after_prompt(protocol: str, heard: bytes) -> bytes:
    """What a client hears of a login, less the prompt for the second half of it."""
    return heard.removeprefix(b"+OK send PASS\r\n") if protocol == "POP3" else heard


def is_one_clean_line(line: bytes) -> bool:
    body = line.removesuffix(b"\r\n")
    return line.endswith(b"\r\n") and len(line) <= 512 and all(0x20 <= octet < 0x7F for octet in body)
