"""Host names and addresses."""

from __future__ import annotations

import pytest

from emailproxy.config import hosts


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, None, True),
        (None, "127.0.0.1", True),
        (None, "::1", True),
        (None, "localhost", True),
        (None, "0.0.0.0", True),
        (None, "::", True),
        (None, "192.0.2.1", False),
        ("127.0.0.1", "::1", False),
        ("0.0.0.0", "192.0.2.1", True),
        ("0.0.0.0", "::1", False),
        ("::", "192.0.2.1", False),
        ("Mail.example.com", "mail.example.com", True),
        ("mail.example.com", "0.0.0.0", True),
    ],
)
def test_which_addresses_claim_the_same_port(one: str | None, other: str | None, same: bool) -> None:
    assert hosts.overlap(one, other) is same
    assert hosts.overlap(other, one) is same


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("a.localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("", False),
        ("0.0.0.0", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_what_is_a_loopback(host: str, loopback: bool) -> None:
    assert hosts.is_loopback(host) is loopback
