"""What clients really do, where no protocol's own tests have it."""

from __future__ import annotations

import base64

import pytest

from emailproxy.errors import WrongPassword
from tests.wire.driver import LOGIN, PROTOCOLS, Talk, credential, remembering


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


NAMES = ["user", "DOMAIN\\user", "User@Domain.test", "user@domain.test\\shared-mailbox", "jörg@domain.test"]
COMMANDS = {
    "IMAP": (b"a AUTHENTICATE PLAIN ", b"a AUTHENTICATE LOGIN\r\n"),
    "POP3": (b"AUTH PLAIN ", b"AUTH LOGIN\r\n"),
    "SMTP": (b"AUTH PLAIN ", b"AUTH LOGIN\r\n"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_user_names_of_every_form_go_on_as_they_are(protocol: str, name: str) -> None:
    plain, login = COMMANDS[protocol]
    for command in (plain + b64(f"\0{name}\0p") + b"\r\n", login + b64(name) + b"\r\n" + b64("p") + b"\r\n"):
        talk = Talk(protocol, terms=remembering(protocol))
        talk.client(command)
        assert talk.login == (name, "p")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_login_without_a_password_goes_on_as_such(protocol: str) -> None:
    """Old Outlook; that it starts no consent is up to who answers `NeedToken`."""
    talk = Talk(protocol, terms=remembering(protocol), answers=[WrongPassword("no password")])
    talk.client(COMMANDS[protocol][0] + b64("\0u\0") + b"\r\n")
    assert talk.login == ("u", "")
    assert not talk.over
    talk.client(LOGIN[protocol])
    assert len(talk.asked) == 2


BEHIND = {
    "IMAP": b"x1 CAPABILITY\r\nx2 ID NIL\r\n",
    "POP3": b"CAPA\r\n",
    "SMTP": b"EHLO again\r\nMAIL FROM:<a@b>\r\n",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_asks_again_after_the_login_asks_the_server(protocol: str) -> None:
    """A second EHLO behind AUTH is not ours to answer."""
    talk = Talk(protocol, terms=remembering(protocol))
    before = len(talk.said)
    talk.client(LOGIN[protocol] + BEHIND[protocol])
    assert talk.said[before:] == (b"+OK send PASS\r\n" if protocol == "POP3" else b"")
    assert talk.dialogue.backlog == len(BEHIND[protocol])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_leaves_after_a_refusal_is_let_go_with_a_word(protocol: str) -> None:
    talk = Talk(protocol, terms=remembering(protocol), answers=[WrongPassword("wrong"), credential()])
    leave = {"IMAP": b"z LOGOUT\r\n", "POP3": b"QUIT\r\n", "SMTP": b"QUIT\r\n"}[protocol]
    heard = talk.client(LOGIN[protocol] + leave)
    assert b"wrong\r\n" in heard
    assert {"IMAP": b"z OK", "POP3": b"+OK bye", "SMTP": b"221 "}[protocol] in heard
    assert talk.hung_up
    assert len(talk.asked) == 1


def test_a_client_that_wants_starttls_and_gets_none_may_log_in_all_the_same() -> None:
    """It says so, and a client whose setting is "if available" goes on."""
    commands = {"IMAP": b"s STARTTLS\r\n", "POP3": b"STLS\r\n", "SMTP": b"EHLO x\r\nSTARTTLS\r\n"}
    for protocol in PROTOCOLS:
        talk = Talk(protocol, terms=remembering(protocol))
        assert b"is not offered on this port: switch it off in the client" in talk.client(commands[protocol])
        talk.client(LOGIN[protocol])
        assert len(talk.asked) == 1
