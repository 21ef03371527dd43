"""Events in, effects out: what a login dialogue is told, and what it asks for.

A dialogue sits between a mail client and a mail server until the login is decided. `net.session` feeds it
`Event`s and performs its `Effect`s; it decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from emailproxy.errors import LoginRefused
from emailproxy.secret import Secret

DEFAULT_EHLO_NAME = "[127.0.0.1]"
Capabilities = tuple[str, ...]
"""What a server offers, one item a capability line: ``("IMAP4REV1", "IDLE")``, ``("SASL XOAUTH2", "TOP")``."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a client logged in with. `user` is free of control characters and at most 254 octets."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class Visit:
    """Where a login comes from: for the log, the limits and the rules of a first login."""

    session: str
    """The connection's id in the log."""
    protocol: str
    """``IMAP``, ``POP`` or ``SMTP``."""
    address: str
    """The client's IP address."""
    may_set_first_password: bool | None = True
    """Whether a first login's password becomes the account's first key slot. None: not by default (the listener is
    not on a loopback only), but an account may say so; False: the listener denies it."""
    listener: str = ""
    """The listening section's name, for the log."""


LOCAL = Visit("", "", "")
"""Not a visit at all: the command line. Of a password's limits only its end applies to it."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What to log in upstream with: the SASL user and an OAuth 2.0 access token."""

    user: str
    token: Secret


@dataclass(frozen=True, slots=True)
class Advice:
    """What a provider's or server's error means, and what to do about it."""

    meaning: str
    action: str
    temporary: bool = False
    """It passes by itself: a fresh token would not help, and nobody needs to do anything."""

    def __str__(self) -> str:
        return f"{self.meaning}; {self.action}"


def no_advice(text: str) -> Advice | None:
    return None


class LocalTls(Enum):
    """TLS between the client and us."""

    NONE = "none"
    OFFERED = "offered"
    """STARTTLS or STLS, as the client likes."""
    REQUIRED = "required"
    """No login before STARTTLS or STLS."""
    ACTIVE = "active"
    """TLS stands already."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a dialogue must know of the server before it talks to it."""

    starttls: bool = False
    """The connection begins in plaintext and is secured by STARTTLS or STLS."""
    seen: Capabilities | None = None
    """The capabilities last seen of this server (after TLS, before login), if any."""
    host: str = "localhost"
    """The server's name, for OAUTHBEARER (RFC 7628 section 3.1)."""
    port: int = 0
    ehlo_name: str = DEFAULT_EHLO_NAME
    """What we call ourselves in EHLO (RFC 5321 section 4.1.3)."""
    advise: Callable[[str], Advice | None] = no_advice
    """What is known about a server's refusal."""
    routed: bool = False
    """There is no server yet: `NeedToken` is answered by `Routed`, too, which names it, and nothing is dialled before.
    Until then `seen` is what all servers may be expected to offer; where it is None, `Dialogue.common`."""
    local_tls: LocalTls = LocalTls.NONE
    """What TLS there is on the client's side."""
    login_as: str = ""
    """SMTP: whom a client that sends mail without logging in is logged in as; empty: nobody."""


class Side(Enum):
    CLIENT = "client"
    SERVER = "server"


# ---- events


@dataclass(frozen=True, slots=True)
class ClientConnected:
    """The client is there; the greeting may go out."""


@dataclass(frozen=True, slots=True)
class ClientData:
    data: bytes


@dataclass(frozen=True, slots=True)
class ServerData:
    data: bytes


@dataclass(frozen=True, slots=True)
class ClientEOF:
    pass


@dataclass(frozen=True, slots=True)
class ServerEOF:
    """The server closed, or the connection to it broke."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A server with which a login may begin at once: TLS stands, it has greeted us and told what it offers.

    It is what comes of a `wire.opening.Opening`, and then what a dialogue is told of its server.
    """

    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class ServerConnected:
    """The connection to the server stands (over TLS, unless `Terms.starttls`)."""

    ready: Ready | None = None
    """It was opened ahead. It may be dead by now, and nobody knows before something is sent."""


@dataclass(frozen=True, slots=True)
class ServerFailed:
    """`Connect` or `StartTls(Side.SERVER)` failed."""

    error: LoginRefused


@dataclass(frozen=True, slots=True)
class Routed:
    """The login names an account, and its server is this one. Comes before the token.

    Of these terms hold what concerns the server: its place, its capabilities and how to speak to it. The client's side
    (`routed`, `local_tls`, `login_as`) stays as it was.
    """

    terms: Terms


@dataclass(frozen=True, slots=True)
class TokenReady:
    credential: Credential


@dataclass(frozen=True, slots=True)
class TokenFailed:
    error: LoginRefused


@dataclass(frozen=True, slots=True)
class TlsStarted:
    side: Side


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time for the login is over."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The proxy is shutting down."""


Event = (
    ClientConnected
    | ClientData
    | ServerData
    | ClientEOF
    | ServerEOF
    | ServerConnected
    | ServerFailed
    | Routed
    | TokenReady
    | TokenFailed
    | TlsStarted
    | Deadline
    | Draining
)

# ---- effects


@dataclass(frozen=True, slots=True)
class ToClient:
    data: bytes


@dataclass(frozen=True, slots=True)
class ToServer:
    data: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """Dial the server; answered by `ServerConnected` or `ServerFailed`.

    Drops a connection that still stands or is being made: no event of the old one comes any more.
    """

    anew: bool = False
    """One that was opened ahead will not do: the last one was dead."""


@dataclass(frozen=True, slots=True)
class NeedToken:
    """Get a credential for this login; answered by `TokenReady` or `TokenFailed`.

    `rejected` is the server's refusal of the last one, in words: a fresh token is asked for. Under `Terms.routed` a
    login's first one, without `rejected`, is answered by `Routed` before that, unless the login goes nowhere.
    """

    login: Login
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class StartTls:
    """Pause reading from that side, write `go_ahead` to it, then shake hands; answered by `TlsStarted`.

    On the client's side in that order: the pause comes before the go-ahead goes out, so that what the client sends
    next, its first TLS record, stays in the socket for the handshake; and the pause lasts, whatever events come
    meanwhile, until `TlsStarted`. A handshake that fails is a `ClientEOF`, on the server's side a `ServerFailed`.
    `ClientData` before `TlsStarted` was sent in plaintext behind the command: a breach, and the dialogue ends. Whatever
    ends the dialogue during the client's handshake, it says nothing more: the client would read it as TLS.
    """

    side: Side
    go_ahead: bytes = b""
    """The client's side: our reply to its STARTTLS or STLS. No `ToClient` carries it."""


@dataclass(frozen=True, slots=True)
class Learned:
    """The server offers these capabilities (after TLS, before login): worth remembering."""

    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Refused:
    """A login was refused; the client has been told. For the log, nothing else."""

    login: Login | None
    error: LoginRefused


@dataclass(frozen=True, slots=True)
class Noted:
    """Something for the log: what a peer did that an administrator should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Relay:
    """The login stands. Leftover bytes of either side go first, then everything passes untouched."""

    login: Login
    credential: Credential
    to_client: bytes
    to_server: bytes


@dataclass(frozen=True, slots=True)
class Hangup:
    """Send what is written, then close both sides. `reason` is for the log."""

    reason: str


Effect = ToClient | ToServer | Connect | NeedToken | StartTls | Learned | Ready | Refused | Noted | Relay | Hangup


class LoginDialogue(Protocol):
    """Pure, one per connection. After `Relay` or `Hangup` it takes no further events."""

    def handle(self, event: Event) -> Iterable[Effect]:
        """What should happen now. Effects are to be performed in order, each before the next event."""

    @property
    def backlog(self) -> int:
        """Octets of the client that wait for the login to be decided."""

    def close(self) -> None:
        """It is asked nothing any more."""
