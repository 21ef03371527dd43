"""One port for all servers: the login says which one, and nothing is dialled before it has."""

from __future__ import annotations

import pytest

from emailproxy.errors import Kind, ServerUnavailable, UnknownAccount, WrongPassword
from emailproxy.wire import events as ev
from tests.wire.driver import (
    DIALOGUES,
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
    logged_in,
    remembering,
)

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

WHAT = {"IMAP": b"c CAPABILITY\r\n", "POP3": b"CAPA\r\n", "SMTP": b"EHLO x\r\n"}


def place(protocol: str, **changes: object) -> ev.Terms:
    return remembering(protocol, **{"host": "one.test", "port": 993, "ehlo_name": "we.test", **changes})


def unplaced(protocol: str, **options: object) -> Talk:
    options.setdefault("terms", ev.Terms(routed=True))
    return Talk(protocol, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("starttls", [False, True], ids=["TLS", "STARTTLS"])
def test_a_login_goes_to_its_server(protocol: str, starttls: bool, mechanism: str) -> None:
    server = SERVERS[protocol](starttls=starttls, mechanisms=[mechanism])
    routes = [place(protocol, starttls=starttls, seen=None)]
    talk = unplaced(protocol, server=server, answers=[credential()], routes=routes)
    talk.client(WHAT[protocol])
    assert talk.dialled == 0
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 1
    assert len(talk.learned) == 1
    if mechanism == "OAUTHBEARER":
        assert b"host=one.test\x01port=993\x01" in server.responses[0]
    if protocol == "SMTP":
        assert b"EHLO we.test" in server.heard


@pytest.mark.parametrize("seen", [None, "given"])
def test_until_then_greeting_and_capabilities_are_what_any_server_has(protocol: str, seen: str | None) -> None:
    given = REMEMBERED[protocol] if seen else None
    talk = unplaced(protocol, terms=ev.Terms(routed=True, seen=given))
    known = Talk(protocol, terms=ev.Terms(seen=given or DIALOGUES[protocol].common))
    assert talk.said == known.said != b""
    assert talk.client(WHAT[protocol]) == known.client(WHAT[protocol]) != b""
    assert talk.dialled == 0
    assert talk.learned == []


def test_the_token_waits_for_the_server_and_the_dial_for_neither(protocol: str) -> None:
    talk = unplaced(protocol, server=SERVERS[protocol]())
    talk.client(LOGIN[protocol])
    assert talk.dialled == 0
    talk.feed(ev.Routed(place(protocol)))
    assert talk.dialled == 1  # beside the token
    talk.feed(ev.TokenReady(credential()))
    assert logged_in(talk) == TOKEN

    early = unplaced(protocol, server=SERVERS[protocol]())
    early.client(LOGIN[protocol])
    early.feed(ev.TokenReady(credential()))
    assert early.dialled == 0
    early.feed(ev.Routed(place(protocol)))
    assert logged_in(early) == TOKEN


@pytest.mark.parametrize("routed", [False, True], ids=["before its server is known", "after"])
def test_a_refusal_is_one_as_ever(protocol: str, routed: bool) -> None:
    talk = unplaced(protocol, server=SERVERS[protocol]())
    talk.client(LOGIN[protocol])
    before = len(talk.said)
    if routed:
        talk.feed(ev.Routed(place(protocol)))
    talk.feed(ev.TokenFailed(UnknownAccount("nobody")))
    assert talk.said[before:] == code(protocol, Kind.WRONG_LOGIN) + b"nobody\r\n"
    assert talk.dialled == routed
    assert not talk.over
    talk.answers.append(credential())
    talk.routes.append(place(protocol))
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 1


OTHERS = [
    pytest.param({"host": "two.test"}, id="another host"),
    pytest.param({"port": 143}, id="another port"),
    pytest.param({"starttls": True}, id="by STARTTLS"),
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_login_for_another_server_dials_that(protocol: str, other: dict[str, object]) -> None:
    talk = unplaced(protocol, server=SERVERS[protocol]())
    talk.client(LOGIN[protocol])
    talk.feed(ev.Routed(place(protocol)), ev.TokenFailed(WrongPassword("wrong")))
    learned = len(talk.learned)
    talk.server = SERVERS[protocol](starttls=bool(other.get("starttls")))
    talk.answers.append(credential())
    talk.routes.append(place(protocol, **{"seen": None, **other}))
    talk.client(LOGIN[protocol])
    assert talk.dialled == 2
    assert len(talk.learned) == learned + 1  # what was known of the other server is forgotten
    assert logged_in(talk) == TOKEN
    assert bool(talk.server.heard_in_plaintext) == talk.server.starttls


def test_a_login_for_the_same_server_keeps_the_connection(protocol: str) -> None:
    server = SERVERS[protocol](verdicts=["no", "no", "yes"])
    answers = [credential(), credential(), credential(FRESH)]
    talk = unplaced(protocol, server=server, answers=answers, routes=[place(protocol)] * 2)
    refused = after_prompt(protocol, talk.client(LOGIN[protocol]))
    assert refused.startswith(code(protocol, Kind.TOKEN_REFUSED))
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == FRESH
    assert talk.dialled == 1


def test_a_connection_to_the_same_server_that_was_lost_is_made_again(protocol: str) -> None:
    talk = unplaced(protocol, server=SERVERS[protocol]())
    talk.client(LOGIN[protocol])
    talk.feed(ev.Routed(place(protocol)), ev.TokenFailed(WrongPassword("wrong")), ev.ServerEOF())
    talk.answers.append(credential())
    talk.routes.append(place(protocol))
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 2


def test_a_fresh_token_is_for_the_same_server(protocol: str) -> None:
    """Nobody says again where to; a server that hung up is dialled again."""
    talk = unplaced(protocol, server=SERVERS[protocol](verdicts=["no", "yes"]), answers=[credential()])
    talk.routes.append(place(protocol))
    talk.client(LOGIN[protocol])
    talk.feed(ev.ServerEOF(), ev.Routed(place(protocol, host="two.test")), ev.TokenReady(credential(FRESH)))
    assert logged_in(talk) == FRESH
    assert talk.dialled == 2
    assert [asked.rejected is None for asked in talk.asked] == [True, False]


def test_what_was_on_its_way_from_the_old_server_is_not_heard(protocol: str) -> None:
    talk = unplaced(protocol)
    talk.client(LOGIN[protocol])
    talk.feed(ev.Routed(place(protocol)), ev.TokenFailed(WrongPassword("wrong")))
    talk.serve(GREETING[protocol] + b"half a li")
    talk.routes.append(place(protocol, host="two.test"))
    talk.server = SERVERS[protocol]()
    talk.answers.append(credential())
    talk.client(LOGIN[protocol])
    assert logged_in(talk) == TOKEN


def test_where_nobody_logs_in_no_server_is_taken(protocol: str) -> None:
    talk = unplaced(protocol)
    talk.feed(ev.Routed(place(protocol)), ev.ClientConnected())
    talk.client(WHAT[protocol])
    assert talk.dialled == 0


def test_the_clients_side_stays_as_it_was(protocol: str) -> None:
    """The server's terms say nothing about it."""
    terms = ev.Terms(routed=True, local_tls=ev.LocalTls.OFFERED, login_as="printer@x.test")
    talk = unplaced(protocol, terms=terms)
    talk.client(LOGIN[protocol])
    talk.feed(ev.Routed(place(protocol)), ev.TokenFailed(WrongPassword("wrong")))
    talk.client(LOGIN[protocol])
    assert talk.dialled == 1
    talk.feed(ev.Routed(place(protocol, host="two.test")), ev.TokenFailed(WrongPassword("wrong")))
    assert talk.dialled == 2
    assert b"TLS" in talk.client({"IMAP": b"s STARTTLS\r\n", "POP3": b"STLS\r\n", "SMTP": b"STARTTLS\r\n"}[protocol])
    assert ev.Side.CLIENT in [effect.side for effect in talk.effects if isinstance(effect, ev.StartTls)]


def test_a_server_that_fails_before_the_token_comes_refuses_the_login(protocol: str) -> None:
    talk = unplaced(protocol, dials=False)
    talk.client(LOGIN[protocol])
    talk.feed(ev.Routed(place(protocol)), ev.ServerFailed(ServerUnavailable("down")), ev.TokenReady(credential()))
    assert talk.said.endswith(code(protocol, Kind.UNAVAILABLE) + b"down\r\n")
    assert talk.dialled == 1
