"""SMTP submission up to the login: every spelling of it, and the server's side."""

from __future__ import annotations

import base64

import pytest

from emailproxy.errors import WrongPassword
from emailproxy.wire import events as ev
from emailproxy.wire.smtp import LOGIN_FIRST
from tests.wire.driver import CHUNKS, LOGIN, REMEMBERED, TOKEN, Talk, credential
from tests.wire.servers import SmtpServer

SEEN = REMEMBERED["SMTP"]
b64 = base64.b64encode
P = b64(b"\0u@x\0p")
U, W = b64(b"u@x") + b"\r\n", b64(b"p") + b"\r\n"
EHLO_REPLY = b"250-emailproxy\r\n250-SIZE 1000\r\n250 AUTH PLAIN LOGIN\r\n"


def greeted(**options: object) -> Talk:
    """A client's connection, the greeting behind it."""
    talk = Talk("SMTP", terms=ev.Terms(seen=SEEN), **options)  # type: ignore[arg-type]
    assert talk.said == b"220 emailproxy ESMTP ready\r\n"
    talk.said = b""
    return talk


LOGINS = [
    pytest.param(b"AUTH PLAIN " + P + b"\r\n", b"", id="PLAIN inline"),
    pytest.param(b"AUTH PLAIN\r\n" + P + b"\r\n", b"334 \r\n", id="curl: bare AUTH PLAIN, waiting for 334"),
    pytest.param(b"AUTH PLAIN =\r\n" + P + b"\r\n", b"334 \r\n", id="AUTH PLAIN ="),
    pytest.param(b"auth plain " + P + b"\r\n", b"", id="in lower case"),
    pytest.param(b"AUTH  PLAIN  " + P + b" \r\n", b"", id="spaces"),
    pytest.param(
        b"AUTH LOGIN\r\n" + U + W, b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n", id="printers: LOGIN, exact prompts"
    ),
    pytest.param(b"AUTH LOGIN " + U + W, b"334 UGFzc3dvcmQ6\r\n", id="smtplib: AUTH LOGIN with the user"),
    pytest.param(b"AUTH login " + U + W, b"334 UGFzc3dvcmQ6\r\n", id=".NET: login with the user"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("hello", [b"EHLO x\r\n", b"HELO x\r\n", b""], ids=["EHLO", "HELO", "no hello"])
@pytest.mark.parametrize(("commands", "prompts"), LOGINS)
def test_every_spelling_of_a_login_is_understood(commands: bytes, prompts: bytes, hello: bytes, chunk: int) -> None:
    talk = greeted()
    talk.client(hello, chunk)
    assert talk.client(commands, chunk) == prompts
    assert talk.login == ("u@x", "p")
    assert talk.dialogue.backlog == 0


ANSWERED = [
    (b"EHLO x\r\n", EHLO_REPLY),
    (b"ehlo x\r\n", EHLO_REPLY),
    (b"HELO x\r\n", b"250 emailproxy\r\n"),
    (b"HELO\r\n", b"250 emailproxy\r\n"),
    (b"NOOP\r\n", b"250 2.0.0 OK\r\n"),
    (b"RSET\r\n", b"250 2.0.0 OK\r\n"),
    (b"VRFY x\r\n", b"252 2.5.0 Cannot verify before login\r\n"),
    (b"HELP\r\n", b"214 2.0.0 Log in with AUTH PLAIN or AUTH LOGIN\r\n"),
    (b"QUIT\r\n", b"221 2.0.0 Bye\r\n"),
]


@pytest.mark.parametrize(("command", "reply"), ANSWERED)
def test_what_may_come_before_the_login_is_answered(command: bytes, reply: bytes) -> None:
    talk = greeted()
    assert talk.client(command) == reply
    assert talk.hung_up == (command == b"QUIT\r\n")


def test_rset_noop_vrfy_and_a_second_ehlo_before_auth() -> None:
    talk = greeted()
    talk.client(b"EHLO x\r\nRSET\r\nNOOP\r\nVRFY x\r\nEHLO x\r\n")
    assert [line[:3] for line in talk.said.split(b"\r\n") if line[3:4] == b" "] == [
        b"250",
        b"250",
        b"250",
        b"252",
        b"250",
    ]
    talk.client(LOGIN["SMTP"])
    assert len(talk.asked) == 1


@pytest.mark.parametrize("command", [b"MAIL FROM:<a@b>", b"RCPT TO:<a@b>", b"DATA"])
def test_mail_without_a_login_says_where_to_switch_it_on(command: bytes) -> None:
    """Bad input 24."""
    talk = greeted()
    assert talk.client(command + b"\r\n") == LOGIN_FIRST
    assert LOGIN_FIRST.startswith(b"530 5.7.0 ")
    assert b"this client sent no login; switch on authentication" in LOGIN_FIRST
    assert talk.sent == b""
    assert not talk.over


def test_a_chunk_before_the_login_is_not_read_as_commands() -> None:
    """RFC 3030: the octets follow BDAT unasked."""
    talk = greeted()
    assert talk.client(b"BDAT 40 LAST\r\n" + LOGIN["SMTP"]) == LOGIN_FIRST
    assert talk.hung_up
    assert talk.asked == []


REFUSED = [
    pytest.param(b"AUTH LOGIN\r\n*\r\n", b"501 5.5.2 the authentication was cancelled\r\n", id="bad input 21"),
    pytest.param(b"AUTH LOGIN dQ==\r\n\xff\xfe\r\n", b"501 5.5.2 the response is not base64\r\n", id="bad input 22"),
    pytest.param(b"AUTH PLAIN\r\n*\r\n", b"501 5.5.2 the authentication was cancelled\r\n", id="a response of *"),
    pytest.param(b"AUTH PLAIN ====\r\n", b"501 5.5.2 the response is not base64\r\n", id="not base64"),
    pytest.param(b"AUTH CRAM-MD5\r\n", b"504 5.5.4 this mechanism is not offered", id="CRAM-MD5"),
    pytest.param(b"AUTH\r\n", b"504 5.5.4 this mechanism is not offered", id="AUTH alone"),
    pytest.param(b"STARTTLS\r\n", b"502 5.5.1 STARTTLS is not offered on this port", id="STARTTLS, not offered"),
    pytest.param(b"EHLO\r\n", b"501 5.5.4 EHLO takes a name\r\n", id="EHLO alone"),
    pytest.param(b"XYZZY\r\n", b"500 5.5.1 Command not recognized\r\n", id="no command"),
    pytest.param(b"\r\n", b"500 5.5.1 Command not recognized\r\n", id="an empty line"),
    pytest.param(b"AUTH PLAIN " + b64(b"\0a\nb\0p") + b"\r\n", b"535 5.7.8 the user name", id="a bad name"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("commands", "reply"), REFUSED)
def test_a_bad_command_is_refused_and_the_next_login_works(commands: bytes, reply: bytes, chunk: int) -> None:
    talk = greeted()
    talk.client(b"NOOP\r\n")
    heard = [line for line in talk.client(commands, chunk).splitlines(keepends=True) if not line.startswith(b"334 ")]
    assert len(heard) == 1
    assert heard[0].startswith(reply)
    assert talk.asked == []
    talk.client(LOGIN["SMTP"])
    assert len(talk.asked) == 1


CLOSING = [
    pytest.param(b"EHLO x\nAUTH PLAIN " + P + b"\n", b"500 5.5.2 a line ended by LF without CR\r\n", id="bad input 18"),
    pytest.param(b"X" * 8193, b"500 5.5.2 a line of more than 8192 octets\r\n", id="a line too long"),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: x\r\n", b"554 5.7.0 This is a mail server, not a web server\r\n", id="bad input 25"
    ),
    pytest.param(b"post / HTTP/1.1\r\n\r\n", b"554 5.7.0 This is a mail server, not a web server\r\n", id="POST"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("octets", "reply"), CLOSING)
def test_octets_that_are_no_command_close(octets: bytes, reply: bytes, chunk: int) -> None:
    talk = greeted()
    assert talk.client(octets, chunk) == reply
    assert talk.hung_up
    assert talk.asked == []


def test_starttls_with_a_command_behind_it_closes() -> None:
    """Bad input 20."""
    talk = greeted()
    assert talk.client(b"STARTTLS\r\nMAIL FROM:<a@b>\r\n") == b"500 5.5.2 octets behind STARTTLS\r\n"
    assert talk.hung_up


def test_pipelined_mail_waits_for_the_login() -> None:
    """Bad input 19: it goes on behind 235, and nowhere where the login fails."""
    mail = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    talk = greeted(answers=[credential()])
    talk.client(b"EHLO x\r\n" + LOGIN["SMTP"] + mail)
    assert talk.said == EHLO_REPLY
    assert talk.dialogue.backlog == len(mail)
    talk.serve(b"220 hello\r\n250-hello\r\n250 AUTH XOAUTH2\r\n")
    assert mail not in talk.sent
    talk.serve(b"235 2.7.0 welcome\r\n")
    assert talk.relay is not None
    assert talk.relay.to_server == mail

    talk = greeted(answers=[WrongPassword("wrong")])
    assert talk.client(LOGIN["SMTP"] + mail) == b"535 5.7.8 wrong\r\n" + LOGIN_FIRST * 3
    assert talk.dialogue.backlog == 0
    assert talk.sent == b""


SUCCESSES = [
    (b"235 2.7.0 Accepted \xff\r\n", b"235 2.7.0 Accepted \xff\r\n"),
    (b"235 Welcome\r\n", b"235 2.7.0 Authentication successful\r\n"),
    (b"235\r\n", b"235 2.7.0 Authentication successful\r\n"),
    (b"235-2.7.0 a\r\n235 2.7.0 b\r\n", b"235 2.7.0 Authentication successful\r\n"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("said", "heard"), SUCCESSES)
def test_success_has_the_code_that_printers_want(said: bytes, heard: bytes, chunk: int) -> None:
    """Some QUIT after an unusual success text."""
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["SMTP"])
    talk.serve(b"220 hello\r\n250-hello\r\n250 AUTH XOAUTH2\r\n" + said, chunk)
    assert talk.relay is not None
    assert talk.relay.to_client == heard


# ---- capabilities

OFFERS = [
    pytest.param((), [], id="nothing"),
    pytest.param(("SIZE 35882577", "8BITMIME", "DSN"), [b"SIZE 35882577", b"8BITMIME", b"DSN"], id="what it will do"),
    pytest.param(("AUTH XOAUTH2 CRAM-MD5", "AUTH=LOGIN", "auth NTLM", "STARTTLS"), [], id="what cannot pass"),
]


@pytest.mark.parametrize(("seen", "theirs"), OFFERS)
def test_what_we_offer_is_built_from_what_the_server_offers(seen: ev.Capabilities, theirs: list[bytes]) -> None:
    """PLAIN and LOGIN only: a printer picks CRAM-MD5 where it is offered."""
    talk = Talk("SMTP", terms=ev.Terms(seen=seen))
    lines = talk.client(b"EHLO x\r\n").split(b"\r\n")
    assert lines[:-1] == [*(b"250-" + line for line in [b"emailproxy", *theirs]), b"250 AUTH PLAIN LOGIN"]


def test_an_unknown_servers_capabilities_are_waited_for() -> None:
    talk = Talk("SMTP")
    assert talk.client(b"EHLO x\r\n") == b""
    talk.serve(b"220 hello\r\n250-hello\r\n250-SIZE 1000\r\n250 AUTH XOAUTH2\r\n")
    assert talk.said.endswith(EHLO_REPLY)
    assert talk.learned == [SEEN]


def test_a_server_that_is_down_offers_what_we_can() -> None:
    talk = Talk("SMTP", dials=False)
    talk.client(b"EHLO x\r\n")
    talk.feed(ev.ServerEOF())
    assert talk.said.endswith(b"\r\n250-emailproxy\r\n250 AUTH PLAIN LOGIN\r\n")


# ---- the server's side


def test_a_server_without_extensions_offers_nothing() -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["SMTP"])
    talk.serve(b"220 hello\r\n250 hello\r\n")
    assert talk.said == b"454 4.7.0 the mail server offers neither XOAUTH2 nor OAUTHBEARER\r\n"
    assert talk.learned == [()]


def test_capabilities_before_tls_are_forgotten() -> None:
    talk = Talk("SMTP", terms=ev.Terms(starttls=True, ehlo_name="proxy.test"))
    assert talk.serve(b"220 hello\r\n") == b"EHLO proxy.test\r\n"
    assert talk.serve(b"250-hello\r\n250-EVIL\r\n250 StartTLS\r\n") == b"STARTTLS\r\n"
    assert talk.serve(b"220 go\r\n") == b"EHLO proxy.test\r\n"
    talk.serve(b"250-hello\r\n250 GOOD\r\n")
    assert talk.learned == [("GOOD",)]


def test_starttls_that_is_missing_is_a_fault_of_the_settings() -> None:
    talk = Talk("SMTP", terms=ev.Terms(starttls=True), answers=[credential()])
    talk.client(LOGIN["SMTP"])
    talk.serve(b"220 hello\r\n250-hello\r\n250 AUTH XOAUTH2\r\n")
    assert talk.said.endswith(
        b"454 4.7.0 the mail server does not offer STARTTLS on this port: check server_starttls and server_port\r\n"
    )
    assert talk.sent == b"EHLO [127.0.0.1]\r\n"


BROKEN = [
    pytest.param(b"250-a\r\n220 b\r\n", b"the mail server's reply is not SMTP", id="two codes"),
    pytest.param(b"hello\r\n", b"the mail server's reply is not SMTP", id="no code"),
    pytest.param(b"\r\n", b"the mail server's reply is not SMTP", id="nothing"),
    pytest.param(b"502 no EHLO\r\n", b"the mail server refuses EHLO: 502 no EHLO", id="EHLO refused"),
]


@pytest.mark.parametrize(("reply", "words"), BROKEN)
def test_a_server_that_does_not_speak_smtp_is_given_up(reply: bytes, words: bytes) -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["SMTP"])
    talk.serve(b"220 hello\r\n" + reply)
    assert talk.said == b"454 4.7.0 " + words + b"\r\n"


def token_that_makes(octets: int) -> str:
    """A token whose AUTH command in one line has so many octets, CRLF included."""
    room = octets - len(b"AUTH XOAUTH2 \r\n")
    assert room % 4 == 0
    return "t" * (room // 4 * 3 - len(b"user=u@x.test\x01auth=Bearer \x01\x01"))


@pytest.mark.parametrize(("octets", "inline"), [(511, True), (515, False), (3015, False)])
def test_a_long_command_is_sent_in_two_lines(octets: int, inline: bool) -> None:
    """RFC 5321 section 4.5.3.1.4: up to 512, and base64 grows by four."""
    token = token_that_makes(octets)
    server = SmtpServer()
    talk = Talk("SMTP", server, answers=[credential(token)])
    talk.client(LOGIN["SMTP"])
    assert (b"AUTH XOAUTH2" in server.heard) != inline
    assert server.responses == [f"user=u@x.test\x01auth=Bearer {token}\x01\x01".encode()]
    assert talk.relay is not None


@pytest.mark.parametrize("octets", [511, 515])
def test_a_failure_challenge_is_answered_by_an_empty_line(octets: int) -> None:
    server = SmtpServer(verdicts=["no", "yes"])
    answers = [credential(token_that_makes(octets)), credential()]
    talk = Talk("SMTP", server, answers=answers)
    talk.client(LOGIN["SMTP"])
    assert b"" in server.heard
    assert talk.asked[1].rejected == "535 5.7.8 no (status 401, schemes Bearer, scope mail)"
    assert talk.relay is not None
    assert talk.relay.credential.token.reveal() == TOKEN


@pytest.mark.parametrize("words", [b"454 4.7.0 x", b"432 4.3.2 Concurrent connections limit exceeded", b"421 x"])
def test_a_refusal_for_a_while_asks_for_no_fresh_token(words: bytes) -> None:
    talk = greeted(answers=[credential()])
    talk.client(LOGIN["SMTP"])
    talk.serve(b"220 hello\r\n250-hello\r\n250 AUTH XOAUTH2\r\n" + words + b"\r\n")
    assert talk.said == b"454 4.7.0 the mail server is not available: " + words + b"\r\n"
    assert len(talk.asked) == 1


def test_a_refusal_of_several_lines_is_told_in_one() -> None:
    talk = greeted(answers=[credential(), credential()])
    talk.client(LOGIN["SMTP"])
    talk.serve(b"220 hello\r\n250-hello\r\n250 AUTH XOAUTH2\r\n535-5.7.139 no\r\n535 ask an administrator\r\n")
    assert talk.asked[1].rejected == "535 5.7.139 no ask an administrator"
