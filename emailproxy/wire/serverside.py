"""The mail server's side of a login dialogue: the dial, the capabilities, and one SASL exchange after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from emailproxy.errors import MAX_FOREIGN_TEXT, LoginRefused, one_line
from emailproxy.wire import events as ev
from emailproxy.wire.lines import MAX_CAPABILITY, MAX_SERVER_REPLY, LineBuffer

MAX_CHALLENGE = 150  # characters of a failure challenge that we repeat
TOO_LONG = "the mail server's reply before login is longer than 64 KiB"

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A coroutine without I/O: it yields when it has to wait for the next event."""


class Link(Enum):
    """The connection to the server."""

    DOWN = "down"
    DIALLING = "dialling"
    UP = "up"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server took the credential; `reply` is what it said, octet by octet."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server refused the credential, and says why."""

    text: str
    misunderstood: bool = False
    """It refused the command itself: it cannot have looked at the credential."""


class Broken(Exception):
    """The server cannot be used on this connection.

    `fatal`: the client's connection must end, too. `left`: the server takes its leave, which is no answer to us.
    """

    def __init__(self, text: str, *, fatal: bool = False, left: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal
        self.left = left


class ServerSide(ABC):
    """Common to all protocols. Protocols fill in the words."""

    def __init__(self, terms: ev.Terms) -> None:
        self._terms = terms
        self._effects: list[ev.Effect] = []
        self._moved = False
        self._server = LineBuffer()
        self._server_read = 0
        self._server_steps: Steps[None] | None = None
        self._link = Link.DOWN
        self._secured = False
        self._failure: LoginRefused | None = None
        self._hung_up = False
        self._opened_ahead = False  # and nothing was heard on it since
        self._place = None if terms.routed else _place(terms)
        self._capabilities = terms.seen
        self._current = False  # the capabilities were learnt on the connection that stands
        self._doubted = False  # a login failed that relied on remembered capabilities
        self._offer: ev.Credential | None = None
        self._verdict: Accepted | Rejected | None = None

    # ---- what each protocol says

    @abstractmethod
    def _open(self) -> Steps[None]:
        """From the server's greeting to TLS, and to capabilities unless some are remembered.

        Raises:
            Broken: the server refuses, or breaks its protocol.
        """

    @abstractmethod
    def _ask_capabilities(self) -> Steps[None]:
        """Asks the server for its capabilities, which it `_learn`s.

        Raises:
            Broken: the server does not tell.
        """

    @abstractmethod
    def _mechanism(self) -> str | None:
        """The SASL mechanism to use, by the capabilities; None where there is none."""

    @abstractmethod
    def _exchange(self, mechanism: str, credential: ev.Credential) -> Steps[Accepted | Rejected]:
        """One SASL exchange with the server.

        Raises:
            Broken: the server breaks its protocol or refuses for a while.
        """

    # ---- the connection

    def _dial(self, *, anew: bool = False) -> None:
        self._link = Link.DIALLING
        self._opened_ahead = False
        self._current = False
        self._failure = None
        self._hung_up = False
        self._server.take_rest()
        self._server_read = 0
        self._server_steps = None
        self._emit(ev.Connect(anew))

    def _go_to(self, terms: ev.Terms) -> None:
        """The login's server is this one. A link to another is dropped, with all that is known of that."""
        self._terms = terms
        if self._place != _place(terms):
            self._place = _place(terms)
            self._capabilities = terms.seen
            self._doubted = False
            self._dial()
        elif self._link is Link.DOWN:
            self._dial()

    def _lose_server(self, error: LoginRefused, *, hung_up: bool = False) -> None:
        self._link = Link.DOWN
        self._failure = error
        self._hung_up = hung_up
        self._server_steps = None
        self._moved = True

    def _hear(self, data: bytes) -> None:
        if self._link is not Link.DOWN:
            self._server.append(data)
            self._server_read += len(data)

    @property
    def _heard_too_much(self) -> bool:
        """More than a server may say to one command; a login that it ends may have mail behind it."""
        return self._server_read > MAX_SERVER_REPLY

    def _serve(self, ready: ev.Ready | None) -> Steps[None]:
        """One connection's life: open it, unless that is done, then authenticate as often as asked."""
        if ready is None:
            yield from self._open()
        else:
            self._learn(ready.capabilities)
        while True:
            yield from self._until(lambda: self._offer is not None)
            offer, self._offer = self._offer, None
            assert offer is not None
            self._verdict = yield from self._authenticate(offer)

    def _authenticate(self, credential: ev.Credential) -> Steps[Accepted | Rejected]:
        """One login. Capabilities remembered from an earlier connection save a round trip, until they prove stale.

        Raises:
            Broken: the server cannot be used, or not now.
        """
        mechanism = self._mechanism()
        if not self._current and (self._doubted or mechanism is None):
            yield from self._ask_capabilities()
            mechanism = self._mechanism()
        if mechanism is None:
            raise Broken("the mail server offers neither XOAUTH2 nor OAUTHBEARER")
        verdict = yield from self._exchange(mechanism, credential)
        if isinstance(verdict, Rejected) and not self._current:
            self._doubted = True
            if verdict.misunderstood:
                return (yield from self._authenticate(credential))
        return verdict

    def _start_tls(self) -> Steps[None]:
        """After the server's go-ahead. Octets behind it were injected before TLS (CVE-2021-33515): the end.

        Raises:
            Broken: there are such octets.
        """
        if len(self._server):
            raise Broken(
                "the mail server sent octets behind its STARTTLS reply: the connection was tampered with",
                fatal=True,
            )
        self._secured = False
        self._emit(ev.StartTls(ev.Side.SERVER))
        yield from self._until(lambda: self._secured)
        if len(self._server):
            raise Broken("the mail server spoke before its TLS handshake ended", fatal=True)

    def _learn(self, capabilities: ev.Capabilities) -> None:
        """The server's capabilities, over TLS and before login. They go into lines of ours: garbage is left out."""
        sound = tuple(
            item for item in capabilities if item.isascii() and item.isprintable() and 0 < len(item) <= MAX_CAPABILITY
        )
        if sound != self._capabilities:
            self._emit(ev.Learned(sound))
        self._capabilities = sound
        self._current = True

    # ---- octets and effects

    def _emit(self, effect: ev.Effect) -> None:
        self._effects.append(effect)

    def _send(self, data: bytes) -> None:
        """A command; all that the server says from now on counts as its answer."""
        self._server_read = len(self._server)
        self._emit(ev.ToServer(data))

    def _server_line(self) -> Steps[bytes]:
        """The server's next line without CRLF."""
        while (line := self._server.take_line(MAX_SERVER_REPLY)) is None:
            yield
        self._moved = True
        return line

    def _until(self, condition: Callable[[], bool]) -> Steps[None]:
        """Waits; every wait of both sides goes through here or sets `_moved`, so that `_run` sees that one went on."""
        while not condition():
            yield
        self._moved = True


def _place(terms: ev.Terms) -> tuple[str, int, bool]:
    """Where a server is, and how it is reached: what makes two of them the same."""
    return terms.host, terms.port, terms.starttls


def words_of(line: bytes) -> str:
    """What a server says behind its tag or status."""
    return one_line(line.partition(b" ")[2].decode("utf-8", "replace"))


def with_challenge(words: str, challenge: str) -> str:
    """A refusal in the server's words, and what its failure challenge said, if anything: the words give way to it."""
    if not challenge:
        return one_line(words)
    said = one_line(challenge, MAX_CHALLENGE)
    return f"{one_line(words, MAX_FOREIGN_TEXT - len(said) - 3)} ({said})"
