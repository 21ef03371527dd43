"""A mail server that cannot prove who it is gets no credentials; the reason is logged, and told to the client."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from emailproxy.demo.certificates import Authority
from tests.e2e.harness.tenant import tenant


def expired(authority: Authority) -> ssl.SSLContext:
    return authority.issue("localhost", expired=True).server_context()


def wrong_host(authority: Authority) -> ssl.SSLContext:
    return authority.issue("elsewhere.example").server_context()


def self_signed(authority: Authority) -> ssl.SSLContext:
    return authority.issue("localhost", self_signed=True).server_context()


def of_a_stranger(authority: Authority) -> ssl.SSLContext:
    """Of an authority with the same name, so that only the signature tells the two apart."""
    folder = authority.certificate_file.parent / "stranger"
    folder.mkdir()
    return Authority.create(folder).issue("localhost").server_context()


@pytest.mark.parametrize("protocol", ["IMAP", "SMTP"])
@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (expired, "expired"),
        (wrong_host, "localhost"),
        (self_signed, "self.signed"),
        (of_a_stranger, "certificate"),
    ],
)
async def test_no_octet_of_a_credential_leaves(
    tmp_path: Path, protocol: str, issue: Callable[[Authority], ssl.SSLContext], reason: str
) -> None:
    async with tenant(tmp_path, mail_tls=issue) as ours:
        answer = await ours.refusal(protocol)
        assert ("[UNAVAILABLE]" if protocol == "IMAP" else "454") in answer
        await ours.proxy.printed(reason)
        assert ours.server.attempts == []
        # Neither in plaintext, nor after a handshake that should not have been finished.
        assert {line.split(" ")[0] for line in ours.server.heard} <= {"EHLO", "STARTTLS", "QUIT"}
