"""The private authority: what a client that trusts it accepts, and what not."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from emailproxy.demo.certificates import Authority


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> str | None:
    """A TLS handshake in memory; the protocol version."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (near, far):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return near.version()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "mail.example.test"])
def test_a_server_is_trusted_under_each_of_its_names(authority: Authority, name: str) -> None:
    certificate = authority.issue("localhost", "127.0.0.1", "mail.example.test")
    client = authority.client_context()
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT  # the default from Python 3.13 on
    assert shake_hands(client, certificate.server_context(), name) == "TLSv1.3"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", "has expired"),
        ("wrong host", "Hostname mismatch"),
        ("self-signed", "self-signed certificate"),
        ("another authority", "unable to get local issuer|self-signed certificate in certificate chain"),
    ],
)
def test_a_wrong_certificate_is_refused(authority: Authority, tmp_path: Path, kind: str, reason: str) -> None:
    match kind:
        case "expired":
            certificate = authority.issue("localhost", expired=True)
        case "wrong host":
            certificate = authority.issue("elsewhere.example.test")
        case "self-signed":
            certificate = authority.issue("localhost", self_signed=True)
        case _:
            certificate = Authority.create(tmp_path, "another").issue("localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        shake_hands(authority.client_context(), certificate.server_context(), "localhost")


def test_private_keys_are_for_their_owner_alone(authority: Authority) -> None:
    assert stat.S_IMODE(authority.issue("localhost").key_file.stat().st_mode) == 0o600
