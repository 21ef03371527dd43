"""TLS between the client and us: STARTTLS and STLS, offered or required, and octets sent behind them."""

from __future__ import annotations

import base64

import pytest

from emailproxy.errors import ServerUnavailable
from emailproxy.wire import events as ev
from emailproxy.wire.events import LocalTls, Side
from tests.wire.driver import (
    CHUNKS,
    LOGIN,
    PASSWORD,
    PROTOCOLS,
    SERVERS,
    USER,
    Talk,
    credential,
    logged_in,
    remembering,
)

COMMAND = {"IMAP": b"s STARTTLS\r\n", "POP3": b"STLS\r\n", "SMTP": b"STARTTLS\r\n"}
GO_AHEAD = {
    "IMAP": b"s OK begin TLS\r\n",
    "POP3": b"+OK begin TLS\r\n",
    "SMTP": b"220 2.0.0 Ready to start TLS\r\n",
}
WHAT = {"IMAP": b"c CAPABILITY\r\n", "POP3": b"CAPA\r\n", "SMTP": b"EHLO x\r\n"}
PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
TLS_FIRST = {
    "IMAP": b" NO [PRIVACYREQUIRED] log in after STARTTLS: switch it on in the client\r\n",
    "POP3": b"-ERR log in after STLS: switch STARTTLS on in the client\r\n",
    "SMTP": b"530 5.7.0 Must issue a STARTTLS command first\r\n",
}
OFFER = {
    # without TLS; where it is offered; where it is required
    "IMAP": (
        b"IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN\r\n",
        b"IMAP4rev1 SASL-IR STARTTLS AUTH=PLAIN AUTH=LOGIN\r\n",
        b"IMAP4rev1 SASL-IR STARTTLS LOGINDISABLED\r\n",
    ),
    "POP3": (
        b"USER\r\nSASL PLAIN LOGIN\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nTOP\r\n",
        b"USER\r\nSASL PLAIN LOGIN\r\nSTLS\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nTOP\r\n",
        b"STLS\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nTOP\r\n",
    ),
    "SMTP": (
        b"250-SIZE 1000\r\n250 AUTH PLAIN LOGIN\r\n",
        b"250-SIZE 1000\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
        b"250-SIZE 1000\r\n250 STARTTLS\r\n",
    ),
}
TLS_WORDS = (b"STARTTLS", b"STLS", b"LOGINDISABLED")


def talking(protocol: str, local_tls: LocalTls, **options: object) -> Talk:
    """A client's connection, the greeting behind it."""
    talk = Talk(protocol, terms=remembering(protocol, local_tls=local_tls), **options)  # type: ignore[arg-type]
    talk.said = b""
    return talk


def offered(protocol: str, talk: Talk) -> bytes:
    """The capabilities, from their first word on."""
    heard = talk.client(WHAT[protocol])
    start = {"IMAP": b"* CAPABILITY ", "POP3": b"+OK capabilities follow\r\n", "SMTP": b"250-emailproxy\r\n"}[protocol]
    assert heard.startswith(start)
    return heard.removeprefix(start).removesuffix(b".\r\n").removesuffix(b"c OK CAPABILITY completed\r\n")


# ---- the way into TLS


@pytest.mark.parametrize("local_tls", LocalTls)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_offered_depends_on_the_tls_there_is(protocol: str, local_tls: LocalTls) -> None:
    which = {LocalTls.OFFERED: 1, LocalTls.REQUIRED: 2}.get(local_tls, 0)
    assert offered(protocol, talking(protocol, local_tls)) == OFFER[protocol][which]


@pytest.mark.parametrize(("local_tls", "which"), [(LocalTls.OFFERED, 1), (LocalTls.REQUIRED, 2), (LocalTls.ACTIVE, 0)])
def test_the_greeting_of_imap_says_so_too(local_tls: LocalTls, which: int) -> None:
    talk = Talk("IMAP", terms=remembering("IMAP", local_tls=local_tls))
    assert talk.said == b"* OK [CAPABILITY " + OFFER["IMAP"][which].removesuffix(b"\r\n") + b"] emailproxy ready\r\n"


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("local_tls", [LocalTls.OFFERED, LocalTls.REQUIRED])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_the_handshake_a_login_goes_through(protocol: str, local_tls: LocalTls, chunk: int) -> None:
    server = SERVERS[protocol](extras=["SIZE 1000"] if protocol == "SMTP" else [])
    talk = talking(protocol, local_tls, server=server, answers=[credential()])
    offered(protocol, talk)
    before = len(talk.effects)
    assert talk.client(COMMAND[protocol], chunk) == GO_AHEAD[protocol]
    begun = [
        effect for effect in talk.effects[before:] if not isinstance(effect, ev.Connect | ev.ToServer | ev.Learned)
    ]
    assert begun == [ev.StartTls(Side.CLIENT, GO_AHEAD[protocol])]  # the reply comes with it, not before it
    assert talk.said.endswith(GO_AHEAD[protocol])  # no second greeting
    assert offered(protocol, talk) == OFFER[protocol][0]
    talk.client(LOGIN[protocol], chunk)
    assert talk.login == (USER, PASSWORD)
    assert logged_in(talk)
    assert talk.dialled == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_said_before_the_handshake_is_over(protocol: str) -> None:
    """Not even what was asked for before."""
    terms = ev.Terms(local_tls=LocalTls.OFFERED)
    talk = Talk(protocol, SERVERS[protocol](), terms=terms, dials=False, shakes_hands=False)
    talk.client(COMMAND[protocol])
    said = talk.said
    if protocol == "IMAP":  # the greeting waits for the server's capabilities, and so does all that follows it
        assert said == b""
        talk.feed(ev.ServerFailed(ServerUnavailable("down")))
        assert talk.said.endswith(GO_AHEAD[protocol])
        return
    assert said.endswith(GO_AHEAD[protocol])
    talk.feed(ev.ServerFailed(ServerUnavailable("down")), ev.TlsStarted(Side.SERVER))
    assert talk.said == said
    talk.feed(ev.TlsStarted(Side.CLIENT))
    assert talk.said == said
    assert talk.client(WHAT[protocol]) != b""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_pipelined_before_it_is_answered_before_it(protocol: str) -> None:
    talk = talking(protocol, LocalTls.REQUIRED)
    heard = talk.client(WHAT[protocol] + COMMAND[protocol])
    assert heard.endswith(GO_AHEAD[protocol])
    assert OFFER[protocol][2] in heard


SECOND = {
    "IMAP": b"s BAD STARTTLS is not needed: TLS is active already\r\n",
    "POP3": b"-ERR STLS is not needed: TLS is active already\r\n",
    "SMTP": b"503 5.5.1 STARTTLS is not needed: TLS is active already\r\n",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_second_one_is_refused(protocol: str) -> None:
    talk = talking(protocol, LocalTls.OFFERED)
    talk.client(COMMAND[protocol])
    assert talk.client(COMMAND[protocol]) == SECOND[protocol]
    assert talking(protocol, LocalTls.ACTIVE).client(COMMAND[protocol]) == SECOND[protocol]
    assert sum(isinstance(effect, ev.StartTls) for effect in talk.effects) == 1
    assert not talk.over


ARGUMENTS = {
    "IMAP": b"s BAD this command takes no arguments\r\n",
    "POP3": b"-ERR STLS takes no arguments\r\n",
    "SMTP": b"501 5.5.4 STARTTLS takes no parameters\r\n",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_takes_no_arguments(protocol: str) -> None:
    talk = talking(protocol, LocalTls.OFFERED)
    assert talk.client(COMMAND[protocol].replace(b"\r\n", b" now\r\n")) == ARGUMENTS[protocol]
    assert talk.client(COMMAND[protocol]) == GO_AHEAD[protocol]


def test_what_pop3_knew_before_tls_is_forgotten() -> None:
    talk = talking("POP3", LocalTls.OFFERED)
    talk.client(b"USER evil@x.test\r\nSTLS\r\n")
    assert talk.client(b"PASS local-canary\r\n") == b"-ERR send USER first\r\n"


# ---- octets behind the command

BEHIND = {
    "IMAP": (b"b LOGIN u p\r\n", b"* BAD octets behind STARTTLS\r\n* BYE closing\r\n"),
    "POP3": (b"USER u\r\n", b"-ERR octets behind STLS\r\n"),
    "SMTP": (b"MAIL FROM:<a@b>\r\n", b"500 5.5.2 octets behind STARTTLS\r\n"),
}


@pytest.mark.parametrize("local_tls", LocalTls)
@pytest.mark.parametrize("behind", ["a command", "one octet"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_octets_in_the_same_segment_close(protocol: str, behind: str, local_tls: LocalTls) -> None:
    """Bad inputs 7, 15 and 20 (CVE-2021-33515): whether offered or not, and no login."""
    talk = talking(protocol, local_tls, answers=[credential()])
    octets, reply = BEHIND[protocol]
    assert talk.client(COMMAND[protocol] + (octets if behind == "a command" else b"\0")) == reply
    assert talk.hung_up
    assert talk.asked == []


@pytest.mark.parametrize("local_tls", [LocalTls.OFFERED, LocalTls.REQUIRED])
@pytest.mark.parametrize("octets", [b"x", b"\x16\x03\x01", b"\r\n"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_octets_between_the_go_ahead_and_tls_close(protocol: str, octets: bytes, local_tls: LocalTls) -> None:
    talk = talking(protocol, local_tls, shakes_hands=False)
    talk.client(COMMAND[protocol])
    effects = talk.feed(ev.ClientData(octets))
    assert effects == [ev.Hangup("the client sent octets behind STARTTLS, in plaintext")]


@pytest.mark.parametrize("event", [ev.Deadline(), ev.Draining(), ev.ClientEOF()])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_is_shaking_hands_hears_no_last_words(protocol: str, event: ev.Event) -> None:
    """They would be plaintext where a TLS record is expected."""
    talk = talking(protocol, LocalTls.OFFERED, shakes_hands=False)
    talk.client(COMMAND[protocol])
    (effect,) = talk.feed(event)
    assert isinstance(effect, ev.Hangup)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_that_nobody_asked_for_is_none(protocol: str) -> None:
    talk = talking(protocol, LocalTls.REQUIRED)
    talk.feed(ev.TlsStarted(Side.CLIENT))
    assert TLS_FIRST[protocol] in talk.client(LOGIN[protocol])
    assert talk.asked == []


# ---- no login before TLS, where it is required

ATTEMPTS = [
    pytest.param("IMAP", b"a LOGIN u@x.test local-canary\r\n", 1, id="IMAP LOGIN"),
    pytest.param("IMAP", b'a login "u" "p"\r\n', 1, id="IMAP login"),
    pytest.param("IMAP", b"a LOGIN u {12+}\r\nlocal-canary\r\n", 1, id="IMAP LOGIN, a literal that nobody asked for"),
    pytest.param("IMAP", b"a LOGIN {8}\r\n", 1, id="IMAP LOGIN, the user's literal"),
    pytest.param("IMAP", b"a LOGIN u@x.test {12}\r\n", 1, id="IMAP LOGIN, the password's literal"),
    pytest.param("IMAP", b"a LOGIN {8+}\r\nu@x.test {12}\r\n", 1, id="IMAP LOGIN, one literal of each kind"),
    pytest.param("IMAP", b"a AUTHENTICATE PLAIN " + PLAIN + b"\r\n", 1, id="IMAP AUTHENTICATE PLAIN inline"),
    pytest.param("IMAP", b"a AUTHENTICATE PLAIN\r\n", 1, id="IMAP AUTHENTICATE PLAIN"),
    pytest.param("IMAP", b"a AUTHENTICATE PLAIN {40}\r\n", 1, id="IMAP AUTHENTICATE PLAIN, a literal"),
    pytest.param("IMAP", b"a AUTHENTICATE LOGIN\r\n", 1, id="IMAP AUTHENTICATE LOGIN"),
    pytest.param("POP3", b"USER u@x.test\r\n", 1, id="POP3 USER"),
    pytest.param("POP3", b"USER u@x.test\r\nPASS local-canary\r\n", 2, id="POP3 USER and PASS"),
    pytest.param("POP3", b"PASS local-canary\r\n", 1, id="POP3 PASS"),
    pytest.param("POP3", b"AUTH PLAIN " + PLAIN + b"\r\n", 1, id="POP3 AUTH PLAIN inline"),
    pytest.param("POP3", b"AUTH PLAIN\r\n", 1, id="POP3 AUTH PLAIN"),
    pytest.param("POP3", b"AUTH\r\n", 1, id="POP3 AUTH, for the mechanisms"),
    pytest.param("SMTP", b"AUTH PLAIN " + PLAIN + b"\r\n", 1, id="SMTP AUTH PLAIN inline"),
    pytest.param("SMTP", b"AUTH PLAIN\r\n", 1, id="SMTP AUTH PLAIN"),
    pytest.param("SMTP", b"AUTH LOGIN\r\n", 1, id="SMTP AUTH LOGIN"),
    pytest.param("SMTP", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", 3, id="SMTP MAIL, RCPT, DATA"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("protocol", "octets", "replies"), ATTEMPTS)
def test_no_password_is_taken_or_asked_for_before_tls(protocol: str, octets: bytes, replies: int, chunk: int) -> None:
    """Often: it is no mistake of the kind that ends a connection."""
    talk = talking(protocol, LocalTls.REQUIRED, server=SERVERS[protocol](), answers=[credential()])
    tag = b"a" if protocol == "IMAP" else b""
    for _ in range(12):
        assert talk.client(octets, chunk) == (tag + TLS_FIRST[protocol]) * replies
    assert talk.asked == []
    assert not talk.over
    assert len(talk.noted) == 1
    assert "without TLS" in talk.noted[0]
    assert "choose STARTTLS" in talk.noted[0]
    talk.client(COMMAND[protocol])
    talk.client(LOGIN[protocol], chunk)
    assert logged_in(talk)


def test_a_chunk_before_tls_is_not_read_as_commands() -> None:
    talk = talking("SMTP", LocalTls.REQUIRED)
    assert talk.client(b"BDAT 40 LAST\r\n" + LOGIN["SMTP"]) == TLS_FIRST["SMTP"]
    assert talk.hung_up
    assert talk.asked == []


def test_what_holds_no_password_may_still_be_a_literal() -> None:
    talk = talking("IMAP", LocalTls.REQUIRED)
    assert talk.client(b'a ID ("x" {1}\r\n') == b"+ OK\r\n"
    assert talk.client(b"\n)\r\n") == b"* ID NIL\r\na OK ID completed\r\n"
    assert talk.client(b"\xff {1}\r\n") == b"+ OK\r\n"
    assert talk.noted == []


@pytest.mark.parametrize("local_tls", [LocalTls.NONE, LocalTls.OFFERED, LocalTls.ACTIVE])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_where_tls_is_not_required_a_login_needs_none(protocol: str, local_tls: LocalTls) -> None:
    talk = talking(protocol, local_tls, server=SERVERS[protocol](), answers=[credential()])
    talk.client(LOGIN[protocol])
    assert logged_in(talk)
    assert talk.noted == []
