"""SMTP for devices that cannot log in: the first MAIL is their login, and the server hears it as it came."""

from __future__ import annotations

import pytest

from emailproxy.errors import ConsentRequired, Kind, LoginRefused, TooManyLogins, WrongPassword
from emailproxy.wire import events as ev
from emailproxy.wire.smtp import LOGIN_FIRST, MAIL_FIRST
from tests.wire.driver import (
    CHUNKS,
    FRESH,
    LOGIN,
    TOKEN,
    USER,
    Talk,
    credential,
    is_one_clean_line,
    logged_in,
    remembering,
)
from tests.wire.servers import SmtpServer
from tests.wire.test_dialogue import ERRORS

PRINTER = "printer@x.test"
MAIL = b"mail FROM:<a@b>  SIZE=3 \xff\r\n"
ENVELOPE = b"RCPT TO:<c@d>\r\nDATA\r\nx\n\r\n.\r\nQUIT\r\n"


def printing(**options: object) -> Talk:
    """A connection of a device that will not log in, the greeting behind it."""
    options.setdefault("server", SmtpServer())
    terms = remembering("SMTP", login_as=PRINTER, **options.pop("changes", {}))  # type: ignore[arg-type]
    talk = Talk("SMTP", terms=terms, **options)  # type: ignore[arg-type]
    talk.said = b""
    return talk


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("hello", [b"EHLO x\r\n", b"HELO x\r\n", b""], ids=["EHLO", "HELO", "no hello"])
def test_mail_is_a_login_and_goes_on_as_it_came(hello: bytes, chunk: int) -> None:
    talk = printing(answers=[credential()])
    talk.client(hello, chunk)
    heard = talk.client(MAIL + ENVELOPE, chunk if chunk > 3 else len(MAIL))
    assert heard == b""
    assert talk.login == (PRINTER, "")
    assert logged_in(talk) == TOKEN
    assert talk.relay is not None
    assert talk.relay.login.user == PRINTER
    assert talk.relay.to_client == b""  # 235 answers no command of the client's
    assert talk.relay.to_server == (MAIL + ENVELOPE if chunk > 3 else MAIL)
    assert talk.server is not None
    assert talk.server.heard[0] == b"EHLO [127.0.0.1]"  # whatever the client said
    assert b"MAIL" not in talk.sent.upper()


def test_what_follows_waits_while_the_login_is_decided() -> None:
    talk = printing()
    talk.client(MAIL)
    talk.client(ENVELOPE)
    assert talk.dialogue.backlog == len(ENVELOPE)
    talk.feed(ev.TokenReady(credential()))
    assert talk.relay is not None
    assert talk.relay.to_server == MAIL + ENVELOPE


def test_what_the_server_says_behind_its_235_is_heard() -> None:
    talk = printing(answers=[credential()])
    assert talk.server is not None
    talk.server.judge = lambda verdict: b"235 2.7.0 ok\r\n421 x\r\n"  # type: ignore[method-assign]
    talk.client(MAIL)
    assert talk.relay is not None
    assert talk.relay.to_client == b"421 x\r\n"


def test_a_token_that_is_refused_is_replaced_here_too() -> None:
    talk = printing(server=SmtpServer(verdicts=["no", "yes"]), answers=[credential(), credential(FRESH)])
    assert talk.client(MAIL) == b""
    assert logged_in(talk) == FRESH


@pytest.mark.parametrize("error", ERRORS)
def test_a_refusal_answers_mail_with_a_code_that_mail_may_have(error: type[LoginRefused]) -> None:
    """454 and 535 are for AUTH (RFC 4954 section 6)."""
    talk = printing(answers=[error("Why; and the mend."), credential()])
    heard = talk.client(MAIL)
    code = {
        Kind.WRONG_LOGIN: b"530 5.7.0 ",
        Kind.TOKEN_REFUSED: b"530 5.7.0 ",
        Kind.TOO_MANY: b"421 4.7.0 ",
    }.get(error.kind, b"451 4.7.0 ")
    assert heard == code + b"Why; and the mend.\r\n"
    assert [(refused.login and refused.login.user) for refused in talk.refused] == [PRINTER]
    assert talk.hung_up == (error is TooManyLogins)
    if not talk.over:
        talk.client(MAIL)
        assert logged_in(talk) == TOKEN


def test_what_was_pipelined_behind_a_refused_mail_is_out_of_order() -> None:
    talk = printing(answers=[ConsentRequired("sign in"), credential()])
    heard = talk.client(MAIL + b"RCPT TO:<c@d>\r\nDATA\r\nRSET\r\n")
    assert heard == b"451 4.7.0 sign in\r\n" + MAIL_FIRST * 2 + b"250 2.0.0 OK\r\n"
    assert talk.client(MAIL + ENVELOPE) == b""
    assert logged_in(talk) == TOKEN


@pytest.mark.parametrize("command", [b"RCPT TO:<a@b>\r\n", b"DATA\r\n"])
def test_nothing_but_mail_is_a_login(command: bytes) -> None:
    talk = printing()
    assert talk.client(command) == MAIL_FIRST
    assert talk.asked == []
    assert not talk.over


def test_a_chunk_before_mail_is_not_read_as_commands() -> None:
    talk = printing()
    assert talk.client(b"BDAT 40 LAST\r\n" + MAIL) == MAIL_FIRST
    assert talk.hung_up
    assert talk.asked == []


def test_auth_on_the_same_port_is_a_login_as_ever() -> None:
    talk = printing(answers=[WrongPassword("wrong"), credential()])
    assert b"AUTH PLAIN LOGIN" in talk.client(b"EHLO x\r\n")
    talk.client(MAIL)
    heard = talk.client(LOGIN["SMTP"] + MAIL)
    assert heard == b""
    assert talk.login is not None
    assert talk.login[0] == USER
    assert talk.relay is not None
    assert talk.relay.to_client.startswith(b"235 2.7.0 ")
    assert talk.relay.to_server == MAIL


def test_a_refused_auth_keeps_the_codes_of_auth() -> None:
    talk = printing(answers=[WrongPassword("wrong"), WrongPassword("wrong")])
    assert talk.client(MAIL).startswith(b"530 ")
    assert talk.client(LOGIN["SMTP"]) == b"535 5.7.8 wrong\r\n"


def test_who_leaves_or_is_cut_off_meanwhile_is_told_as_ever() -> None:
    talk = printing()
    talk.client(MAIL)
    refused, said, _ = talk.feed(ev.Deadline())
    assert isinstance(refused, ev.Refused)
    assert isinstance(said, ev.ToClient)
    assert said.data.startswith(b"421 4.4.2 ")
    assert is_one_clean_line(said.data)


def test_it_is_opt_in() -> None:
    talk = Talk("SMTP", terms=remembering("SMTP"))
    assert talk.client(MAIL) == LOGIN_FIRST
    assert talk.asked == []


def test_where_tls_is_required_mail_waits_for_it_too() -> None:
    talk = printing(changes={"local_tls": ev.LocalTls.REQUIRED}, answers=[credential()])
    assert talk.client(MAIL).startswith(b"530 5.7.0 Must issue a STARTTLS command first")
    assert talk.asked == []
    talk.client(b"STARTTLS\r\n")
    talk.client(MAIL)
    assert logged_in(talk) == TOKEN


def test_where_the_account_names_the_server_mail_goes_there() -> None:
    talk = printing(changes={"routed": True}, answers=[credential()], routes=[remembering("SMTP", host="one.test")])
    talk.client(b"EHLO x\r\n")
    assert talk.dialled == 0
    talk.client(MAIL)
    assert logged_in(talk) == TOKEN
    assert talk.dialled == 1
