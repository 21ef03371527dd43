"""IMAP towards the mail server: its greeting, its capabilities, one SASL exchange."""

from __future__ import annotations

import base64

import pytest

from emailproxy.wire import events as ev
from tests.wire.driver import CHUNKS, FRESH, LOGIN, REMEMBERED, TOKEN, Talk, credential
from tests.wire.servers import ImapServer

SEEN = REMEMBERED["IMAP"]


def b64(message: bytes) -> bytes:
    return base64.b64encode(message)


def greeted(**options: object) -> Talk:
    """A client's connection, the greeting behind it."""
    talk = Talk("IMAP", terms=ev.Terms(seen=SEEN), **options)  # type: ignore[arg-type]
    talk.said = b""
    return talk


def test_capabilities_are_asked_for_where_the_greeting_has_none() -> None:
    talk = Talk("IMAP")
    assert talk.serve(b"* OK hello\r\n") == b"EP CAPABILITY\r\n"
    talk.serve(b"* 1 EXISTS\r\n* CAPABILITY IMAP4rev1 IDLE\r\nEP OK done\r\n")
    assert talk.learned == [("IMAP4REV1", "IDLE")]


def test_a_server_that_does_not_tell_its_capabilities_is_given_up() -> None:
    talk = Talk("IMAP", answers=[credential()], terms=ev.Terms(seen=()))
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK hello\r\nEP BAD what\r\n")
    assert talk.said.endswith(b"\r\na1 NO [UNAVAILABLE] the mail server does not tell its capabilities\r\n")


def test_preauth_closes_before_any_credential() -> None:
    """Bad input 12, whether the login has come or not."""
    early = Talk("IMAP")
    early.serve(b"* PREAUTH welcome\r\n")
    assert early.said.startswith(b"* BYE the mail server says that we are logged in already (PREAUTH)")
    assert early.hung_up
    late = greeted(answers=[credential()])
    late.client(LOGIN["IMAP"])
    late.serve(b"* preauth welcome\r\na1 OK\r\n")
    first, second, rest = late.said.split(b"\r\n")
    assert first.startswith(b"a1 NO [UNAVAILABLE] ")
    assert second.startswith(b"* BYE ")
    assert rest == b""
    assert late.hung_up
    assert late.sent == b""


def test_capabilities_before_tls_are_forgotten() -> None:
    talk = Talk("IMAP", terms=ev.Terms(starttls=True))
    sent = talk.serve(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN EVIL STARTTLS] hello\r\n")
    assert sent == b"EP STARTTLS\r\n"
    assert talk.serve(b"EP OK [CAPABILITY EVIL] go\r\n") == b"EP CAPABILITY\r\n"
    talk.serve(b"* CAPABILITY IMAP4rev1 GOOD\r\nEP OK done\r\n")
    assert talk.learned == [("IMAP4REV1", "GOOD")]
    assert b"EVIL" not in talk.said


def test_an_initial_response_needs_sasl_ir() -> None:
    response = b64(b"user=u@x.test\x01auth=Bearer token-canary\x01\x01")
    for capabilities, first in [
        (b"AUTH=XOAUTH2", b"a1 AUTHENTICATE XOAUTH2\r\n"),
        (b"SASL-IR AUTH=XOAUTH2", b"a1 AUTHENTICATE XOAUTH2 " + response + b"\r\n"),
    ]:
        talk = greeted(answers=[credential()])
        talk.client(LOGIN["IMAP"])
        assert talk.serve(b"* OK [CAPABILITY " + capabilities + b"] hello\r\n") == first
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK [CAPABILITY AUTH=XOAUTH2] hello\r\n")
    assert talk.serve(b"+\r\n") == response + b"\r\n"


@pytest.mark.parametrize("chunk", CHUNKS)
def test_what_the_server_says_at_the_login_reaches_the_client_octet_by_octet(chunk: int) -> None:
    words = b"* CAPABILITY IMAP4rev1 X\r\n* 2 EXISTS \xff\r\na1 OK [READ-WRITE] \xfe \r\n"
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK hello\r\n" + words, chunk)
    assert talk.relay is not None
    assert talk.relay.to_client == words


def test_a_refused_token_is_tried_again_under_the_same_tag() -> None:
    server = ImapServer(verdicts=["no", "yes"], extras=["SASL-IR"])
    talk = Talk("IMAP", server, answers=[credential(), credential(FRESH)])
    talk.client(b"Tag.7 LOGIN u p\r\n")
    tags = [line.split(b" ")[0] for line in server.heard if b"AUTHENTICATE" in line]
    assert tags == [b"Tag.7", b"Tag.7"]
    assert server.heard[1] == b""
    assert talk.relay is not None
    assert talk.relay.to_client.startswith(b"Tag.7 OK ")


NOT_NOW = [b"[UNAVAILABLE] x", b"[inuse] x", b"[LIMIT] x", b"[SERVERBUG] x"]
THROTTLED = b"Request is throttled. Suggested Backoff Time: 299 milliseconds"


@pytest.mark.parametrize("words", [*NOT_NOW, THROTTLED])
def test_a_refusal_for_a_while_asks_for_no_fresh_token(words: bytes) -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK hello\r\na1 NO " + words + b"\r\n")
    assert talk.said == b"a1 NO [UNAVAILABLE] the mail server is not available: NO " + words + b"\r\n"
    assert len(talk.asked) == 1


def test_a_bye_in_the_exchange_is_a_server_that_is_down() -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK hello\r\n* bye overloaded\r\n")
    assert talk.said == b"a1 NO [UNAVAILABLE] the mail server ended the connection: bye overloaded\r\n"


def test_a_stale_memory_of_sasl_ir_is_corrected() -> None:
    """BAD to what was sent by memory: the capabilities are asked for, and the same token is sent again."""
    server = ImapServer()
    server.greets_with_capabilities = False
    talk = Talk("IMAP", server, answers=[credential()], terms=ev.Terms(seen=SEEN))
    talk.client(LOGIN["IMAP"])
    assert talk.relay is not None
    assert len(talk.asked) == 1
    assert talk.learned == [("IMAP4REV1", "AUTH=XOAUTH2")]
    assert [line.split(b" ")[1] for line in server.heard[:3]] == [b"AUTHENTICATE", b"CAPABILITY", b"AUTHENTICATE"]


def test_bad_is_a_refusal_where_the_capabilities_are_fresh() -> None:
    talk = greeted(answers=[credential(), credential(FRESH)])
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK [CAPABILITY SASL-IR AUTH=XOAUTH2] hello\r\na1 BAD no\r\na1 bad NO\r\n")
    assert talk.said.startswith(
        b"a1 NO [AUTHORIZATIONFAILED] the mail server refused the access token (bad NO); check "
    )


@pytest.mark.parametrize("final", [b"a1 OK", b"a1 ok fine"])
def test_a_terse_success_is_one(final: bytes) -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["IMAP"])
    talk.serve(b"* OK hello\r\n" + final + b"\r\n")
    assert talk.relay is not None
    assert talk.relay.credential.token.reveal() == TOKEN
