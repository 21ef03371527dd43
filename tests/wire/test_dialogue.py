"""What IMAP, POP3 and SMTP have in common: the login, the token, the two attempts, the refusals."""

from __future__ import annotations

import base64

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
    TooManySessions,
    UnknownAccount,
    WrongPassword,
)
from emailproxy.wire import events as ev
from tests.wire.driver import (
    DIALOGUES,
    FRESH,
    GREETING,
    LOGIN,
    PASSWORD,
    PROTOCOLS,
    SERVERS,
    TOKEN,
    USER,
    Talk,
    after_prompt,
    code,
    credential,
    is_one_clean_line,
    logged_in,
    remembering,
)

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

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
    TooManySessions,
]


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


PIPELINED = {
    "IMAP": b"b SELECT INBOX\r\nc FETCH 1 BODY[]\r\nd UID SEARCH ALL\r\ne STATUS INBOX (MESSAGES)\r\n",
    "POP3": b"STAT\r\nUIDL\r\nLIST\r\nRETR 1\r\n",
    "SMTP": b"MAIL FROM:<u@x.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\nRSET\r\n",
}


def test_what_was_pipelined_behind_a_refused_login_does_not_end_the_connection(protocol: str) -> None:
    """Each command has its answer, none is forwarded, and the next login may succeed."""
    talk = Talk(protocol, SERVERS[protocol](), answers=[WrongPassword("wrong"), credential()])
    heard = after_prompt(protocol, talk.client(LOGIN[protocol] + PIPELINED[protocol]))
    assert len(heard.splitlines()) == 5
    assert not talk.over
    talk.client(LOGIN[protocol])
    assert talk.over
    assert not talk.hung_up
