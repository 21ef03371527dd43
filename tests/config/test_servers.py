"""The listening sections: what they say of clients, of TLS, and of those who do not log in."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from emailproxy.config import ini
from emailproxy.config.model import FirstLogin, LocalStartTls, MailProtocol, MailServer, Server
from emailproxy.config.sources import FromEnvironment
from emailproxy.errors import ConfigError
from emailproxy.secret import Secret
from tests.config.samples import ACCOUNT, ACCOUNT_KEYS, GOOD, SERVER, config, faults

SMTP = "[SMTP-2465]\nserver_address = smtp.example.com\nserver_port = 465\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n"


def server(text: str) -> Server:
    [found] = config(f"{text}{ACCOUNT}").servers
    return found


def test_every_key_reaches_the_model() -> None:
    found = server(
        f"{SMTP}first_login = Deny\nallow_from = 10.0.0.0/8\nallow_plaintext_from = 10.1.0.0/16\n"
        "proxy_protocol_from = 10.0.0.2\nmax_connections_per_account = 3\nprewarm = 2\n"
        "local_address = 10.0.0.1\n"
        "login_as = Anna@example.com\nlogin_as_password = canary\n"
    )
    assert found.target == MailServer("smtp.example.com", 465)
    assert found.first_login is FirstLogin.DENY
    assert found.allow_from == (ip_network("10.0.0.0/8"),)
    assert found.allow_plaintext_from == (ip_network("10.1.0.0/16"),)
    assert found.proxy_protocol_from == (ip_network("10.0.0.2/32"),)
    assert found.max_connections_per_account == 3
    assert found.prewarm == 2
    assert (found.login_as, found.login_as_password) == ("Anna@example.com", Secret("canary"))
    assert "canary" not in repr(found)


def test_every_setting_reaches_the_model() -> None:
    found = config(
        "[emailproxy]\nmax_connections_per_account = 4\nmax_unauthenticated = 5\nlogin_queue = 1 min\nruntime_dir = r\n"
        f"upstream_proxy = socks5h://anna:canary@proxy.example.com:1080\nno_proxy = .example.org, ::1\n{GOOD}"
    ).settings
    assert (found.max_connections_per_account, found.max_unauthenticated, found.login_queue) == (4, 5, 60)
    assert found.runtime_dir == Path("/etc/emailproxy/r")
    assert found.upstream_proxy == Secret("socks5h://anna:canary@proxy.example.com:1080")
    assert found.no_proxy == (".example.org", "::1")
    assert "canary" not in repr(found)


def test_a_section_that_says_nothing_of_prewarm_has_what_all_have() -> None:
    servers = f"{SERVER}prewarm = 0\n{SMTP}[POP-1995]\nserver_address = pop.example.com\nserver_port = 995\n"
    found = config(f"[emailproxy]\nprewarm = 3\n{servers}{ACCOUNT}")
    assert [server.prewarm for server in found.servers] == [0, 3, 3]
    assert found.prewarmed == 6
    assert [server.prewarm for server in config(f"{servers}{ACCOUNT}").servers] == [0, 0, 0]
    routed = config(f"[emailproxy]\nprewarm = 3\n[IMAP-2993]\n{NAMED}")
    assert routed.prewarmed == 0


NAMED = f"[bob@example.com]\nimap_server = imap.example.com:993\n{ACCOUNT_KEYS}"
FAULTS = [
    (f"{SERVER}first_login = perhaps\n", 4, "first_login", "trust, deny"),
    (f"{SERVER}allow_from = 10.0.0.1/8\n", 4, "allow_from", "write 10.0.0.0/8"),
    (f"{SERVER}allow_from =\n", 4, "allow_from", "is empty"),
    (f"{SERVER}max_connections_per_account = 0\n", 4, "max_connections_per_account", "from 1 to"),
    (f"{SERVER}login_as = a@b\n", 4, "login_as", "move it to an [SMTP-PORT] section"),
    # addresses that are no loopback
    (f"{SERVER}local_address = 0.0.0.0\n", 4, "local_address", "allow_plaintext_from = 192.168.1.0/24"),
    (f"{SERVER}local_address = ::\n", 4, "local_address", "'emailproxy certificate'"),
    (f"{SERVER}local_address = mail.example.com\n", 4, "local_address", "not known to be a loopback"),
    (f"{SERVER}local_address = my.localhost\n", 4, "local_address", "not known to be a loopback"),
    # TLS
    (f"{SERVER}local_key_path = /no\n", 4, "local_key_path", "No such file"),
    (f"{SERVER}local_starttls = offered\n", 4, "local_starttls", "needs a certificate"),
    (f"{SERVER}local_certificate_path = {__file__}\n", 4, "local_certificate_path", "no certificate in PEM"),
    (f"{SERVER}local_certificate_path = /\n", 4, "local_certificate_path", "is not a file"),
    # clients that do not log in
    (f"{SMTP}login_as_password = x\n", 4, "login_as_password", "says nothing without login_as"),
    (f"{SMTP}allow_from = ::1\nlogin_as = anna@example.com\n", 5, "login_as", "add login_as_password"),
    (f"{SMTP}login_as_password = x\nlogin_as = anna@example.com\n", 5, "login_as", "add allow_from"),
    (
        f"{SMTP}login_as = eve@example.com\nallow_from = ::1\nlogin_as_password = x\n",
        4,
        "login_as",
        "add [eve@example.com]",
    ),
    # servers that the accounts name
    (f"{SERVER}prewarm = 101\n", 4, "prewarm", "from 0 to 100"),
    (f"[IMAP-2993]\nprewarm = 2\n{NAMED}", 2, "prewarm", "remove it: which server a login goes to"),
    (f"[IMAP-2993]\nserver_starttls = True\n{NAMED}", 2, "server_starttls", "imap_server = HOST:PORT/starttls"),
    (f"[IMAP-2993]\nstarttls = True\n{NAMED}", 2, "starttls", "imap_server = HOST:PORT/starttls"),
    ("[SMTP-2465]\n", 1, "server_address", "or smtp_server = HOST:PORT"),
    # everything else
    (f"[emailproxy]\nlogin_queue = 2 h\n{SERVER}", 2, "login_queue", "from 0 to 3600"),
    (f"[emailproxy]\nmax_unauthenticated = no\n{SERVER}", 2, "max_unauthenticated", "from 1 to"),
    (f"[emailproxy]\nupstream_proxy = https://proxy:1\n{SERVER}", 2, "upstream_proxy", "socks5://HOST:PORT"),
    (f"[emailproxy]\nno_proxy = a..b\n{SERVER}", 2, "no_proxy", "no host"),
]


@pytest.mark.parametrize(("text", "line", "key", "words"), FAULTS)
def test_a_fault_is_told_with_its_line_and_mend(text: str, line: int, key: str, words: str) -> None:
    found = [fault for fault in faults(f"{text}{ACCOUNT}") if "is read as" not in fault.what]
    assert [(fault.line, fault.key) for fault in found] == [(line, key)]
    assert words in str(found[0])


@pytest.mark.parametrize(
    "text",
    [
        "local_address = localhost\n",
        "local_address = 127.0.0.5\n",
        "local_address = 192.168.1.2\nallow_plaintext_from = 192.168.1.0/24\n",
        "local_starttls = off\n",
        "local_starttls = False\n",
        "allow_from = loopback\n",
    ],
)
def test_what_is_accepted_silently(text: str) -> None:
    assert config(f"{SERVER}{text}{ACCOUNT}").notices == ()


@pytest.mark.parametrize(
    ("key_in", "starttls", "expected"),
    [
        ("key.pem", "", LocalStartTls.OFF),
        ("key.pem", "local_starttls = True\n", LocalStartTls.REQUIRED),
        ("cert.pem", "local_starttls = offered\n", LocalStartTls.OFFERED),
    ],
)
@pytest.mark.parametrize("protocol", list(MailProtocol))
def test_with_a_certificate_any_address_may_be_listened_on(
    tmp_path: Path, protocol: MailProtocol, key_in: str, starttls: str, expected: LocalStartTls
) -> None:
    (tmp_path / "cert.pem").write_text(CERTIFICATE)
    with (tmp_path / key_in).open("a") as file:
        file.write(KEY)
    text = SERVER.replace("IMAP", protocol) + f"local_address = ::\nlocal_certificate_path = cert.pem\n{starttls}"
    text += "local_key_path = key.pem\n" if key_in == "key.pem" else ""
    config = ini.loads(f"{text}{ACCOUNT}", tmp_path / "x.ini")
    [found] = config.servers
    assert config.notices == ()
    assert (found.local_certificate, found.local_starttls) == (tmp_path / "cert.pem", expected)
    assert found.local_key == (tmp_path / "key.pem" if key_in == "key.pem" else None)


@pytest.mark.parametrize(
    ("files", "keys", "line", "words"),
    [
        ({"c": CERTIFICATE}, "local_certificate_path = c\n", 4, "add local_key_path"),
        ({"c": CERTIFICATE, "k": CERTIFICATE}, "local_certificate_path = c\nlocal_key_path = k\n", 5, "no private key"),
        ({"k": KEY}, "local_key_path = k\n", 4, "a key without its certificate"),
    ],
)
def test_a_certificate_comes_with_its_key(
    tmp_path: Path, files: dict[str, str], keys: str, line: int, words: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        ini.loads(f"{SERVER}{keys}{ACCOUNT}", tmp_path / "x.ini")
    [fault] = caught.value.faults
    assert fault.line == line
    assert words in str(fault)


@pytest.mark.parametrize(
    ("text", "on_loopback", "for_this_host"),
    [("", True, True), ("proxy_protocol_from = ::1\n", True, False), ("local_address = ::1\n", True, True)],
)
def test_behind_a_load_balancer_clients_may_be_anywhere(text: str, on_loopback: bool, for_this_host: bool) -> None:
    found = server(SERVER + text)
    assert (found.on_loopback, found.for_this_host) == (on_loopback, for_this_host)


def test_the_password_of_devices_may_stand_elsewhere(tmp_path: Path) -> None:
    text = f"{SMTP}allow_from = ::1\nlogin_as = anna@example.com\nlogin_as_password = env:SCANNER\n{ACCOUNT}"
    found = config(text)
    assert found.servers[0].login_as_password == FromEnvironment("SCANNER")
    assert "SCANNER" in found.variables
    file = tmp_path / "x.ini"
    for password, told in (("env:SCANNER", 0), ("word", 1)):
        file.write_text(text.replace("env:SCANNER", password))
        file.chmod(0o644)
        assert sum("chmod 600" in notice for notice in ini.load(file).notices) == told
