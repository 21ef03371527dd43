"""POP3 up to the login: every spelling of it, and the server's side."""

from __future__ import annotations

import base64

import pytest

from emailproxy.errors import WrongPassword
from emailproxy.wire import events as ev
from tests.wire.driver import CHUNKS, LOGIN, REMEMBERED, TOKEN, Talk, credential
from tests.wire.servers import Pop3Server

OURS = b"USER\r\nSASL PLAIN LOGIN\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n"


def b64(message: bytes) -> bytes:
    return base64.b64encode(message)


def greeted(**options: object) -> Talk:
    """A client's connection, the greeting behind it."""
    talk = Talk("POP3", terms=ev.Terms(seen=REMEMBERED["POP3"]), **options)  # type: ignore[arg-type]
    assert talk.said == b"+OK emailproxy ready\r\n"  # no timestamp: APOP is not offered
    talk.said = b""
    return talk


P = b64(b"\0u@x\0p q")
LOGINS = [
    pytest.param(b"USER u@x\r\nPASS p q\r\n", ("u@x", "p q"), id="USER and PASS, a space in the password"),
    pytest.param(b"user u@x\r\npass p\r\n", ("u@x", "p"), id="in lower case"),
    pytest.param(b"USER  u@x \r\nPASS p\r\n", ("u@x", "p"), id="spaces around the name"),
    pytest.param(b"USER u@x\r\nPASS  p q \r\n", ("u@x", " p q "), id="bad input 16, exactly the password"),
    pytest.param(b"USER u@x\r\nPASS\r\n", ("u@x", ""), id="no password"),
    pytest.param(b"USER u@x\r\nPASS \xc3\xbc\xe2\x82\xac\r\n", ("u@x", "ü€"), id="UTF-8"),
    pytest.param(b"USER u@x\r\nPASS \xfc\r\n", ("u@x", "ü"), id="Latin-1"),
    pytest.param(b"USER a\r\nUSER u@x\r\nPASS p\r\n", ("u@x", "p"), id="USER twice"),
    pytest.param(b"USER a b\r\nPASS p\r\n", ("a b", "p"), id="a space in the name"),
    pytest.param(b"USER DOM\\user\r\nPASS p\\q\r\n", ("DOM\\user", "p\\q"), id="backslashes"),
    pytest.param(b"AUTH PLAIN " + P + b"\r\n", ("u@x", "p q"), id="AUTH PLAIN in one line"),
    pytest.param(b"AUTH PLAIN\r\n" + P + b"\r\n", ("u@x", "p q"), id="AUTH PLAIN in two lines"),
    pytest.param(b"AUTH PLAIN =\r\n" + P + b"\r\n", ("u@x", "p q"), id="AUTH PLAIN, an empty initial response"),
    pytest.param(b"auth plain " + P + b"\r\n", ("u@x", "p q"), id="auth plain in lower case"),
    pytest.param(b"AUTH LOGIN\r\n" + b64(b"u") + b"\r\n" + b64(b"p") + b"\r\n", ("u", "p"), id="AUTH LOGIN"),
    pytest.param(b"AUTH LOGIN " + b64(b"u") + b"\r\n" + b64(b"p") + b"\r\n", ("u", "p"), id="AUTH LOGIN, the user"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("commands", "login"), LOGINS)
def test_every_spelling_of_a_login_is_understood(commands: bytes, login: tuple[str, str], chunk: int) -> None:
    talk = greeted()
    talk.client(commands, chunk)
    assert talk.login == login
    assert talk.dialogue.backlog == 0


def test_the_prompts_are_a_plus_a_space_and_the_end() -> None:
    assert greeted().client(b"AUTH PLAIN\r\n") == b"+ \r\n"
    talk = greeted()
    assert talk.client(b"AUTH LOGIN\r\n") == b"+ VXNlcm5hbWU6\r\n"
    assert talk.client(b64(b"u") + b"\r\n") == b"+ UGFzc3dvcmQ6\r\n"


ANSWERED = [
    (b"AUTH\r\n", b"+OK mechanisms follow\r\nPLAIN\r\nLOGIN\r\n.\r\n"),
    (b"auth \r\n", b"+OK mechanisms follow\r\nPLAIN\r\nLOGIN\r\n.\r\n"),
    (b"USER anybody\r\n", b"+OK send PASS\r\n"),
    (b"NOOP\r\n", b"+OK\r\n"),
    (b"QUIT\r\n", b"+OK bye\r\n"),
    (b"CAPA\r\n", b"+OK capabilities follow\r\n" + OURS + b"TOP\r\n.\r\n"),
]


@pytest.mark.parametrize(("command", "reply"), ANSWERED)
def test_what_may_come_before_the_login_is_answered(command: bytes, reply: bytes) -> None:
    talk = greeted()
    assert talk.client(command) == reply
    assert talk.hung_up == (command == b"QUIT\r\n")


REFUSED = [
    pytest.param(b"PASS p\r\n", b"-ERR send USER first\r\n", id="bad input 14"),
    pytest.param(b"STLS\r\n", b"-ERR STLS is not offered on this port", id="STLS, not offered"),
    pytest.param(b"APOP u 0123456789abcdef0123456789abcdef\r\n", b"-ERR log in first", id="APOP, not offered"),
    pytest.param(b"STAT\r\n", b"-ERR log in first", id="STAT"),
    pytest.param(b"\r\n", b"-ERR log in first", id="an empty line"),
    pytest.param(b"AUTH CRAM-MD5\r\n", b"-ERR this mechanism is not offered", id="AUTH CRAM-MD5"),
    pytest.param(b"AUTH PLAIN ====\r\n", b"-ERR the response is not base64\r\n", id="not base64"),
    pytest.param(b"USER a@b]\x0b[x\r\nPASS p\r\n", b"+OK send PASS\r\n-ERR [AUTH] the user name", id="a bad name"),
    pytest.param(b"USER\r\nPASS p\r\n", b"+OK send PASS\r\n-ERR [AUTH] the user name", id="no name"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("commands", "reply"), REFUSED)
def test_a_bad_command_is_refused_and_the_next_login_works(commands: bytes, reply: bytes, chunk: int) -> None:
    talk = greeted()
    talk.client(b"NOOP\r\n")
    talk.said = b""
    assert talk.client(commands, chunk).startswith(reply)
    assert talk.asked == []
    talk.client(LOGIN["POP3"])
    assert len(talk.asked) == 1


def test_after_a_refused_password_the_user_is_asked_for_again() -> None:
    talk = greeted(answers=[WrongPassword("wrong")])
    talk.client(b"USER u\r\nPASS p\r\n")
    assert talk.client(b"PASS q\r\n") == b"-ERR send USER first\r\n"


CLOSING = [
    pytest.param(b"USER u\nPASS p", b"-ERR a line ended by LF without CR\r\n", id="bad input 13"),
    pytest.param(b"X" * 8193, b"-ERR a line of more than 8192 octets\r\n", id="a line too long"),
    pytest.param(b"AUTH" + b"X" * 8189, b"-ERR a line of more than 8192 octets\r\n", id="a line like AUTH, too long"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("octets", "reply"), CLOSING)
def test_octets_that_are_no_command_close(octets: bytes, reply: bytes, chunk: int) -> None:
    talk = greeted()
    assert talk.client(octets, chunk) == reply
    assert talk.hung_up


def test_stls_with_a_command_behind_it_closes() -> None:
    """Bad input 15."""
    talk = greeted()
    assert talk.client(b"STLS\r\nUSER u\r\n") == b"-ERR octets behind STLS\r\n"
    assert talk.hung_up


def test_commands_may_be_pipelined() -> None:
    talk = greeted(answers=[credential()])
    assert talk.client(b"USER u\r\nPASS p\r\nSTAT\r\nQUIT\r\n") == b"+OK send PASS\r\n"
    assert talk.dialogue.backlog == len(b"STAT\r\nQUIT\r\n")
    talk.serve(b"+OK\r\n+ \r\n+OK welcome\r\n")
    assert talk.relay is not None
    assert talk.relay.to_server == b"STAT\r\nQUIT\r\n"
    assert talk.relay.to_client == b"+OK welcome\r\n"


# ---- capabilities

OFFERS = [
    pytest.param((), b"", id="nothing"),
    pytest.param(
        ("TOP", "UIDL", "EXPIRE NEVER", "PIPELINING"), b"TOP\r\nUIDL\r\nEXPIRE NEVER\r\nPIPELINING\r\n", id="more"
    ),
    pytest.param(("SASL XOAUTH2 CRAM-MD5", "USER", "stls", "APOP", "UTF8 USER", "UTF8"), b"", id="what cannot pass"),
    pytest.param(("RESP-CODES", "AUTH-RESP-CODE", "RESP-CODES-X"), b"RESP-CODES-X\r\n", id="what we have, too"),
]


@pytest.mark.parametrize(("seen", "theirs"), OFFERS)
def test_what_we_offer_is_built_from_what_the_server_offers(seen: ev.Capabilities, theirs: bytes) -> None:
    talk = Talk("POP3", terms=ev.Terms(seen=seen))
    assert talk.client(b"CAPA\r\n") == b"+OK capabilities follow\r\n" + OURS + theirs + b".\r\n"


def test_an_unknown_servers_capabilities_are_waited_for() -> None:
    talk = Talk("POP3", dials=False)
    assert talk.client(b"CAPA\r\nNOOP\r\n") == b""
    talk.feed(ev.ServerConnected())
    assert talk.serve(b"+OK hello\r\n") == b"CAPA\r\n"
    before = len(talk.said)
    talk.serve(b"+OK list\r\nTOP\r\nSASL XOAUTH2\r\n.\r\n")
    assert talk.said[before:] == b"+OK capabilities follow\r\n" + OURS + b"TOP\r\n.\r\n+OK\r\n"


def test_a_server_that_is_down_offers_what_we_can() -> None:
    talk = Talk("POP3", dials=False)
    talk.client(b"CAPA\r\n")
    before = len(talk.said)
    talk.feed(ev.ServerEOF())
    assert talk.said[before:] == b"+OK capabilities follow\r\n" + OURS + b".\r\n"


# ---- the server's side


def test_a_server_without_capa_is_given_the_benefit_of_the_doubt() -> None:
    talk = Talk("POP3", answers=[credential()])
    talk.client(LOGIN["POP3"])
    assert talk.serve(b"+OK hello\r\n") == b"CAPA\r\n"
    assert talk.serve(b"-ERR what\r\n") == b"AUTH XOAUTH2\r\n"
    assert talk.learned == [()]


def test_capabilities_are_asked_for_only_over_tls() -> None:
    talk = Talk("POP3", terms=ev.Terms(starttls=True))
    assert talk.serve(b"+OK hello\r\n") == b"STLS\r\n"
    assert talk.serve(b"+OK go\r\n") == b"CAPA\r\n"
    kinds = [type(effect) for effect in talk.effects]
    assert kinds[-2:] == [ev.StartTls, ev.ToServer]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_token_goes_in_two_lines(chunk: int) -> None:
    """As Exchange wants it."""
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["POP3"])
    assert talk.serve(b"+OK hello\r\n", chunk) == b"AUTH XOAUTH2\r\n"
    assert talk.serve(b"+ \r\n", chunk) == b64(b"user=u@x.test\x01auth=Bearer token-canary\x01\x01") + b"\r\n"
    talk.serve(b"+OK \xff welcome\r\n", chunk)
    assert talk.relay is not None
    assert talk.relay.to_client == b"+OK \xff welcome\r\n"


def test_a_failure_challenge_is_answered_by_an_empty_line() -> None:
    server = Pop3Server(verdicts=["no", "yes"])
    talk = Talk("POP3", server, answers=[credential(), credential()])
    talk.client(LOGIN["POP3"])
    assert server.heard[3] == b""
    assert talk.asked[1].rejected == "[AUTH] no (status 401, schemes Bearer, scope mail)"
    assert talk.relay is not None
    assert talk.relay.credential.token.reveal() == TOKEN


@pytest.mark.parametrize("words", [b"[SYS/TEMP] x", b"[in-use] x", b"[LOGIN-DELAY] x"])
def test_a_refusal_for_a_while_asks_for_no_fresh_token(words: bytes) -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["POP3"])
    talk.serve(b"+OK hello\r\n+ \r\n-ERR " + words + b"\r\n")
    assert talk.said.endswith(b"-ERR [SYS/TEMP] the mail server is not available: " + words + b"\r\n")
    assert len(talk.asked) == 1


def test_a_plain_refusal_is_told_as_it_is() -> None:
    talk = greeted(answers=[credential(), credential()])
    talk.client(LOGIN["POP3"])
    talk.serve(b"+OK hello\r\n+ \r\n-ERR no\r\n")
    assert talk.asked[1].rejected == "no"
