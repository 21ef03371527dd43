"""What a transcript shows, and what it never shows."""

from __future__ import annotations

import pytest

from emailproxy.demo.transcript import LineTap, Speaker, Transcript, without_secrets

TOKEN = b"eyJhbGciOiJSUzI1NiIsImtpZCI6ImRlZmF1bHQifQ.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"a1 LOGIN demo@example.test hunter2\r\n", "a1 LOGIN demo@example.test ******"),
        (b'a1 login demo "a b"', "a1 login demo ******"),
        (b"PASS hunter two", "PASS ******"),
        (b"AUTH PLAIN AGEAYg==", "AUTH PLAIN ******"),
        (b"250 AUTH PLAIN LOGIN", "250 AUTH PLAIN LOGIN"),
        (b"a AUTHENTICATE PLAIN AGEAYg==", "a AUTHENTICATE PLAIN ******"),
        (b"AUTH XOAUTH2 " + b"dXNlcj1kZW1v" * 9, "AUTH XOAUTH2 dXNlcj1kZW1v…"),
        (TOKEN, "eyJhbGciOiJS…"),
        (b"USER demo@example.test", "USER demo@example.test"),
        (b"\x1b[31m\x00", "·[31m·"),
    ],
)
def test_secrets_are_cut_from_a_line(line: bytes, shown: str) -> None:
    assert without_secrets(line) == shown


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_tap_gets_whole_lines_of_any_pieces(size: int) -> None:
    heard: list[str] = []
    tap = LineTap(lambda _protocol, _speaker, text: heard.append(text), "POP", Speaker.CLIENT)
    octets = b"USER demo\r\nPASS hunter2\r\nQUIT"
    for start in range(0, len(octets), size):
        tap.feed(octets[start : start + size])
    assert heard == ["USER demo", "PASS ******"]


def test_each_side_has_its_listener_and_a_closed_protocol_records_no_more() -> None:
    transcript = Transcript()
    transcript.near("IMAP", Speaker.CLIENT, "1")
    transcript.far("IMAP", Speaker.CLIENT, "2")
    transcript.far("IMAP", Speaker.SERVER, "3")
    transcript.near("IMAP", Speaker.SERVER, "4")
    transcript.close("IMAP")
    transcript.near("IMAP", Speaker.CLIENT, "5")
    transcript.near("POP", Speaker.CLIENT, "6")
    assert [(line.speaker.value, line.listener.value, line.text) for line in transcript.take()] == [
        ("client", "proxy", "1"),
        ("proxy", "server", "2"),
        ("server", "proxy", "3"),
        ("proxy", "client", "4"),
        ("client", "proxy", "6"),
    ]
    assert transcript.take() == ()


def test_hidden_texts_are_cut_wherever_they_are() -> None:
    transcript = Transcript("aHVudGVyMg==")
    transcript.near("SMTP", Speaker.CLIENT, "aHVudGVyMg==")
    assert [line.text for line in transcript.take()] == ["******"]
