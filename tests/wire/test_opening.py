"""Connections that are opened ahead: how far they go, and what ends them; and logins that take one."""

from __future__ import annotations

import pytest

from emailproxy.errors import Kind
from emailproxy.wire import events as ev
from emailproxy.wire.lines import MAX_SERVER_REPLY
from emailproxy.wire.opening import ImapOpening, Opening, Pop3Opening, SmtpOpening
from tests.wire.driver import (
    CHUNKS,
    FRESH,
    GREETING,
    LOGIN,
    PROTOCOLS,
    REMEMBERED,
    SERVERS,
    TOKEN,
    WHOLE,
    Talk,
    code,
    credential,
    logged_in,
    remembering,
)
from tests.wire.servers import Server

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

OPENINGS: dict[str, type[Opening]] = {"IMAP": ImapOpening, "POP3": Pop3Opening, "SMTP": SmtpOpening}
OFFER: dict[str, ev.Capabilities] = {
    "IMAP": ("IMAP4REV1", "SASL-IR", "AUTH=XOAUTH2"),
    "POP3": ("TOP", "UIDL", "STLS", "SASL XOAUTH2", "SASL-IR"),
    "SMTP": ("SASL-IR", "AUTH XOAUTH2"),
}
"""Of the servers below, after TLS."""


def server_for(protocol: str, *, starttls: bool = False, verdicts: tuple[str, ...] = ("yes",)) -> Server:
    return SERVERS[protocol](starttls=starttls, extras=["SASL-IR"], verdicts=verdicts)


def opened(opening: Opening, server: Server, chunk: int = WHOLE) -> list[ev.Effect]:
    """All that comes of a connection to that server."""
    effects: list[ev.Effect] = []
    waiting: list[ev.Event] = [ev.ServerConnected(), *pieces(server.greet(), chunk)]
    while waiting:
        for effect in opening.handle(waiting.pop(0)):
            effects.append(effect)
            match effect:
                case ev.ToServer(data):
                    waiting += pieces(server.hear(data), chunk)
                case ev.StartTls():
                    waiting.append(ev.TlsStarted(ev.Side.SERVER))
    return effects


def pieces(data: bytes, chunk: int) -> list[ev.Event]:
    return [ev.ServerData(data[start : start + chunk]) for start in range(0, len(data), chunk)]


def begun(protocol: str, *said: bytes, starttls: bool = False) -> list[ev.Effect]:
    """What a connection comes to whose server says this, whatever it hears, and shakes hands if asked to."""
    opening = OPENINGS[protocol](ev.Terms(starttls=starttls))
    effects = [*opening.handle(ev.ServerConnected())]
    for data in said:
        effects += opening.handle(ev.ServerData(data))
        if any(isinstance(effect, ev.StartTls) for effect in effects):
            effects += opening.handle(ev.TlsStarted(ev.Side.SERVER))
    return effects


def reason(effects: list[ev.Effect]) -> str:
    """Why the connection was given up, and only once."""
    [ending] = [effect for effect in effects if isinstance(effect, ev.Hangup)]
    assert effects[-1] is ending
    return ending.reason


# ---- the opening


@pytest.mark.parametrize("starttls", [False, True], ids=["TLS", "STARTTLS"])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_it_goes_as_far_as_a_login_may_go(protocol: str, chunk: int, starttls: bool) -> None:
    server = server_for(protocol, starttls=starttls)
    effects = opened(OPENINGS[protocol](ev.Terms(starttls=starttls)), server, chunk)
    assert effects[-2:] == [ev.Learned(OFFER[protocol]), ev.Ready(OFFER[protocol])]
    assert not any(line.startswith(b"AUTH") for line in server.heard)


def test_the_server_is_asked_even_where_its_capabilities_are_remembered(protocol: str) -> None:
    effects = opened(OPENINGS[protocol](remembering(protocol)), server_for(protocol))
    assert effects[-1] == ev.Ready(OFFER[protocol])


def test_a_server_that_refuses_is_given_up(protocol: str) -> None:
    no = {"IMAP": b"* BYE full\r\n", "POP3": b"-ERR full\r\n", "SMTP": b"554 full\r\n"}[protocol]
    assert "the mail server refuses connections: " in reason(begun(protocol, no))


def test_a_server_that_closes_is_given_up(protocol: str) -> None:
    opening = OPENINGS[protocol](ev.Terms())
    opening.handle(ev.ServerConnected())
    assert reason([*opening.handle(ev.ServerEOF())]) == "the mail server closed the connection"
    assert not [*opening.handle(ev.ServerData(GREETING[protocol]))]


def test_a_reply_that_is_too_long_or_no_line_is_given_up(protocol: str) -> None:
    assert "cannot be read" in reason(begun(protocol, b"x" * (MAX_SERVER_REPLY + 1)))
    assert "cannot be read" in reason(begun(protocol, b"* OK no carriage return\n"))
    many = {"IMAP": b"* 1 EXISTS\r\n", "POP3": b"+OK\r\n", "SMTP": b"250-SIZE\r\n"}[protocol] * 20_000
    endless = reason(begun(protocol, GREETING[protocol], many))
    assert endless == "the mail server's reply before login is longer than 64 KiB"


def test_octets_behind_starttls_are_given_up(protocol: str) -> None:
    go = {"IMAP": b"EP OK go\r\n", "POP3": b"+OK go\r\n", "SMTP": b"220 go\r\n"}[protocol]
    before = [GREETING[protocol], *([b"250-hello\r\n250 STARTTLS\r\n"] if protocol == "SMTP" else [])]
    effects = begun(protocol, *before, go + b"* injected\r\n", starttls=True)
    assert "tampered with" in reason(effects)
    assert not any(isinstance(effect, ev.StartTls) for effect in effects)


@pytest.mark.parametrize("together", [False, True])
def test_a_server_that_speaks_unasked_is_given_up(protocol: str, together: bool) -> None:
    opening, server = OPENINGS[protocol](ev.Terms()), server_for(protocol)
    if together:  # in one segment with the last thing that it was asked for
        hear, greet = server.hear, server.greet
        server.hear = lambda data: hear(data) + b"* BYE \x00tired\r\n"  # type: ignore[method-assign]
        if protocol == "IMAP":
            server.greet = lambda: greet() + b"* BYE \x00tired\r\n"  # type: ignore[method-assign]
        effects = opened(opening, server)
        assert ev.Ready(OFFER[protocol]) in effects
    else:
        opened(opening, server)
        effects = [*opening.handle(ev.ServerData(b"* BYE \x00tired\r\n"))]
    assert reason(effects) == "the mail server said, unasked: * BYE tired"
    assert not [*opening.handle(ev.ServerEOF())]


# ---- a login that takes one


def taking(protocol: str, server: Server | None, *, tokens: tuple[str, ...] = (TOKEN, FRESH)) -> Talk:
    """A client whose session finds one connection ready, and its login sent."""
    answers = [credential(token) for token in tokens]
    talk = Talk(protocol, server, answers=answers, terms=remembering(protocol), ready=[OFFER[protocol]])
    talk.client(LOGIN[protocol])
    return talk


def test_nothing_but_the_login_is_sent(protocol: str) -> None:
    server = server_for(protocol)
    talk = taking(protocol, server)
    assert logged_in(talk) == TOKEN
    assert talk.commands == {"IMAP": 1, "POP3": 2, "SMTP": 1}[protocol]
    assert talk.learned == [offer for offer in [OFFER[protocol]] if offer != REMEMBERED[protocol]]


def test_a_client_that_waits_for_the_capabilities_gets_them(protocol: str) -> None:
    talk = Talk(protocol, server_for(protocol), answers=[credential()], ready=[OFFER[protocol]])
    assert talk.dialled == 1
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN


def test_a_connection_that_was_dead_is_dialled_anew_and_nobody_notices(protocol: str) -> None:
    talk = taking(protocol, None)
    assert talk.sent
    before = talk.said
    talk.server = server_for(protocol)
    talk.feed(ev.ServerEOF())
    assert logged_in(talk) == TOKEN
    assert [effect.anew for effect in talk.effects if isinstance(effect, ev.Connect)] == [False, True]
    assert not talk.refused
    assert len(talk.asked) == 1
    assert talk.said == before


GOODBYES = {
    "IMAP": b"* BYE Disconnected for inactivity.\r\n",
    "POP3": b"-ERR Disconnected for inactivity.\r\n",
    "SMTP": b"421 4.4.2 Timeout\r\n",
}


def test_so_is_one_whose_server_took_its_leave_meanwhile(protocol: str) -> None:
    talk = taking(protocol, None)
    talk.server = server_for(protocol)
    talk.feed(ev.ServerData(GOODBYES[protocol]))
    assert logged_in(talk) == TOKEN
    assert len(talk.asked) == 1


def test_one_that_ended_while_the_token_was_awaited_is_dialled_once_more(protocol: str) -> None:
    talk = taking(protocol, None, tokens=())
    talk.feed(ev.ServerEOF())
    talk.server = server_for(protocol)
    talk.feed(ev.TokenReady(credential()))
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 2


def test_it_is_dialled_anew_only_once(protocol: str) -> None:
    talk = taking(protocol, None)
    talk.feed(ev.ServerEOF())
    before = len(talk.said)
    talk.feed(ev.ServerEOF())
    assert talk.dialled == 2
    assert talk.said[before:].startswith(code(protocol, Kind.UNAVAILABLE))


def test_a_refused_token_is_no_reason_to_dial_anew(protocol: str) -> None:
    server = server_for(protocol, verdicts=("no", "yes"))
    talk = taking(protocol, server)
    assert logged_in(talk) == FRESH
    assert talk.dialled == 1


def test_nor_is_a_server_that_is_not_available(protocol: str) -> None:
    talk = taking(protocol, server_for(protocol, verdicts=("later",)))
    assert talk.dialled == 1
    assert talk.refused[0].error.kind is Kind.UNAVAILABLE


def test_nor_is_one_that_hangs_up_after_it_has_answered(protocol: str) -> None:
    talk = taking(protocol, server_for(protocol, verdicts=("no", "yes")), tokens=(TOKEN,))
    assert len(talk.asked) == 2
    server, talk.server = talk.server, None
    talk.feed(ev.TokenReady(credential(FRESH)))
    talk.feed(ev.ServerEOF())
    assert server is not None
    assert talk.dialled == 1
    assert talk.refused[0].error.kind is Kind.UNAVAILABLE


def test_a_leave_on_a_connection_of_its_own_refuses_the_login(protocol: str) -> None:
    talk = Talk(protocol, answers=[credential()], terms=ev.Terms(seen=REMEMBERED[protocol]))
    talk.client(LOGIN[protocol])
    talk.serve(GREETING[protocol])
    if protocol == "SMTP":
        talk.serve(b"250-hello\r\n250 AUTH XOAUTH2\r\n")
    talk.serve(b"* BYE gone\r\n" if protocol == "IMAP" else b"421 gone\r\n" if protocol == "SMTP" else b"+ \r\n")
    talk.feed(ev.ServerEOF())
    assert talk.dialled == 1
    assert talk.refused[0].error.kind is Kind.UNAVAILABLE
