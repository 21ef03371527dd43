"""Networks, mail servers and proxies, as a configuration writes them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emailproxy.config import network, parameters
from emailproxy.config.hosts import is_local_address
from emailproxy.config.model import LocalStartTls, MailServer
from emailproxy.config.values import Wrong

LOOPBACKS = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

READ: list[tuple[Callable[[str], Any], str, Any]] = [
    (network.networks, "10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
    (network.networks, "192.168.1.7", (ip_network("192.168.1.7/32"),)),
    (network.networks, "fd00::/8, ::1\n10.2.0.0/16", tuple(map(ip_network, ("fd00::/8", "::1", "10.2.0.0/16")))),
    (network.networks, "Loopback, 127.0.0.0/8", LOOPBACKS),
    (network.networks, "0.0.0.0/0 ::/0", (ip_network("0.0.0.0/0"), ip_network("::/0"))),
    (network.mail_server, "imap.example.com:993", MailServer("imap.example.com", 993)),
    (network.mail_server, "smtp.example.com:587/starttls", MailServer("smtp.example.com", 587, True)),
    (network.mail_server, "smtp.example.com:587/STARTTLS", MailServer("smtp.example.com", 587, True)),
    (network.mail_server, "[2001:db8::1]:993", MailServer("2001:db8::1", 993)),
    (network.mail_server, "192.0.2.1:143/starttls", MailServer("192.0.2.1", 143, True)),
    (network.local_starttls, "off", LocalStartTls.OFF),
    (network.local_starttls, "False", LocalStartTls.OFF),
    (network.local_starttls, "Offered", LocalStartTls.OFFERED),
    (network.local_starttls, "required", LocalStartTls.REQUIRED),
    (network.local_starttls, "True", LocalStartTls.REQUIRED),
    (network.no_proxy, "a, .Example.com 10.0.0.0/8,*.b.org", ("a", ".example.com", "10.0.0.0/8", "*.b.org")),
    (network.no_proxy, "*", ("*",)),
    (parameters.aliases, "anna, EX\\anna\nAnna,a@b.org\\shared box", ("Anna", "EX\\anna", "a@b.org\\shared box")),
]  # fmt: skip

REFUSED: list[tuple[Callable[[str], Any], str, str, str]] = [
    (network.networks, "10.0.0.5/8", "a network's length", "write 10.0.0.0/8"),
    (network.networks, "10.0.0.0/33", "no address or network", "192.168.1.0/24"),
    (network.networks, "lan", "no address or network", "192.168.1.0/24"),
    (network.networks, "loopbak", "no address or network", "did you mean loopback?"),
    (network.networks, " , ", "names no network", "192.168.1.0/24"),
    (network.mail_server, "imap.example.com", "no host and port", "HOST:PORT"),
    (network.mail_server, "imap.example.com:imap", "no host and port", "HOST:PORT"),
    (network.mail_server, "2001:db8::1:993", "no host and port", "HOST:PORT"),
    (network.mail_server, "[imap.example.com]:993", "no host and port", "HOST:PORT"),
    (network.mail_server, "imaps://imap.example.com:993", "no host and port", "HOST:PORT"),
    (network.mail_server, "imap.example.com:0", "no port", "1 to 65535"),
    (network.mail_server, "imap.example.com:65536", "no port", "1 to 65535"),
    (network.mail_server, "imap.example.com:993/tls", "no way to connect", "write /starttls"),
    (network.local_starttls, "offerd", "not one of its values", "did you mean offered?"),
    (network.local_starttls, "perhaps", "not one of its values", "off, offered, required"),
    (network.upstream_proxy, "ftp://proxy.example.com:1", "no proxy's URL", "socks5h://HOST:PORT"),
    (network.upstream_proxy, "http://proxy.example.com:1/path", "no proxy's URL", "http://HOST:PORT"),
    (network.upstream_proxy, "socks5://:word@proxy.example.com:1", "no user name", "correct its user name"),
    (network.no_proxy, "a b..c", "no host, domain or network", "write hosts"),
    (network.no_proxy, ",", "names nothing", "write hosts"),
    (parameters.aliases, "anna, @example.com", "no user name", "one on each line"),
    (parameters.aliases, ", ,", "names nobody", "one on each line"),
    (parameters.aliases, "x" * 255, "no user name", "one on each line"),
]


@pytest.mark.parametrize(("reader", "text", "expected"), READ)
def test_a_value_is_read(reader: Callable[[str], Any], text: str, expected: Any) -> None:
    assert reader(text) == expected


@pytest.mark.parametrize(("reader", "text", "what", "mend"), REFUSED)
def test_a_wrong_value_is_refused_with_its_mend(reader: Callable[[str], Any], text: str, what: str, mend: str) -> None:
    with pytest.raises(Wrong) as caught:
        reader(text)
    assert what in caught.value.what
    assert mend in caught.value.mend


@pytest.mark.parametrize(
    "url", ["http://proxy.example.com:3128", "socks5://anna:w%40rd@[2001:db8::1]:1080", "socks5h://proxy.example.com:1080"]
)  # fmt: skip
def test_a_proxy_is_a_secret(url: str) -> None:
    found = network.upstream_proxy(url)
    assert found.reveal() == url
    assert "proxy" not in repr(found)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (None, True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("mail.localhost", False),  # what it leads to, only a resolver knows
        ("my-host", False),
    ],
)
def test_only_what_is_certain_to_be_a_loopback_is_one(address: str | None, local: bool) -> None:
    assert is_local_address(address) is local


PIECES = ("10.0.0.0/8", "loopback", "::1", "[", "]", ":", "/", ",", "a.b", "993", "*", "@")
WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=6)).map("".join)
READERS = sorted({reader for reader, *_ in READ}, key=lambda reader: reader.__name__)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*READERS, network.upstream_proxy]), WORDS)
def test_any_text_is_read_or_refused(reader: Callable[[str], Any], text: str) -> None:
    refused = None
    try:
        assert reader(text)
    except Wrong as wrong:
        refused = wrong
    assert refused is None or (refused.what and refused.mend)
