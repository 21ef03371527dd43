"""What IMAP, POP3 and SMTP have in common: the dial, the token, the two attempts, and every way to end."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable

import pytest

from emailproxy.errors import (
    AccountUnusable,
    ConsentRequired,
    Kind,
    LoginRefused,
    ProviderRefused,
    ProviderUnavailable,
    ServerUnavailable,
    TokenRefused,
    TooManyLogins,
    UnknownAccount,
    WrongPassword,
)
from emailproxy.wire import events as ev
from emailproxy.wire.lines import MAX_SERVER_REPLY
from tests.wire.driver import (
    DIALOGUES,
    FRESH,
    LOGIN,
    PASSWORD,
    PROTOCOLS,
    REMEMBERED,
    SERVERS,
    TOKEN,
    USER,
    Talk,
    credential,
)
from tests.wire.servers import Server

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

GREETING = {"IMAP": b"* OK hello\r\n", "POP3": b"+OK hello\r\n", "SMTP": b"220 hello\r\n"}
CODES = {
    # design section 6: IMAP, POP3, SMTP
    Kind.WRONG_LOGIN: (b"a1 NO [AUTHENTICATIONFAILED] ", b"-ERR [AUTH] ", b"535 5.7.8 "),
    Kind.CONSENT_NEEDED: (b"a1 NO [UNAVAILABLE] ", b"-ERR [SYS/TEMP] ", b"454 4.7.0 "),
    Kind.UNAVAILABLE: (b"a1 NO [UNAVAILABLE] ", b"-ERR [SYS/TEMP] ", b"454 4.7.0 "),
    Kind.TOKEN_REFUSED: (b"a1 NO [AUTHORIZATIONFAILED] ", b"-ERR [AUTH] ", b"535 5.7.8 "),
    Kind.MISCONFIGURED: (b"a1 NO [CONTACTADMIN] ", b"-ERR [SYS/PERM] ", b"454 4.7.0 "),
    Kind.TOO_MANY: (b"a1 NO [LIMIT] ", b"-ERR [IN-USE] ", b"421 4.7.0 "),
}
ERRORS: list[type[LoginRefused]] = [
    WrongPassword,
    UnknownAccount,
    ConsentRequired,
    ProviderUnavailable,
    ProviderRefused,
    ServerUnavailable,
    TokenRefused,
    AccountUnusable,
    TooManyLogins,
]


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


# ---- the way of one login


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("starttls", [False, True], ids=["TLS", "STARTTLS"])
def test_a_login_goes_through(protocol: str, starttls: bool, mechanism: str) -> None:
    server = SERVERS[protocol](starttls=starttls, mechanisms=["PLAIN", mechanism])
    talk = Talk(protocol, server, answers=[credential()])
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.login == (USER, PASSWORD)
    assert f"auth=Bearer {TOKEN}\x01\x01".encode() in server.responses[0]
    assert server.responses[0].startswith(b"user=" if mechanism == "XOAUTH2" else b"n,a=")
    assert talk.refused == []
    assert PASSWORD.encode() not in talk.sent
    plaintext = b" ".join(server.heard_in_plaintext)
    assert b"AUTH" not in plaintext
    assert bool(plaintext) == starttls


def test_a_login_costs_no_more_round_trips_than_the_protocol_needs(protocol: str) -> None:
    """After the greeting: IMAP in one, POP3 always in two, SMTP with EHLO first."""
    server = SERVERS[protocol](extras=["SASL-IR"])
    talk = Talk(protocol, server, answers=[credential()], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.commands == {"IMAP": 1, "POP3": 2, "SMTP": 2}[protocol]


def test_a_silent_client_costs_the_server_nothing(protocol: str) -> None:
    talk = Talk(protocol, terms=remembering(protocol))
    assert talk.said != b""
    assert talk.dialled == 0
    talk.client(b"x")
    talk.client(b"y")
    assert talk.dialled == 1


def test_an_unknown_server_is_dialled_at_once(protocol: str) -> None:
    talk = Talk(protocol)
    assert talk.dialled == 1
    talk.client(b"x")
    assert talk.dialled == 1


def test_what_both_sides_said_too_early_is_relayed_exactly(protocol: str) -> None:
    talk = Talk(protocol, SERVERS[protocol](), dials=False, answers=[credential()], terms=remembering(protocol))
    behind = b"\r\nb SELECT \0\n\xff" * 3
    talk.client(LOGIN[protocol] + behind)
    assert talk.dialogue.backlog == len(behind)
    talk.client(b"!")
    assert talk.dialogue.backlog == len(behind) + 1
    talk.server.judge = lambda verdict: ACCEPTED[protocol] + b"\0\n\xffmore"  # type: ignore[union-attr,method-assign]
    talk.feed(ev.ServerConnected(), ev.ServerData(talk.server.greet()))  # type: ignore[union-attr]
    assert talk.relay is not None
    assert talk.relay.to_client == ACCEPTED[protocol] + b"\0\n\xffmore"
    assert talk.relay.to_server == behind + b"!"
    assert talk.dialogue.backlog == 0


ACCEPTED = {
    "IMAP": b"* CAPABILITY IMAP4rev1 X\r\n* 3 EXISTS\r\na1 OK [ALERT] \xff fine\r\n",
    "POP3": b"+OK \xff fine\r\n",
    "SMTP": b"235 2.7.0 \xff fine\r\n",
}


def test_after_the_login_nothing_is_said(protocol: str) -> None:
    talk = Talk(protocol, SERVERS[protocol](), answers=[credential()])
    talk.client(LOGIN[protocol])
    assert talk.over
    for event in (ev.ClientData(b"x\r\n"), ev.ServerData(b"y\r\n"), ev.ServerEOF(), ev.Deadline(), ev.ClientEOF()):
        assert talk.feed(event) == []


# ---- the server refuses the token


def test_a_refused_token_is_replaced_once_and_the_client_hears_nothing_of_it(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["no", "yes"])
    talk = Talk(protocol, server, answers=[credential(), credential(FRESH)])
    heard = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert heard == b""
    assert logged_in(talk) == FRESH
    assert talk.dialled == 1
    first, second = talk.asked
    assert first.rejected is None
    assert second.rejected is not None
    assert "status 401, schemes Bearer, scope mail" in second.rejected
    assert first.login == second.login


def test_a_challenge_of_oauthbearer_is_answered_its_own_way(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["no", "yes"], mechanisms=["OAUTHBEARER"])
    talk = Talk(protocol, server, answers=[credential(), credential(FRESH)])
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == FRESH
    assert b"AQ==" in server.heard


def test_a_fresh_token_that_is_refused_too_refuses_the_login(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["no", "no", "yes"])
    talk = Talk(protocol, server, answers=[credential(), credential(FRESH), credential()])
    heard = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert heard.startswith(code(protocol, Kind.TOKEN_REFUSED))
    assert b"status 401" in heard
    assert [type(refused.error) for refused in talk.refused] == [TokenRefused]
    assert not talk.over
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.asked[-1].rejected is None
    assert talk.dialled == 1


def test_a_server_that_hangs_up_after_its_refusal_is_dialled_again(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["no", "yes"])
    talk = Talk(protocol, server, answers=[credential()])
    talk.client(LOGIN[protocol])
    talk.feed(ev.ServerEOF())
    assert talk.dialled == 1
    talk.feed(ev.TokenReady(credential(FRESH)))
    assert logged_in(talk) == FRESH
    assert talk.dialled == 2


def test_a_server_that_hung_up_while_the_token_came_is_dialled_again(protocol: str) -> None:
    server = SERVERS[protocol]()
    talk = Talk(protocol, server)
    talk.client(LOGIN[protocol])
    talk.feed(ev.ServerEOF(), ev.TokenReady(credential()))
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 2


def test_a_server_that_keeps_hanging_up_is_down(protocol: str) -> None:
    talk = Talk(protocol, terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    talk.feed(ev.ServerEOF(), ev.TokenReady(credential()))
    heard = len(talk.said)
    talk.feed(ev.ServerEOF())
    assert talk.said[heard:].startswith(code(protocol, Kind.UNAVAILABLE))
    assert talk.dialled == 2
    assert len(talk.asked) == 1
    assert not talk.over


def test_a_server_that_says_later_is_not_asked_with_a_fresh_token(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["later", "yes"])
    talk = Talk(protocol, server, answers=[credential(), credential()])
    heard = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert heard.startswith(code(protocol, Kind.UNAVAILABLE))
    assert b"later" in heard
    assert len(talk.asked) == 1
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN


ENDLESS = {"IMAP": b"+ e30=\r\n", "POP3": b"+ e30=\r\n", "SMTP": b"334 e30=\r\n"}


def test_a_sasl_exchange_that_does_not_end_is_ended(protocol: str) -> None:
    talk = Talk(protocol, answers=[credential()], terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    talk.serve(GREETING[protocol])
    if protocol == "SMTP":
        talk.serve(b"250-x\r\n250 AUTH XOAUTH2\r\n")
    heard = len(talk.said)
    talk.serve(ENDLESS[protocol] * 9)
    assert talk.said[heard:].startswith(code(protocol, Kind.UNAVAILABLE) + b"the mail server does not end")
    assert len(talk.asked) == 1


# ---- refusals of our own


@pytest.mark.parametrize("error", ERRORS)
def test_every_refusal_has_its_code_and_the_next_login_works(protocol: str, error: type[LoginRefused]) -> None:
    talk = Talk(protocol, SERVERS[protocol](), answers=[error("Why; and the mend."), credential()])
    heard = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert heard == code(protocol, error.kind) + b"Why; and the mend.\r\n"
    assert [(refused.login is not None, str(refused.error)) for refused in talk.refused] == [
        (True, "Why; and the mend.")
    ]
    if protocol == "SMTP" and error.kind is Kind.TOO_MANY:
        assert talk.hung_up  # RFC 5321 section 3.8: 421 closes
        return
    assert not talk.over
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN


HOSTILE = [
    pytest.param("a\r\n* BYE\r\n221 x\r\n", id="line ends"),
    pytest.param("nul\0here\x7f\x1b[31m", id="controls"),
    pytest.param("\u2028\x85\ud800\U0001f600é", id="beyond ASCII"),
    pytest.param("x" * 100_000, id="long"),
    pytest.param("ö\r\n" * 10_000, id="long and hostile"),
    pytest.param("", id="empty"),
]


def is_one_clean_line(line: bytes) -> bool:
    body = line.removesuffix(b"\r\n")
    return line.endswith(b"\r\n") and len(line) <= 512 and all(0x20 <= octet < 0x7F for octet in body)


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.parametrize("error", ERRORS)
def test_hostile_words_stay_within_one_line(protocol: str, error: type[LoginRefused], words: str) -> None:
    talk = Talk(protocol, answers=[error(words)], terms=remembering(protocol))
    assert is_one_clean_line(after_prompt(protocol, talk.client(LOGIN[protocol])))


@pytest.mark.parametrize("words", HOSTILE)
def test_who_may_not_even_begin_hears_one_line(protocol: str, words: str) -> None:
    line = DIALOGUES[protocol].turned_away(words)
    assert is_one_clean_line(line)
    assert line.startswith({"IMAP": b"* BYE [LIMIT] ", "POP3": b"-ERR [IN-USE] ", "SMTP": b"421 4.7.0 "}[protocol])


@pytest.mark.parametrize("words", HOSTILE)
def test_a_servers_hostile_refusals_stay_within_one_line(protocol: str, words: str) -> None:
    """In its greeting, in its refusal of the token, and in its challenge."""
    octets = words.encode("utf-8", "replace").replace(b"\n", b"")[:30_000]
    greeting = {"IMAP": b"* BYE ", "POP3": b"-ERR ", "SMTP": b"554 "}[protocol] + octets + b"\r\n"
    talk = Talk(protocol, terms=remembering(protocol))
    talk.client(LOGIN[protocol])
    talk.serve(greeting)
    heard = len(talk.said)
    talk.feed(ev.TokenReady(credential()))
    assert is_one_clean_line(talk.said[heard:])

    server = SERVERS[protocol](verdicts=["no", "no"])
    bad = {"IMAP": b"a1 NO ", "POP3": b"-ERR ", "SMTP": b"535 "}[protocol] + octets + b"\r\n"
    server.judge = lambda verdict: bad  # type: ignore[method-assign]
    talk = Talk(protocol, server, answers=[credential(), credential()])
    heard = len(talk.said)
    talk.client(LOGIN[protocol])
    assert is_one_clean_line(after_prompt(protocol, talk.said[heard:]))

    prompt = {"IMAP": b"+ ", "POP3": b"+ ", "SMTP": b"334 "}[protocol]
    server = SERVERS[protocol](verdicts=["no", "no"])
    challenge = prompt + base64.b64encode(octets)
    server.sasl = lambda response, prompt: server.ask(challenge, lambda _: server.judge("no"))  # type: ignore[method-assign]
    talk = Talk(protocol, server, answers=[credential(), credential()])
    heard = len(talk.said)
    talk.client(LOGIN[protocol])
    assert len(talk.asked) == 2
    assert is_one_clean_line(after_prompt(protocol, talk.said[heard:]))


def test_nothing_secret_shows_in_what_is_asked_for_or_logged(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["no", "no"])
    talk = Talk(protocol, server, answers=[credential(), credential(FRESH)])
    talk.client(LOGIN[protocol])
    shown = [effect for effect in talk.effects if not isinstance(effect, ev.ToServer)]
    encoded = base64.b64encode(b"canary")[:7].decode()
    assert "canary" not in repr(shown)
    assert encoded not in repr(shown)
    assert PASSWORD.encode() not in b"".join(server.heard + server.responses)


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


# ---- endings

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
