"""What is known about a mail server's refusal: who asks for a fresh token, and what the client hears."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from emailproxy.errors import Kind, ServerUnavailable, TokenRefused
from emailproxy.wire import events as ev
from emailproxy.wire.dialogue import REFUSED_TWICE
from emailproxy.wire.serverside import with_challenge
from tests.wire.driver import (
    FRESH,
    LOGIN,
    PROTOCOLS,
    SERVERS,
    TOKEN,
    Talk,
    after_prompt,
    code,
    credential,
    is_one_clean_line,
    logged_in,
    remembering,
)

BUSY = ev.Advice("the server has too much to do", "wait 5 min", temporary=True)
CLOSED = ev.Advice("the protocol is off for this mailbox", "switch it on in the portal")


def knowing(advice: ev.Advice, about: str = "") -> Callable[[str], ev.Advice | None]:
    return lambda text: advice if about in text else None


def talk_of(protocol: str, verdicts: list[str], advise: Callable[[str], ev.Advice | None]) -> Talk:
    server = SERVERS[protocol](verdicts=verdicts, extras=["SASL-IR"])
    return Talk(protocol, server, answers=[credential(), credential(FRESH)] * 2, terms=ev.Terms(advise=advise))


def hears(talk: Talk, protocol: str) -> bytes:
    return after_prompt(protocol, talk.client(LOGIN[protocol]))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refusal_that_passes_by_itself_asks_for_no_fresh_token(protocol: str) -> None:
    talk = talk_of(protocol, ["no", "yes"], knowing(BUSY, "status 401"))
    heard = hears(talk, protocol)
    assert heard.startswith(code(protocol, Kind.UNAVAILABLE) + b"the server has too much to do; wait 5 min (the mail ")
    assert b"status 401" in heard
    assert is_one_clean_line(heard)
    assert [asked.rejected for asked in talk.asked] == [None]
    assert [type(refused.error) for refused in talk.refused] == [ServerUnavailable]
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == FRESH
    assert talk.dialled == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_known_is_told_after_the_second_refusal(protocol: str) -> None:
    talk = talk_of(protocol, ["no", "no"], knowing(CLOSED, "status 401"))
    heard = hears(talk, protocol)
    known = b"the protocol is off for this mailbox; switch it on in the portal (the mail server says: "
    assert heard.startswith(code(protocol, Kind.TOKEN_REFUSED) + known)
    assert REFUSED_TWICE.encode() not in heard
    assert len(talk.asked) == 2
    assert [type(refused.error) for refused in talk.refused] == [TokenRefused]
    assert "status 401, schemes Bearer, scope mail" in str(talk.refused[0].error)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_second_refusal_may_be_the_one_that_passes(protocol: str) -> None:
    """The first says nothing; the fresh token is refused because there are too many connections."""
    server = SERVERS[protocol](verdicts=["no", "no"])
    said = iter(["no", "too many"])
    judge, advise = server.judge, knowing(BUSY, "too many")
    server.judge = lambda verdict: judge(verdict).replace(b" no\r\n", f" {next(said)}\r\n".encode())  # type: ignore[method-assign]
    talk = Talk(protocol, server, answers=[credential(), credential(FRESH)], terms=ev.Terms(advise=advise))
    assert hears(talk, protocol).startswith(code(protocol, Kind.UNAVAILABLE) + b"the server has too much to do")
    assert len(talk.asked) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_of_an_unknown_refusal_the_usual_suspects_are_named(protocol: str) -> None:
    talk = talk_of(protocol, ["no", "no"], knowing(CLOSED, "never said"))
    heard = hears(talk, protocol)
    assert b"the mail server refused the access token (" in heard
    assert REFUSED_TWICE.encode() in heard


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_long_words_of_a_server_cut_no_advice(protocol: str) -> None:
    talk = talk_of(protocol, ["no", "no"], knowing(CLOSED))
    judge = talk.server.judge  # type: ignore[union-attr]
    long = b" " + b"x\x1b" * 2000 + b"\r\n"
    talk.server.judge = lambda verdict: judge(verdict).replace(b" no\r\n", long)  # type: ignore[union-attr,method-assign]
    heard = hears(talk, protocol)
    assert str(CLOSED).encode() in heard
    assert is_one_clean_line(heard)


def test_a_long_refusal_leaves_room_for_the_challenge() -> None:
    assert with_challenge("w" * 400, "status 400") == "w" * 284 + "... (status 400)"
    assert with_challenge("no", "c" * 400) == f"no ({'c' * 147}...)"
    assert with_challenge("w" * 400, "") == "w" * 297 + "..."


NOT_NOW = {
    "IMAP": ["a1 NO [UNAVAILABLE] later", "a1 NO [LIMIT] later", "a1 NO [INUSE] later", "a1 NO [SERVERBUG] later",
             "a1 BAD Request is throttled. Suggested Backoff Time: 89117 milliseconds, later", "* BYE later"],
    "POP3": ["-ERR [SYS/TEMP] later", "-ERR [IN-USE] later", "-ERR [LOGIN-DELAY] later"],
    "SMTP": ["454 4.7.0 later", "432 4.3.2 later", "421 4.3.0 later"],
}  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("protocol", "reply"), [(name, reply) for name in PROTOCOLS for reply in NOT_NOW[name]])
def test_a_server_that_says_not_now_burns_no_token(protocol: str, reply: str, known: bool) -> None:
    talk = talk_of(protocol, ["no", "yes"], knowing(BUSY, "later" if known else "never said"))
    talk.server.sasl = lambda response, prompt: reply.encode() + b"\r\n"  # type: ignore[union-attr,method-assign]
    heard = hears(talk, protocol)
    assert heard.startswith(code(protocol, Kind.UNAVAILABLE))
    assert (b"the server has too much to do; wait 5 min (the mail server" in heard) == known
    assert b"later" in heard
    assert [asked.rejected for asked in talk.asked] == [None]
    assert not talk.over


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_greeting_that_refuses_is_explained_too(protocol: str) -> None:
    greeting = {"IMAP": b"* BYE too busy\r\n", "POP3": b"-ERR too busy\r\n", "SMTP": b"421 too busy\r\n"}[protocol]
    terms = dataclasses.replace(remembering(protocol), advise=knowing(BUSY, "too busy"))
    talk = Talk(protocol, terms=terms, answers=[credential(TOKEN)])
    talk.client(LOGIN[protocol])
    heard = len(talk.said)
    talk.serve(greeting)
    assert talk.said[heard:].startswith(
        code(protocol, Kind.UNAVAILABLE) + b"the server has too much to do; wait 5 min ("
    )
