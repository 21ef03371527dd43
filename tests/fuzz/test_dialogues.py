"""Arbitrary octets in arbitrary splits, from both sides, and every event at any time: only replies or a clean close."""

from __future__ import annotations

import base64
import re
from collections import deque
from itertools import chain
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emailproxy.errors import ConsentRequired, ServerUnavailable, TooManyLogins, WrongPassword
from emailproxy.wire import events as ev
from emailproxy.wire.lines import MAX_SERVER_REPLY
from tests.wire.driver import DIALOGUES, LOGIN, PASSWORD, PROTOCOLS, REMEMBERED, SERVERS, TOKEN, credential

FUZZ = settings(
    max_examples=400,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

PLAIN = base64.b64encode(f"\0u@x.test\0{PASSWORD}".encode())
WORD = base64.b64encode(PASSWORD.encode())
CLIENT = {
    "IMAP": [
        b"a NOOP\r\n", b"a CAPABILITY\r\n", b"a LOGOUT\r\n", b"a STARTTLS\r\n", b'a ID ("x" {1+}\r\ny)\r\n',
        b"a LOGIN {8}\r\n", b"u@x.test {12+}\r\n", PASSWORD.encode() + b"\r\n", b"a LOGIN u@x.test {12}\r\n",
        b'a LOGIN "u" "' + PASSWORD.encode() + b'"\r\n', b"a AUTHENTICATE PLAIN ", b"a AUTHENTICATE PLAIN\r\n",
        b"a AUTHENTICATE LOGIN\r\n", b"EP LOGIN u p\r\n", b"{0+}\r\n", b"{4097+}\r\n", b"{99999}\r\n", b'"',
    ],
    "POP3": [
        b"CAPA\r\n", b"NOOP\r\n", b"QUIT\r\n", b"STLS\r\n", b"USER u@x.test\r\n",
        b"PASS " + PASSWORD.encode() + b"\r\n", b"PASS \r\n",
        b"AUTH\r\n", b"AUTH PLAIN ", b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"APOP u x\r\n", b"STAT\r\n",
    ],
    "SMTP": [
        b"EHLO x\r\n", b"HELO x\r\n", b"NOOP\r\n", b"RSET\r\n", b"QUIT\r\n", b"STARTTLS\r\n", b"AUTH PLAIN ",
        b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"AUTH LOGIN dQ==\r\n", b"MAIL FROM:<a@b>\r\n", b"DATA\r\n",
        b"BDAT 3\r\n", b"GET / HTTP/1.1\r\n",
    ],
}  # fmt: skip
EITHER = [
    PLAIN + b"\r\n",
    WORD + b"\r\n",
    b"=\r\n",
    b"*\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b" ",
    b"x" * 9000,
]
STRANGERS = [b"\x16\x03\x01", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"]
SERVER = {
    "IMAP": [
        b"* OK hello\r\n", b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hello\r\n", b"* PREAUTH x\r\n", b"+\r\n",
        b"* BYE x\r\n", b"* CAPABILITY AUTH=OAUTHBEARER X\rY\r\n", b"EP OK x\r\n", b"EP BAD x\r\n", b"+ e30=\r\n",
        b"a OK x\r\n", b"a NO x\r\n", b"a BAD x\r\n", b"a1 NO [UNAVAILABLE] x\r\n", b"a1 OK x\r\n", b"a1 BAD x\r\n",
    ],
    "POP3": [
        b"+OK\r\n", b"+OK list\r\nTOP\r\nSASL XOAUTH2\r\n.\r\n", b"SASL PLAIN\r\n", b".\r\n", b"-ERR x\r\n",
        b"-ERR [SYS/TEMP] x\r\n", b"+ \r\n", b"+ e30=\r\n",
    ],
    "SMTP": [
        b"220 x\r\n", b"220-x\r\n220 y\r\n", b"421 x\r\n", b"250-x\r\n250-A\rB\r\n250 AUTH XOAUTH2\r\n",
        b"250-x\r\n250 STARTTLS\r\n", b"334 \r\n", b"334 e30=\r\n", b"235 x\r\n", b"535 x\r\n", b"454 x\r\n", b"250",
    ],
}  # fmt: skip
ANY_TIME: list[ev.Event] = [
    ev.ClientConnected(),
    ev.ServerConnected(),
    ev.ServerFailed(ServerUnavailable("down\r\n")),
    ev.ServerEOF(),
    ev.TlsStarted(ev.Side.SERVER),
    ev.TokenReady(credential()),
    ev.TokenFailed(WrongPassword("wrong\r\n\0")),
    ev.TokenFailed(ConsentRequired("visit " + "\u00f6" * 600)),
    ev.TokenFailed(TooManyLogins("slow down")),
]
LAST: list[ev.Event] = [ev.ClientEOF(), ev.Deadline(), ev.Draining()]
HONEST = "the network's next answer"
MOST_STEPS = 14  # of such answers, from the first octet to the relay

BEFORE_TLS = re.compile(rb"(?:EP STARTTLS|STLS|STARTTLS|EHLO \[127\.0\.0\.1\])\r\n")
LINES = re.compile(rb"(?:[\x20-\x7e]*\r\n)+")
CAPABILITIES = re.compile(rb"\* (?:OK \[)?CAPABILITY ")


def octets(fragments: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from(fragments), st.sampled_from(EITHER), st.binary(max_size=20))


def actions(protocol: str) -> st.SearchStrategy[list[object]]:
    """What happens, in any order; every second time it is what a network would do next, so that deep states come."""
    login = st.just(ev.ClientData(LOGIN[protocol]))
    client = octets(CLIENT[protocol]).map(ev.ClientData)
    server = octets(SERVER[protocol]).map(ev.ServerData)
    honest = st.just(HONEST)
    at_any_time = st.sampled_from(ANY_TIME)
    usual = st.one_of(honest, honest, honest, honest, login, client, server, at_any_time)
    on_the_way = st.integers(0, MOST_STEPS).map(lambda steps: [ev.ClientData(LOGIN[protocol]), *[HONEST] * steps])
    stranger = st.sampled_from(STRANGERS).map(lambda data: [ev.ClientData(data)])
    first: st.SearchStrategy[list[object]] = st.one_of(st.just([]), on_the_way, on_the_way, stranger)
    last = st.sampled_from([[], [], [], *([event] for event in LAST)])
    parts = st.tuples(first, st.lists(usual, max_size=40), last, st.lists(usual, max_size=3))
    return parts.map(lambda lists: list(chain.from_iterable(lists)))


class Checked:
    """A dialogue under watch, and a network that knows what it would answer."""

    def __init__(self, protocol: str, terms: ev.Terms, server_options: dict[str, object]) -> None:
        self.starttls = terms.starttls
        self.dialogue = DIALOGUES[protocol](terms)
        self.server = SERVERS[protocol](starttls=terms.starttls, **server_options)  # type: ignore[arg-type]
        self.server.verdicts.extend(["yes"] * 100)
        self.answers: deque[ev.Event] = deque()
        self.shaking_hands = False
        self.secured = not self.starttls
        self.over = self.relayed = False

    def act(self, action: object, chunk: int) -> None:
        if action == HONEST:
            if self.answers:
                self.feed(self.answers.popleft())
            return
        match action:
            case ev.ClientData(data) | ev.ServerData(data):
                for start in range(0, len(data), chunk):
                    self.feed(type(action)(data[start : start + chunk]))
            case _:
                self.feed(action)  # type: ignore[arg-type]

    def feed(self, event: ev.Event) -> None:
        if isinstance(event, ev.TlsStarted) and self.shaking_hands:
            self.secured, self.shaking_hands = True, False
        for effect in self.dialogue.handle(event):
            assert not self.over, f"{effect} after the end"
            assert isinstance(effect, get_args(ev.Effect))
            self.check(effect)
        assert len(self.dialogue._server) <= 2 * MAX_SERVER_REPLY

    def check(self, effect: ev.Effect) -> None:
        match effect:
            case ev.ToClient(data):
                assert LINES.fullmatch(data), data
                assert all(len(line) <= 512 or CAPABILITIES.match(line) for line in data.splitlines(keepends=True))
            case ev.ToServer(data):
                self.check_secrets(data)
                self.answers.extend([ev.ServerData(answer)] if (answer := self.server.hear(data)) else [])
            case ev.Connect():
                self.secured, self.shaking_hands = not self.starttls, False
                self.answers.clear()
                self.answers.extend([ev.ServerConnected(), ev.ServerData(self.server.greet())])
            case ev.StartTls(side):
                assert side is ev.Side.SERVER
                self.shaking_hands = True
                self.answers.append(ev.TlsStarted(side))
            case ev.NeedToken():
                self.answers.append(ev.TokenReady(credential()))
            case ev.Relay() | ev.Hangup():
                self.over, self.relayed = True, isinstance(effect, ev.Relay)

    def check_secrets(self, data: bytes) -> None:
        assert self.secured or BEFORE_TLS.fullmatch(data), data
        words = [word for word in data.split() if re.fullmatch(rb"[A-Za-z0-9+/]+=*", word)]
        decoded = b" ".join(base64.b64decode(word + b"==") for word in words if len(word.rstrip(b"=")) % 4 != 1)
        assert PASSWORD.encode() not in data + decoded
        assert self.secured or TOKEN.encode() not in data + decoded


OPTIONS = st.fixed_dictionaries(
    {
        "verdicts": st.lists(st.sampled_from(["yes", "no", "no", "later"]), max_size=4),
        "mechanisms": st.sampled_from([["XOAUTH2"], ["OAUTHBEARER"], ["PLAIN"]]),
        "extras": st.sampled_from([[], ["SASL-IR"]]),
    }
)


@pytest.mark.parametrize("starttls", [False, True], ids=["TLS", "STARTTLS"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_but_replies_or_a_clean_close(protocol: str, starttls: bool) -> None:
    @FUZZ
    @given(
        actions(protocol),
        OPTIONS,
        st.sampled_from([None, REMEMBERED[protocol]]),
        st.sampled_from([1, 2, 3, 7, 10**6]),
        st.booleans(),
    )
    def run(
        happening: list[object],
        options: dict[str, object],
        seen: ev.Capabilities | None,
        chunk: int,
        connected: bool,
    ) -> None:
        checked = Checked(protocol, ev.Terms(starttls=starttls, seen=seen), options)
        for action in ([ev.ClientConnected()] if connected else []) + happening:
            checked.act(action, chunk)

    run()


@pytest.mark.parametrize("starttls", [False, True], ids=["TLS", "STARTTLS"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_networks_own_answers_lead_all_the_way(protocol: str, starttls: bool) -> None:
    """So that what the fuzzer mixes in comes in every state up to the relay."""
    checked = Checked(protocol, ev.Terms(starttls=starttls), {"verdicts": ["no"], "mechanisms": ["OAUTHBEARER"]})
    for action in [ev.ClientConnected(), ev.ClientData(LOGIN[protocol]), *[HONEST] * MOST_STEPS]:
        checked.act(action, 1)
    assert len(checked.server.responses) == 2
    assert checked.relayed


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_how_octets_are_split_changes_nothing(protocol: str) -> None:
    """But behind STARTTLS, where octets in the same segment end the connection."""
    fragments = [fragment for fragment in CLIENT[protocol] if b"TLS" not in fragment and b"STLS" not in fragment]

    @FUZZ
    @given(st.lists(octets([*fragments, LOGIN[protocol]]), max_size=12), st.integers(1, 40))
    def run(pieces: list[bytes], chunk: int) -> None:
        data = b"".join(pieces)
        if b"TLS" in data.upper() or b"STLS" in data.upper():
            return
        outcomes = []
        for size in (chunk, 10**9):
            dialogue = DIALOGUES[protocol](ev.Terms(seen=REMEMBERED[protocol]))
            effects = [*dialogue.handle(ev.ClientConnected())]
            for start in range(0, len(data), size):
                effects += dialogue.handle(ev.ClientData(data[start : start + size]))
            said = b"".join(effect.data for effect in effects if isinstance(effect, ev.ToClient))
            over = any(isinstance(effect, ev.Hangup) for effect in effects)
            logins = [effect.login for effect in effects if isinstance(effect, ev.NeedToken)]
            outcomes.append((said, logins, over, 0 if over else dialogue.backlog))
        assert outcomes[0] == outcomes[1]

    run()
