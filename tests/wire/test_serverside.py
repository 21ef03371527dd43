"""What the three protocols have in common towards a mail server that is down, hostile, odd or forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emailproxy.errors import (
    Kind,
    ServerUnavailable,
)
from emailproxy.wire import events as ev
from emailproxy.wire.lines import MAX_SERVER_REPLY
from tests.wire.driver import (
    FRESH,
    GREETING,
    LOGIN,
    PROTOCOLS,
    REMEMBERED,
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
from tests.wire.servers import Server

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

# ---- the server is down, hostile or odd


def test_a_server_that_cannot_be_dialled_refuses_the_login(protocol: str) -> None:
    talk = Talk(protocol, dials=False, answers=[credential(), credential()], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    heard = len(talk.said)
    talk.feed(ev.ServerFailed(ServerUnavailable("no route; try later")))
    assert talk.said[heard:] == code(protocol, Kind.UNAVAILABLE) + b"no route; try later\r\n"
    talk.client(LOGIN[protocol])
    assert talk.dialled == 2
    assert not talk.over


def test_a_dial_that_fails_before_the_token_comes_is_reported_with_it(protocol: str) -> None:
    talk = Talk(protocol, dials=False, terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    heard = len(talk.said)
    talk.feed(ev.ServerFailed(ServerUnavailable("the certificate is expired")))
    assert talk.said[heard:] == b""
    talk.feed(ev.TokenReady(credential()))
    assert talk.said[heard:] == code(protocol, Kind.UNAVAILABLE) + b"the certificate is expired\r\n"
    assert talk.dialled == 1


def test_a_failed_handshake_refuses_the_login_and_sends_nothing(protocol: str) -> None:
    server, terms = SERVERS[protocol](starttls=True), remembering(protocol, starttls=True)
    talk = Talk(protocol, server, answers=[credential()], shakes_hands=False, terms=terms)
    talk.client(LOGIN[protocol])
    sent, heard = len(talk.sent), len(talk.said)
    talk.feed(ev.ServerFailed(ServerUnavailable("the certificate is for another host")))
    assert talk.said[heard:].endswith(code(protocol, Kind.UNAVAILABLE) + b"the certificate is for another host\r\n")
    assert len(talk.sent) == sent
    assert server.responses == []


GREETINGS = {
    "IMAP": [b"* BYE too busy\r\n", b"* NO too busy\r\n", b"a1 OK too busy\r\n"],
    "POP3": [b"-ERR too busy\r\n", b"-ERR [IN-USE] too busy\r\n", b"* OK too busy\r\n"],
    "SMTP": [b"421 too busy\r\n", b"554-too\r\n554 too busy\r\n", b"250 too busy\r\n"],
}


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_greeting_that_refuses_is_told_to_the_client(protocol: str, which: int, hangs_up: bool) -> None:
    talk = Talk(protocol, terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    talk.serve(GREETINGS[protocol][which])
    if hangs_up:
        talk.feed(ev.ServerEOF())
    heard = len(talk.said)
    talk.feed(ev.TokenReady(credential()))
    reply = talk.said[heard:]
    assert reply.startswith(code(protocol, Kind.UNAVAILABLE) + b"the mail server refuses connections: ")
    assert reply.endswith(b"too busy\r\n")
    assert talk.dialled == 1
    assert talk.sent == b""


def test_a_server_that_ends_its_lines_oddly_is_given_up(protocol: str) -> None:
    talk = Talk(protocol, answers=[credential()], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    heard = len(talk.said)
    talk.serve(GREETING[protocol].replace(b"\r\n", b"\n"))
    assert talk.said[heard:].startswith(code(protocol, Kind.UNAVAILABLE) + b"the mail server's reply cannot be read")


def test_a_server_without_a_mechanism_of_ours_is_refused(protocol: str) -> None:
    server = SERVERS[protocol](mechanisms=["PLAIN", "LOGIN"])
    talk = Talk(protocol, server, answers=[credential()])
    heard = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert heard.startswith(code(protocol, Kind.UNAVAILABLE))
    assert b"offers neither XOAUTH2 nor OAUTHBEARER" in heard
    assert server.responses == []


def floods(protocol: str) -> dict[str, bytes]:
    """What a server says without end to any command."""
    line = {"IMAP": b"* X\r\n", "POP3": b"X\r\n", "SMTP": b"250-X\r\n"}[protocol]
    return {"lines": line * (MAX_SERVER_REPLY // len(line) + 1), "one line": b"X" * (MAX_SERVER_REPLY + 1)}


@pytest.mark.parametrize("chunk", [1000, 10**6])
@pytest.mark.parametrize("kind", ["lines", "one line"])
def test_a_reply_without_end_ends_the_connection_at_64_kib(protocol: str, kind: str, chunk: int) -> None:
    """Bad input 17, and its like in the other protocols."""
    talk = Talk(protocol, answers=[credential()])
    talk.client(LOGIN[protocol])
    talk.serve(GREETING[protocol] + (b"+OK list\r\n" if protocol == "POP3" else b""))
    assert talk.sent != b""
    flood = floods(protocol)[kind]
    talk.serve(flood[: MAX_SERVER_REPLY - 100], chunk)
    assert not talk.over
    heard = len(talk.said)
    talk.serve(flood[MAX_SERVER_REPLY - 100 :], chunk)
    assert talk.hung_up
    assert b"longer than 64 KiB" in talk.said[heard:]


@pytest.mark.parametrize("kind", ["greeting", "while the token is awaited", "before the dial is reported"])
def test_no_state_takes_more_than_64_kib_of_a_server(protocol: str, kind: str) -> None:
    talk = Talk(protocol, terms=remembering(protocol), dials=kind != "before the dial is reported")
    talk.client(LOGIN[protocol])
    if kind == "while the token is awaited":
        talk.serve(GREETING[protocol])
    for _ in range(64):
        talk.serve(b"*" * 1024)
    assert not talk.over or kind == "while the token is awaited"
    talk.serve(b"*")
    assert talk.hung_up


def test_a_new_connection_begins_afresh(protocol: str) -> None:
    """Half a line of the old one, and how much it had said, are forgotten."""
    talk = Talk(protocol, SERVERS[protocol](), dials=False)
    talk.feed(ev.ServerConnected(), ev.ServerData(b"*" * (MAX_SERVER_REPLY - 10)), ev.ServerEOF())
    talk.dials = True
    talk.answers.append(credential())
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 2


def test_a_server_that_is_given_up_talks_to_the_wall(protocol: str) -> None:
    """Its connection may still stand: nothing of what it says is kept."""
    talk = Talk(protocol, terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    talk.serve(GREETINGS[protocol][0])
    for _ in range(100):
        talk.serve(b"*" * 1024)
    assert len(talk.dialogue._server) == 0
    assert not talk.over


def test_a_server_that_hangs_up_before_its_connection_is_reported_is_down(protocol: str) -> None:
    """The report comes late: what it says stands no more."""
    talk = Talk(protocol, dials=False, answers=[credential()], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    heard = len(talk.said)
    talk.feed(ev.ServerData(GREETING[protocol]), ev.ServerEOF(), ev.ServerConnected())
    assert talk.said[heard:].startswith(code(protocol, Kind.UNAVAILABLE) + b"the mail server closed the connection")
    assert talk.sent == b""
    talk.client(LOGIN[protocol])
    assert talk.dialled == 2


# ---- capabilities


def test_capabilities_are_reported_once_and_then_remembered(protocol: str) -> None:
    talk = Talk(protocol, SERVERS[protocol](), answers=[credential()])
    talk.client(LOGIN[protocol])
    (learned,) = talk.learned
    again = Talk(protocol, SERVERS[protocol](), answers=[credential()], terms=ev.Terms(seen=learned))
    again.client(LOGIN[protocol])
    assert logged_in(again) == TOKEN
    assert again.learned == []


@pytest.mark.parametrize(
    "remembered", [REMEMBERED, {"IMAP": (), "POP3": ("SASL PLAIN",), "SMTP": ()}], ids=["another", "none"]
)
def test_a_stale_memory_of_the_mechanisms_is_corrected(protocol: str, remembered: dict[str, ev.Capabilities]) -> None:
    """With the token at hand: that the server did not know the mechanism says nothing about it."""
    server = SERVERS[protocol](mechanisms=["OAUTHBEARER"])
    talk = Talk(protocol, server, answers=[credential()], terms=ev.Terms(seen=remembered[protocol]))
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert len(talk.asked) == 1
    assert len(talk.learned) == 1
    assert talk.dialled == 1


def test_a_stale_memory_of_a_server_that_has_nothing_for_us_any_more_is_corrected(protocol: str) -> None:
    server = SERVERS[protocol](mechanisms=["PLAIN"])
    talk = Talk(protocol, server, answers=[credential()], terms=remembering(protocol))
    heard = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert b"offers neither XOAUTH2 nor OAUTHBEARER" in heard
    assert len(talk.asked) == 1
    assert len(talk.learned) == 1


def test_a_memory_is_doubted_once_a_login_by_it_failed(protocol: str) -> None:
    """A server may refuse a mechanism it does not know as it refuses a token: before the second attempt we ask."""
    server = SERVERS[protocol](verdicts=["no", "yes"], extras=["SASL-IR"])
    if protocol == "IMAP":
        server.greets_with_capabilities = False  # type: ignore[attr-defined]
    talk = Talk(protocol, server, answers=[credential(), credential(FRESH)], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == FRESH
    asked = {"IMAP": b"EP CAPABILITY", "POP3": b"CAPA", "SMTP": b"EHLO [127.0.0.1]"}[protocol]
    assert server.heard.count(asked) == 1


def test_what_was_learnt_on_one_connection_is_a_memory_on_the_next(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["later", "yes"])
    talk = Talk(protocol, server, answers=[credential(), credential()])
    talk.client(LOGIN[protocol])
    talk.feed(ev.ServerEOF())
    server.mechanisms = ["OAUTHBEARER"]
    if protocol == "IMAP":
        server.greets_with_capabilities = False  # type: ignore[attr-defined]
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert len(talk.asked) == 2
    assert len(talk.learned) == 2


PROMPTS = {"IMAP": b"+ Z28gb24=\r\n", "POP3": b"+ Z28gb24=\r\n", "SMTP": b"334 Z28gb24=\r\n"}


def test_words_in_the_servers_prompt_are_not_its_refusal(protocol: str) -> None:
    """Only what it says to the token is: here nothing but its final line."""
    server = SERVERS[protocol]()
    talk = Talk(protocol, server, answers=[credential("t" * 600)])
    server.ask = lambda prompt, then: Server.ask(server, PROMPTS[protocol][:-2], then)  # type: ignore[method-assign]
    server.sasl = lambda response, prompt: server.judge("no")  # type: ignore[method-assign]
    talk.client(LOGIN[protocol])
    rejected = talk.asked[1].rejected
    assert rejected is not None
    assert rejected.endswith("no")
    assert "go on" not in rejected


HOSTILE_OFFERS = ["", "X\rNOOP", "Y\0", "Z\x1b[31m", "W" * 600, "V\u00f6"]


def test_what_a_server_offers_cannot_end_a_line_of_ours(protocol: str) -> None:
    server = SERVERS[protocol](extras=["GOOD", *HOSTILE_OFFERS])
    talk = Talk(protocol, server)
    said = talk.said + talk.client({"IMAP": b"a CAPABILITY\r\n", "POP3": b"CAPA\r\n", "SMTP": b"EHLO x\r\n"}[protocol])
    assert b"GOOD" in said
    for line in said.removesuffix(b"\r\n").split(b"\r\n"):
        assert is_one_clean_line(line + b"\r\n")
        assert line not in (b"", b"250-")


# ---- STARTTLS


def test_octets_behind_the_servers_go_ahead_end_the_connection(protocol: str) -> None:
    """Bad input 27, CVE-2021-33515, in one segment and in two."""
    go = {"IMAP": b"EP OK go\r\n", "POP3": b"+OK go\r\n", "SMTP": b"220 go\r\n"}[protocol]
    for early in (True, False):
        talk = Talk(protocol, shakes_hands=False, terms=remembering(protocol, starttls=True), answers=[credential()])
        talk.client(LOGIN[protocol])
        talk.serve(GREETING[protocol])
        if protocol == "SMTP":
            talk.serve(b"250-x\r\n250 STARTTLS\r\n")
        sent, heard = len(talk.sent), len(talk.said)
        if early:
            talk.serve(go + b"250 X\r\n")
        else:
            talk.serve(go)
            talk.serve(b"250 X\r\n")
            assert not talk.over
            talk.feed(ev.TlsStarted(ev.Side.SERVER))
        assert talk.hung_up
        assert talk.said[heard:].startswith(code(protocol, Kind.UNAVAILABLE))
        assert len(talk.sent) == sent
        assert [type(refused.error) for refused in talk.refused] == [ServerUnavailable]
        assert talk.noted == []


def test_the_log_tells_of_octets_behind_a_go_ahead_though_nobody_has_logged_in(protocol: str) -> None:
    go = {"IMAP": b"EP OK go\r\n", "POP3": b"+OK go\r\n", "SMTP": b"220 go\r\n"}[protocol]
    talk = Talk(protocol, shakes_hands=False, terms=replace(remembering(protocol, starttls=True), seen=None))
    talk.serve(GREETING[protocol])
    if protocol == "SMTP":
        talk.serve(b"250-x\r\n250 STARTTLS\r\n")
    talk.serve(go + b"250 X\r\n")
    assert talk.hung_up
    assert talk.refused == []
    [noted] = talk.noted
    assert "octets behind its STARTTLS reply" in noted


def test_a_server_that_refuses_starttls_gets_no_credential(protocol: str) -> None:
    talk = Talk(protocol, terms=remembering(protocol, starttls=True), answers=[credential()])
    talk.client(LOGIN[protocol])
    talk.serve(GREETING[protocol])
    if protocol == "SMTP":
        talk.serve(b"250-x\r\n250 starttls\r\n")
    heard = len(talk.said)
    talk.serve({"IMAP": b"EP BAD no\r\n", "POP3": b"-ERR no\r\n", "SMTP": b"454 no\r\n"}[protocol])
    assert talk.said[heard:].startswith(code(protocol, Kind.UNAVAILABLE) + b"the mail server refuses ST")
    assert b"AUTH" not in talk.sent
    assert not any(isinstance(effect, ev.StartTls) for effect in talk.effects)


def test_a_handshake_of_an_earlier_connection_counts_for_nothing(protocol: str) -> None:
    server = SERVERS[protocol](starttls=True)
    talk = Talk(protocol, server, shakes_hands=False, answers=[credential()])
    talk.feed(ev.ServerEOF(), ev.TlsStarted(ev.Side.SERVER))
    talk.client(LOGIN[protocol])
    assert talk.dialled == 2
    assert server.responses == []
    talk.feed(ev.TlsStarted(ev.Side.SERVER))
    assert logged_in(talk) == TOKEN
