"""The way of one login, the same for all three protocols.

A dialogue is two small coroutines, one for each side, written as generators: they run until what they wait for has
come, then yield. `handle` notes an event, then lets both run until neither gets any further. Whatever they want done
is collected as effects.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from emailproxy.errors import Kind, LoginRefused, ProtocolError, ServerUnavailable, TokenRefused
from emailproxy.wire import events as ev
from emailproxy.wire.lines import COMMAND_ROOM, MAX_LINE, MAX_SASL_RESPONSE, LineBuffer, LineTooLong
from emailproxy.wire.serverside import TOO_LONG, Accepted, Broken, Link, Rejected, ServerSide, Steps
from emailproxy.wire.strangers import CHOOSE_STARTTLS, LONGEST_SIGNATURE, recognise, undecided

REFUSED_TWICE = (
    "check that the mailbox's owner is who signed in, that the mailbox permits this protocol, and oauth2_scope"
)


def told(advice: ev.Advice, words: str) -> str:
    """What is known about a mail server's words, and the words: in a short line the advice is what must not be cut."""
    return f"{advice} (the mail server says: {words})"


def refused_twice(words: str, advice: ev.Advice | None) -> str:
    """For who hears that a fresh token did not help."""
    if advice is not None:
        return told(advice, words)
    return f"the mail server refused the access token ({words or 'no reason given'}); {REFUSED_TWICE}"


class Dialogue(ServerSide):
    """Common to all protocols: the client, the token, the two attempts. Protocols fill in the words."""

    bad_command_limit: ClassVar[int] = 3
    carries_response: ClassVar[re.Pattern[bytes]]
    """How a command begins that a SASL response may follow on the same line."""
    continuation: ClassVar[bytes] = b"+ "
    """What asks the client for its next SASL response; the space is needed."""
    common: ClassVar[ev.Capabilities]
    """What any server may be expected to offer, before the login says which one it is."""
    too_many_ends: ClassVar[bool] = False
    """Whether the reply to `Kind.TOO_MANY` ends the connection."""

    def __init__(self, terms: ev.Terms) -> None:
        super().__init__(terms)
        self._routed = terms.routed
        if terms.routed and terms.seen is None:
            self._capabilities = self.common
        self._placed = not terms.routed
        self._local_tls = terms.local_tls
        self._shaking_hands = False
        self._noted_plaintext = False
        self._client = LineBuffer()
        self._over = False
        self._met_client = False
        self._bad_commands = 0
        self._login: ev.Login | None = None
        self._answer: ev.Credential | LoginRefused | None = None
        self._client_steps = self._converse()

    # ---- what each protocol says

    @abstractmethod
    def _converse(self) -> Steps[None]:
        """Greets the client and answers it for ever; a login goes through `_log_in`."""

    @abstractmethod
    def _refusal(self, error: LoginRefused) -> bytes:
        """The reply to the login command that was refused."""

    @abstractmethod
    def _farewell(self, text: str) -> bytes:
        """What the client hears before we close; the reply to a login that is still being decided included."""

    @abstractmethod
    def _complaint(self, error: ProtocolError) -> bytes:
        """The reply to octets that cannot be read as a line, before we close."""

    @classmethod
    @abstractmethod
    def turned_away(cls, text: str) -> bytes:
        """What a client hears that may not even begin."""

    # ---- events

    @property
    def backlog(self) -> int:
        """Octets of the client that wait for the login to be decided."""
        return len(self._client)

    def handle(self, event: ev.Event) -> Iterable[ev.Effect]:
        """What should happen now. After `Relay` or `Hangup` nothing does."""
        if not self._over:
            self._take(event)
            self._run()
            if self._heard_too_much and not self._over:
                self._end_long_reply()
        effects, self._effects = self._effects, []
        return effects

    def close(self) -> None:
        """Ends its two halves, which refer to it: so it is freed at once, and not by the garbage collector."""
        self._client_steps.close()
        if self._server_steps is not None:
            self._server_steps.close()

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.ClientConnected():
                if self._capabilities is None and not self._routed:
                    self._dial()
            case ev.ClientData() if self._shaking_hands:
                self._hang_up("the client sent octets behind STARTTLS, in plaintext")
            case ev.ClientData(data):
                self._client.append(data)
                self._meet_client()
            case ev.ServerData(data):
                self._hear(data)
            case ev.ServerConnected(ready) if self._link is Link.DIALLING:
                self._link = Link.UP
                self._opened_ahead = ready is not None
                self._server_steps = self._serve(ready)
            case ev.TlsStarted(ev.Side.SERVER):
                self._secured = True
            case ev.TlsStarted(ev.Side.CLIENT):
                self._shaking_hands = False
            case ev.Routed(terms) if self._login is not None and not self._placed:
                self._placed = True
                self._go_to(terms)
            case ev.TokenReady(credential):
                self._answer = credential
            case ev.TokenFailed(error):
                self._answer = error
            case ev.ServerFailed(error):
                self._lose_server(error)
            case ev.ServerEOF() if self._link is not Link.DOWN:
                closed = ServerUnavailable("the mail server closed the connection; try again later")
                self._lose_server(closed, hung_up=True)
            case ev.ClientEOF():
                self._hang_up("the client closed the connection")
            case ev.Deadline():
                self._part("the login took too long", "login deadline")
            case ev.Draining():
                self._part("emailproxy is shutting down; try again later", "shutting down")

    def _run(self) -> None:
        """Both sides go on until neither gets any further."""
        self._moved = True
        while self._moved and not self._over:
            self._moved = False
            self._run_client()
            if self._server_steps is not None and not self._over:
                self._run_server(self._server_steps)

    def _run_client(self) -> None:
        try:
            next(self._client_steps)
        except ProtocolError as error:
            self._emit(ev.ToClient(self._complaint(error)))
            self._hang_up(str(error))

    def _end_long_reply(self) -> None:
        self._end(ServerUnavailable(TOO_LONG))

    def _run_server(self, steps: Steps[None]) -> None:
        try:
            next(steps)
        except LineTooLong:
            self._end_long_reply()
        except ProtocolError as error:
            self._lose_server(ServerUnavailable(f"the mail server's reply cannot be read: {error}"))
        except Broken as broken:
            advice = self._terms.advise(str(broken))
            refused = ServerUnavailable(f"{advice} ({broken})" if advice is not None else str(broken))
            if broken.fatal:
                self._end(refused)
            else:
                self._lose_server(refused, hung_up=broken.left)

    # ---- endings

    def _say(self, data: bytes) -> None:
        if not self._shaking_hands:  # the client would take it for TLS
            self._emit(ev.ToClient(data))

    def _hang_up(self, reason: str) -> None:
        self._emit(ev.Hangup(reason))
        self._over = True

    def _refuse(self, error: LoginRefused) -> None:
        """Tells client and log; the client may try again."""
        self._emit(ev.Refused(self._login, error))
        self._say(self._refusal(error))

    def _part(self, text: str, reason: str) -> None:
        """Ends the connection for a reason of our own."""
        if self._login is not None:
            self._emit(ev.Refused(self._login, ServerUnavailable(text)))
        self._say(self._farewell(text))
        self._hang_up(reason)

    def _end(self, error: LoginRefused) -> None:
        """Ends the connection because the server cannot be trusted with it."""
        self._emit(ev.Noted(str(error)) if self._login is None else ev.Refused(self._login, error))
        self._say(self._last_words(error))
        self._hang_up(str(error))

    def _last_words(self, error: LoginRefused) -> bytes:
        return self._farewell(str(error)) if self._login is None else self._refusal(error)

    def _bad_command(self, reply: bytes) -> None:
        """Answers a command that makes no sense; the connection ends when there were too many."""
        self._bad_commands += 1
        self._say(reply)
        if self._bad_commands >= self.bad_command_limit:
            self._say(self._farewell("too many bad commands"))
            self._hang_up("too many bad commands")

    # ---- the client

    def _meet_client(self) -> None:
        """With the client's first octets: does it speak our protocol at all? Then the server is dialled."""
        first = self._client.starts(LONGEST_SIGNATURE)
        if self._met_client or undecided(first):
            return
        stranger = recognise(first, self._local_tls)
        if stranger is not None:
            self._emit(ev.Noted(stranger))
            self._hang_up(stranger)
            return
        self._met_client = True
        if self._link is Link.DOWN and not self._routed:
            self._dial()

    def _client_line(self, limit: int | None = None) -> Steps[bytes]:
        """The client's next line without CRLF: a command, unless a `limit` is given. None comes any more at the end."""
        while (
            self._over
            or not self._met_client
            or (line := self._client.take_line(limit or self._command_limit())) is None
        ):
            yield
        self._moved = True
        return line

    def _command_limit(self) -> int:
        """By a command's beginning, however little of it has come."""
        wide = self.carries_response.match(self._client.starts(COMMAND_ROOM))
        return MAX_SASL_RESPONSE + COMMAND_ROOM if wide else MAX_LINE

    def _ask_client(self, prompt: bytes) -> Steps[bytes]:
        """A SASL challenge; returns the client's response."""
        self._say(self.continuation + prompt + b"\r\n")
        return (yield from self._client_line(MAX_SASL_RESPONSE))

    def _client_octets(self, count: int) -> Steps[bytes]:
        while (octets := self._client.take(count)) is None:
            yield
        self._moved = True
        return octets

    # ---- the client's TLS

    def _expect_the_end_of(self, command: str) -> None:
        """Octets behind STARTTLS were injected before TLS, or are a client's mistake (CVE-2021-33515): the end.

        Raises:
            ProtocolError: there are such octets.
        """
        if self._client.starts(1):
            raise ProtocolError(f"octets behind {command}")

    @property
    def _offers_tls(self) -> bool:
        return self._local_tls in {ev.LocalTls.OFFERED, ev.LocalTls.REQUIRED}

    def _why_no(self, command: str) -> str:
        if self._local_tls is ev.LocalTls.ACTIVE:
            return f"{command} is not needed: TLS is active already"
        return f"{command} is not offered on this port: switch it off in the client"

    def _secure_client(self, go_ahead: bytes) -> Steps[None]:
        """After that, nothing that was said before counts."""
        self._shaking_hands = True
        self._emit(ev.StartTls(ev.Side.CLIENT, go_ahead))
        yield from self._until(lambda: not self._shaking_hands)
        self._local_tls = ev.LocalTls.ACTIVE

    def _lacks_tls(self) -> bool:
        """Whether a login comes too early; the log hears of that once a connection."""
        if self._local_tls is not ev.LocalTls.REQUIRED:
            return False
        if not self._noted_plaintext:
            self._noted_plaintext = True
            self._emit(ev.Noted(f"the client logs in without TLS, which this port demands: {CHOOSE_STARTTLS}"))
        return True

    # ---- the login

    def _log_in(self, login: ev.Login, on_behalf_of: bytes = b"") -> Steps[None]:
        """Decides a login. Returns when it was refused and the client told; after success the dialogue is over.

        `on_behalf_of` is a command, its line end included, that is no login but needs one: it goes to the server in
        front of all that follows it, and the client hears the server's reply to that only.
        """
        self._login = login
        try:
            yield from self._try_to_log_in(login, on_behalf_of)
        except LoginRefused as error:
            self._refuse(error.with_traceback(None))  # it would keep this frame, and so the dialogue
            if self.too_many_ends and error.kind is Kind.TOO_MANY:
                self._hang_up(str(error))
        self._login = None

    def _try_to_log_in(self, login: ev.Login, on_behalf_of: bytes) -> Steps[None]:
        self._placed = not self._routed
        rejected: str | None = None
        advice: ev.Advice | None = None
        for _ in range(2):
            self._answer = None
            self._emit(ev.NeedToken(login, rejected))
            if self._placed and self._link is Link.DOWN:
                self._dial()
            yield from self._until(self._is_answered)
            if not isinstance(self._answer, ev.Credential):
                assert self._answer is not None
                raise self._answer
            verdict = yield from self._attempt(self._answer)
            if isinstance(verdict, Accepted):
                to_client = (b"" if on_behalf_of else verdict.reply) + self._server.take_rest()
                to_server = on_behalf_of + self._client.take_rest()
                self._emit(ev.Relay(login, self._answer, to_client, to_server))
                self._over = True
                return
            rejected, advice = verdict.text, self._terms.advise(verdict.text)
            if advice is not None and advice.temporary:  # a fresh token would be refused just the same
                raise ServerUnavailable(told(advice, rejected))
        assert rejected is not None
        raise TokenRefused(refused_twice(rejected, advice))

    def _is_answered(self) -> bool:
        """A refusal is enough; a credential is of no use before it is known where to."""
        return isinstance(self._answer, LoginRefused) or (self._placed and self._answer is not None)

    def _attempt(self, credential: ev.Credential) -> Steps[Accepted | Rejected]:
        """One login upstream. A server that hung up while we got the token is dialled once more.

        So is one whose connection was opened ahead, and had ended by now.
        """
        if self._hung_up:
            self._dial()
        verdict = yield from self._present(credential)
        if self._opened_ahead and self._was_too_late(verdict):
            self._dial(anew=True)
            verdict = yield from self._present(credential)
        self._opened_ahead = False
        if verdict is None:
            assert self._failure is not None
            raise self._failure
        return verdict

    def _present(self, credential: ev.Credential) -> Steps[Accepted | Rejected | None]:
        """The server's answer; None where it gave none, and cannot any more."""
        self._verdict = None
        self._offer = credential
        yield from self._until(lambda: self._verdict is not None or self._link is Link.DOWN)
        self._offer = None
        return self._verdict

    def _was_too_late(self, verdict: Accepted | Rejected | None) -> bool:
        """Whether what came is the end of the connection and no answer. POP3 has one word for both."""
        return self._hung_up if verdict is None else isinstance(verdict, Rejected) and verdict.misunderstood

    def _known(self) -> Steps[ev.Capabilities | None]:
        """The capabilities, as soon as they are known; None where the server cannot be reached."""
        yield from self._until(lambda: self._capabilities is not None or self._link is Link.DOWN)
        return self._capabilities
