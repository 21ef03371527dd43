"""Every way to end a connection before its login is decided, in every state and all three protocols."""

from __future__ import annotations

import base64
import gc
import weakref
from collections.abc import Callable

import pytest

from emailproxy.errors import (
    Kind,
    ServerUnavailable,
    WrongPassword,
)
from emailproxy.wire import events as ev
from tests.wire.driver import (
    DIALOGUES,
    LOGIN,
    PROTOCOLS,
    SERVERS,
    TOKEN,
    Talk,
    credential,
    is_one_clean_line,
    logged_in,
    remembering,
)

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

PROMPT = {"IMAP": b"a1 AUTHENTICATE PLAIN\r\n", "POP3": b"AUTH PLAIN\r\n", "SMTP": b"AUTH PLAIN\r\n"}


def greeted(protocol: str) -> Talk:
    return Talk(protocol, terms=remembering(protocol))


def in_a_command(protocol: str) -> Talk:
    talk = greeted(protocol)
    talk.client(LOGIN[protocol][:-3])
    return talk


def prompted(protocol: str) -> Talk:
    talk = greeted(protocol)
    talk.client(PROMPT[protocol] + b"AHUA")
    return talk


def dialling(protocol: str) -> Talk:
    talk = Talk(protocol, dials=False, answers=[credential()])
    talk.client(LOGIN[protocol])
    return talk


def awaiting_a_token(protocol: str) -> Talk:
    talk = Talk(protocol, SERVERS[protocol]())
    talk.client(LOGIN[protocol] + b"more")
    return talk


def awaiting_a_fresh_token(protocol: str) -> Talk:
    talk = Talk(protocol, SERVERS[protocol](verdicts=["no"]), answers=[credential()])
    talk.client(LOGIN[protocol])
    return talk


def shaking_hands(protocol: str) -> Talk:
    server, terms = SERVERS[protocol](starttls=True), remembering(protocol, starttls=True)
    talk = Talk(protocol, server, answers=[credential()], shakes_hands=False, terms=terms)
    talk.client(LOGIN[protocol])
    return talk


def in_the_exchange(protocol: str) -> Talk:
    talk = Talk(protocol, SERVERS[protocol](), answers=[credential()])
    talk.server.sasl = lambda response, prompt: b""  # type: ignore[union-attr,method-assign]
    talk.client(LOGIN[protocol])
    return talk


def greeted_late(protocol: str) -> Talk:
    """Not even greeted, where the greeting waits for the server's capabilities."""
    return Talk(protocol, dials=False)


IDLE = [greeted, in_a_command, prompted]
DECIDING = [awaiting_a_token, awaiting_a_fresh_token, shaking_hands, in_the_exchange]


@pytest.mark.parametrize("scene", [*IDLE, *DECIDING, dialling, greeted_late])
def test_a_client_that_leaves_ends_everything(protocol: str, scene: Callable[[str], Talk]) -> None:
    talk = scene(protocol)
    assert talk.feed(ev.ClientEOF()) == [ev.Hangup("the client closed the connection")]


@pytest.mark.parametrize("event", [ev.Deadline(), ev.Draining()])
@pytest.mark.parametrize("scene", [*IDLE, greeted_late])
def test_who_has_not_logged_in_is_told_goodbye(protocol: str, scene: Callable[[str], Talk], event: ev.Event) -> None:
    talk = scene(protocol)
    said, hangup = talk.feed(event)
    assert isinstance(said, ev.ToClient)
    assert is_one_clean_line(said.data)
    assert said.data.startswith({"IMAP": b"* BYE ", "POP3": b"-ERR [SYS/TEMP] ", "SMTP": b"421 4.4.2 "}[protocol])
    assert isinstance(hangup, ev.Hangup)


@pytest.mark.parametrize("event", [ev.Deadline(), ev.Draining()])
@pytest.mark.parametrize("scene", DECIDING)
def test_whose_login_is_being_decided_is_told_that_it_failed(
    protocol: str, scene: Callable[[str], Talk], event: ev.Event
) -> None:
    talk = scene(protocol)
    refused, said, hangup = talk.feed(event)
    assert isinstance(refused, ev.Refused)
    assert refused.login is not None
    assert refused.error.kind is Kind.UNAVAILABLE
    assert isinstance(said, ev.ToClient)
    first = {"IMAP": b"a1 NO [UNAVAILABLE] ", "POP3": b"-ERR [SYS/TEMP] ", "SMTP": b"421 4.4.2 "}[protocol]
    lines = said.data.removesuffix(b"\r\n").split(b"\r\n")
    assert lines[0].startswith(first)
    assert len(lines) == (2 if protocol == "IMAP" else 1)
    assert isinstance(hangup, ev.Hangup)


@pytest.mark.parametrize("event", [ev.Deadline(), ev.Draining()])
def test_a_login_that_was_refused_is_not_refused_again_at_the_end(protocol: str, event: ev.Event) -> None:
    talk = Talk(protocol, answers=[WrongPassword("wrong")], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    said, _ = talk.feed(event)
    assert isinstance(said, ev.ToClient)
    assert is_one_clean_line(said.data)
    assert len(talk.refused) == 1


def test_too_many_bad_commands_end_the_connection_and_what_is_piped_behind_them(protocol: str) -> None:
    limit = {"IMAP": 3, "POP3": 3, "SMTP": 10}[protocol]
    talk = Talk(protocol, terms=remembering(protocol))
    before = len(talk.said)
    talk.client(b"x XYZZY\r\n" * (limit - 1))
    assert not talk.over
    talk.client(b"x XYZZY\r\n" * 2 + LOGIN[protocol])
    assert talk.hung_up
    replies = talk.said[before:].removesuffix(b"\r\n").split(b"\r\n")
    assert len(replies) == limit + 1
    assert b"too many bad commands" in replies[-1]
    assert talk.asked == []


def test_cancelling_over_and_over_is_stopped(protocol: str) -> None:
    """Bad input 10 (CVE-2017-15132)."""
    talk = Talk(protocol, terms=remembering(protocol))
    for _ in range(100_000):
        talk.client(PROMPT[protocol] + b"*\r\n")
        if talk.over:
            break
    assert talk.hung_up
    cancelled = sum(b"cancelled" in effect.data for effect in talk.effects if isinstance(effect, ev.ToClient))
    assert cancelled == {"IMAP": 3, "POP3": 3, "SMTP": 10}[protocol]
    assert len(talk.dialogue._client) == 0


@pytest.mark.parametrize("length", [12_288, 12_289])
def test_a_response_has_its_limit_prompted_and_inline(protocol: str, length: int) -> None:
    """Bad input 23: one octet more closes."""
    longest = base64.b64encode(b"\0u\0" + b"p" * (12_288 // 4 * 3 - 3)) + b"A" * (length - 12_288)
    for chunk in (1, 4096, 10**6):
        for command in (PROMPT[protocol] + longest, PROMPT[protocol][:-2] + b" " + longest):
            talk = Talk(protocol, terms=remembering(protocol))
            heard = talk.client(command + b"\r\n", chunk)
            if length == 12_288:
                assert len(talk.asked) == 1
            else:
                last = heard[heard.index(b"\r\n") + 2 :] if command.startswith(PROMPT[protocol]) else heard
                assert last.startswith({"IMAP": b"* BAD ", "POP3": b"-ERR ", "SMTP": b"500 5.5.2 "}[protocol])
                assert talk.asked == []
                assert talk.hung_up


def test_events_that_nobody_waits_for_do_nothing(protocol: str) -> None:
    talk = Talk(protocol, terms=remembering(protocol))
    before = len(talk.effects)
    talk.feed(ev.TokenReady(credential("stray")), ev.TokenFailed(WrongPassword("stray")), ev.ServerConnected())
    talk.feed(ev.TlsStarted(ev.Side.SERVER), ev.ServerEOF(), ev.ServerFailed(ServerUnavailable("stray")))
    talk.feed(ev.ServerData(b"stray\r\n"), ev.ClientData(b""))
    assert len(talk.effects) == before
    talk.server = SERVERS[protocol]()
    talk.answers.append(credential())
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN


@pytest.mark.parametrize("dialled", [False, True])
def test_a_closed_dialogue_is_freed_at_once(protocol: str, dialled: bool) -> None:
    dialogue = DIALOGUES[protocol](ev.Terms() if dialled else remembering(protocol))
    dialogue.handle(ev.ClientConnected())
    if dialled:
        dialogue.handle(ev.ServerConnected())
    freed = weakref.ref(dialogue)
    gc.disable()
    try:
        dialogue.close()
        del dialogue
        assert freed() is None
    finally:
        gc.enable()
