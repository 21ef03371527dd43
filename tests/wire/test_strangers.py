"""Clients that do not speak mail: closed, with one hint in the log, however their first octets are split."""

from __future__ import annotations

import pytest

from emailproxy.wire import events as ev
from emailproxy.wire.strangers import recognise, undecided
from tests.wire.driver import CHUNKS, PROTOCOLS, Talk

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 143\r\na LOGIN u p\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"

STRANGERS = [
    pytest.param(HELLO, "TLS", id="bad input 26, TLS at a plaintext port"),
    pytest.param(HELLO[:1], "TLS", id="one octet of TLS"),
    pytest.param(V1, "PROXY", id="PROXY protocol, version 1"),
    pytest.param(V2, "PROXY", id="PROXY protocol, version 2"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("data", "word"), STRANGERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stranger_is_told_nothing_and_noted_once(protocol: str, data: bytes, word: str, chunk: int) -> None:
    talk = Talk(protocol, terms=ev.Terms(seen=("AUTH=XOAUTH2",)))
    assert talk.client(data, chunk) == b""
    assert talk.hung_up
    assert len(talk.noted) == 1
    assert word in talk.noted[0]
    assert talk.dialled == 0


ADVICE = [
    (ev.LocalTls.NONE, "switch SSL/TLS and STARTTLS off in the client"),
    (ev.LocalTls.OFFERED, "choose STARTTLS (not SSL/TLS)"),
    (ev.LocalTls.REQUIRED, "choose STARTTLS (not SSL/TLS)"),
]


@pytest.mark.parametrize(("local_tls", "advice"), ADVICE)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_speaks_tls_too_soon_is_advised_by_what_the_port_has(
    protocol: str, local_tls: ev.LocalTls, advice: str
) -> None:
    talk = Talk(protocol, terms=ev.Terms(seen=("AUTH=XOAUTH2",), local_tls=local_tls))
    talk.client(HELLO)
    assert talk.hung_up
    assert advice in talk.noted[0]


@pytest.mark.parametrize(
    ("first", "yet"),
    [
        (b"", True),
        (b"P", True),
        (b"PROXY", True),
        (b"PROXY ", False),
        (b"PROXIMA LOGIN", False),
        (b"\r\n\r\n\0", True),
        (b"\r\nx", False),
        (b"\x16", False),
        (b"EHLO x", False),
    ],
)
def test_a_beginning_is_judged_when_it_can_be(first: bytes, yet: bool) -> None:
    assert undecided(first) is yet


@pytest.mark.parametrize("first", [b"a LOGIN u p", b"PROXIMA", b"EHLO x", b"\r\n", b"\x15\x03"])
def test_mail_is_no_stranger(first: bytes) -> None:
    assert recognise(first, ev.LocalTls.NONE) is None


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_login_that_begins_like_a_stranger_is_none(chunk: int) -> None:
    """``P`` and ``PASS`` begin alike; an IMAP tag may be ``PROX``."""
    talk = Talk("IMAP", terms=ev.Terms(seen=("AUTH=XOAUTH2",)))
    talk.client(b"PROX LOGIN u p\r\n", chunk)
    assert talk.login == ("u", "p")
    pop3 = Talk("POP3")
    assert pop3.client(b"PASS p\r\n", chunk).startswith(b"-ERR ")
