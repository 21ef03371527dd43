"""A section's line in the log, as people search for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from emailproxy.config import ini
from emailproxy.service.words import started
from tests.config.samples import ACCOUNT
from tests.config.test_servers import CERTIFICATE, KEY

OWN = "local_certificate_path = tls.pem\n"


@pytest.mark.parametrize(
    ("protocol", "more", "local", "upstream"),
    [
        ("IMAP", "", "unsecured", "mail.example.com:1 (SSL/TLS)"),
        ("POP", OWN, "SSL/TLS", "mail.example.com:1 (SSL/TLS)"),
        ("SMTP", "server_starttls = True\n", "unsecured", "mail.example.com:1 (STARTTLS)"),
        ("SMTP", "starttls = True\n", "unsecured", "mail.example.com:1 (STARTTLS)"),
        ("SMTP", f"{OWN}local_starttls = True\n", "STARTTLS", "mail.example.com:1 (SSL/TLS)"),
    ],
)
def test_it_says_what_is_secured_on_either_side(
    tmp_path: Path, protocol: str, more: str, local: str, upstream: str
) -> None:
    (tmp_path / "tls.pem").write_text(CERTIFICATE + KEY)
    server = f"[{protocol}-7]\nserver_address = mail.example.com\nserver_port = 1\n{more}"
    [found] = ini.loads(server + ACCOUNT, tmp_path / "x.ini").servers
    assert started(found, [("127.0.0.1", 7), ("::1", 7)]) == [
        f"Starting {protocol} server at {place} ({local}) proxying {upstream}" for place in ("127.0.0.1:7", "[::1]:7")
    ]
