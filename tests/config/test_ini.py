"""Whole files: what they mean, and what is said of those that are wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from emailproxy.config import catchall, ini
from emailproxy.config.model import FlowName, MailProtocol
from emailproxy.config.scan import MAX_FILE_OCTETS
from emailproxy.errors import ConfigError
from emailproxy.secret import Secret
from tests.config.samples import (
    ACCOUNT,
    ACCOUNT_KEYS,
    DOCUMENTED,
    FILLED_IN,
    GOOD,
    PATH,
    SECRET,
    SERVER,
    config,
    faults,
)


def test_each_placeholder_of_the_documented_file_is_refused_by_name() -> None:
    found = [(fault.line, fault.section, fault.key, fault.what.split()[-1]) for fault in faults(DOCUMENTED)]
    assert found == [
        (13, "@", "redirect_uri", "<Your_Vault_Address>"),
        (15, "@", "token_url", "TENANT_ID"),
        (16, "@", "permission_url", "TENANT_ID"),
        (18, "@", "client_id", "CLIENT_ID"),
        (19, "@", "client_secret", "CLIENT_SECRET"),
    ]


def test_a_draft_may_hold_placeholders_and_lists_them() -> None:
    draft = ini.loads(DOCUMENTED, PATH, allow_placeholders=True)
    assert ini.placeholders(draft) == tuple(faults(DOCUMENTED))
    assert ini.placeholders(config(FILLED_IN)) == ()


def test_the_documented_file_filled_in_means_what_its_readers_expect() -> None:
    found = config(FILLED_IN)
    assert [(s.protocol, s.local_port, s.server_address, s.server_port, s.server_starttls) for s in found.servers] == [
        (MailProtocol.IMAP, 2993, "outlook.office365.com", 993, False),
        (MailProtocol.SMTP, 2465, "smtp.office365.com", 587, True),
    ]
    account = catchall.resolve(found, "Anna@Example.com")
    assert account.flow is FlowName.AUTHORIZATION_CODE
    assert account.token_url == "https://login.microsoftonline.com/contoso/oauth2/v2.0/token"
    assert account.scope.split()[2] == "https://outlook.office365.com/SMTP.Send"
    assert account.redirect_uri == "http://vault.example.com/email-oauth2-proxy-authorize/"
    assert account.listen_address == "127.0.0.1:8801"
    assert account.client_secret == Secret(SECRET)


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        (2, "delete_account_token_on_password_error", ["nothing is ever deleted", "set it to False"]),
        (11, "starttls", ["rename it to server_starttls"]),
        (14, "redirect_list_address", ["rename it to redirect_listen_address"]),
        (15, "token_url", ["Markdown", "write https://login.microsoftonline.com/contoso/oauth2/v2.0/token alone"]),
        (17, "oauth2_scope", ["SMPT", "write SMTP.Send"]),
        (20, "oauth2_flow", ["remove permission_url", "/.default", "remove oauth2_flow"]),
    ],
)
def test_each_slip_of_the_documented_file_is_told_with_line_key_and_mend(line: int, key: str, words: list[str]) -> None:
    notices = [notice for notice in config(FILLED_IN).notices if notice.startswith(f"{PATH}:{line}: ")]
    assert len(notices) == 1
    assert f" {key}: " in notices[0]
    assert all(word in notices[0] for word in words)


def test_the_documented_file_has_no_other_notices() -> None:
    assert len(config(FILLED_IN).notices) == 6


def test_with_a_default_scope_the_documented_file_uses_client_credentials() -> None:
    text = re.sub("oauth2_scope = .*", "oauth2_scope = https://outlook.office365.com/.default", FILLED_IN)
    found = config(text)
    assert catchall.resolve(found, "anna@example.com").flow is FlowName.CLIENT_CREDENTIALS
    assert not any("oauth2_flow" in notice for notice in found.notices)


FAULTS = [
    # bad inputs 35 and 38, and their kin
    (f"{GOOD}{SERVER}", [(9, "IMAP-2993", None, "first on line 1")]),
    (f"[DEFAULT]\nca_file = x\n{GOOD}", [(1, "DEFAULT", None, "inherited by every section")]),
    (f"[default]\nca_file = x\n{GOOD}", [(1, "default", None, "inherited by every section")]),
    (f"{GOOD}client_id = def\n", [(9, "anna@example.com", "client_id", "first on line 8")]),
    (f"{GOOD}CLIENT_ID = def\n", [(9, "anna@example.com", "client_id", "first on line 8")]),
    (f"{GOOD}[Anna@example.com]\n{ACCOUNT_KEYS}", [(9, "Anna@example.com", None, "only by case")]),
    (
        GOOD.replace("oauth2_scope", "[anna@example.com]\noauth2_scope"),
        [(7, "anna@example.com", None, "first on line 4")],
    ),
    (GOOD.replace("server_port", "[IMAP-2993]\nserver_port"), [(3, "IMAP-2993", None, "first on line 1")]),
    # lines
    (f"server_port = 1\n{GOOD}", [(1, None, None, "before the first section")]),
    (f"{GOOD}what is this\n", [(9, None, None, "not KEY = VALUE")]),
    (f"{GOOD}= value\n", [(9, None, None, "not KEY = VALUE")]),
    (f"{GOOD}[IMAP-2994\n", [(9, None, None, "not a section")]),
    (f"{GOOD}[a@b]]\n", [(9, None, None, "not a section")]),
    (f"{GOOD}[]\n", [(9, None, None, "not a section")]),
    (f"{GOOD}[a@b] x\n", [(9, None, None, "not a section")]),
    (f"{GOOD}[a@b] # [c@d]\n", [(9, None, None, "not a section")]),
    (f"{GOOD}redirect_uri = http://localhost/\x07\n", [(9, None, None, "control character")]),
    # misspelt
    (f"[emailproxi]\n{GOOD}", [(1, "emailproxi", None, "did you mean [emailproxy]?")]),
    (GOOD.replace("IMAP-2993", "IMPA-2993"), [(1, "IMPA-2993", None, "did you mean [IMAP-2993]?")]),
    (GOOD.replace("IMAP-2993", "imap-2993"), [(1, "imap-2993", None, "did you mean [IMAP-2993]?")]),
    (GOOD.replace("IMAP-2993", "POP3-2995"), [(1, "POP3-2995", None, "did you mean [POP-2995]?")]),
    (GOOD.replace("IMAP-2993", "IMAP 2993"), [(1, "IMAP 2993", None, "did you mean [IMAP-2993]?")]),
    (GOOD.replace("anna@example.com", "anna"), [(4, "anna", None, "has no @")]),
    (f"[emailproxy]\nconsent_wiat = 3\n{GOOD}", [(2, "emailproxy", "consent_wiat", "did you mean consent_wait?")]),
    (GOOD.replace("server_address", "server_adress"), [(2, "IMAP-2993", "server_adress", "did you mean")]),
    (GOOD.replace("token_url", "tokenurl"), [(5, "anna@example.com", "tokenurl", "did you mean token_url?")]),
    (f"{GOOD}server_port = 1\n", [(9, "anna@example.com", "server_port", "move it to a server's section")]),
    (f"{GOOD}ehlo_name = x\n", [(9, "anna@example.com", "ehlo_name", "move it to an [SMTP-PORT] section")]),
    (f"{SERVER}client_id = x\n{ACCOUNT}", [(4, "IMAP-2993", "client_id", "move it to an account's section")]),
    (f"{SERVER}ehlo_name = x\n{ACCOUNT}", [(4, "IMAP-2993", "ehlo_name", "move it to an [SMTP-PORT] section")]),
    (f"{GOOD}wholly_other = x\n", [(9, "anna@example.com", "wholly_other", "this section takes token_url")]),
    (f"{GOOD}https://a.example.com/scope\n", [(9, "anna@example.com", "https", "indent it")]),
    # servers
    ("[IMAP-2993]\n" + ACCOUNT, [(1, "IMAP-2993", "server_address", "or imap_server = HOST:PORT")]),
    (SERVER.replace("server_port = 993\n", "") + ACCOUNT, [(1, "IMAP-2993", "server_port", "is missing")]),
    (GOOD.replace("IMAP-2993", "IMAP-0"), [(1, "IMAP-0", None, "PORT from 1 to 65535")]),
    (GOOD.replace("IMAP-2993", "IMAP-65536"), [(1, "IMAP-65536", None, "PORT from 1 to 65535")]),
    (GOOD.replace("IMAP-2993", f"IMAP-{'9' * 5000}"), [(1, f"IMAP-{'9' * 55}...", None, "PORT from 1 to 65535")]),
    (GOOD.replace("= 993", "= 65536"), [(3, "IMAP-2993", "server_port", "from 1 to 65535")]),
    (GOOD.replace("= 993", "= ٣"), [(3, "IMAP-2993", "server_port", "from 1 to 65535")]),
    (GOOD.replace("= 993", "="), [(3, "IMAP-2993", "server_port", "is empty")]),
    (GOOD.replace("imap.ex", "https://ex"), [(2, "IMAP-2993", "server_address", "without the scheme")]),
    (GOOD.replace("example.com\ns", "x:993\ns"), [(2, "IMAP-2993", "server_address", "the port has a key")]),
    (GOOD.replace("imap.", "imap..", 1), [(2, "IMAP-2993", "server_address", "not a host name")]),
    (GOOD.replace("imap.example.com", "999.1.1.1"), [(2, "IMAP-2993", "server_address", "not a host name")]),
    (f"{SERVER}server_starttls = perhaps\n{ACCOUNT}", [(4, "IMAP-2993", "server_starttls", "True nor False")]),
    (f"{SERVER}starttls = 1\nserver_starttls = 1\n{ACCOUNT}", [(4, "IMAP-2993", "starttls", "another spelling")]),
    (f"{SERVER}ca_file = /no/such\n{ACCOUNT}", [(4, "IMAP-2993", "ca_file", "No such file")]),
    (f"{SERVER}ca_file = /\n{ACCOUNT}", [(4, "IMAP-2993", "ca_file", "cannot be read")]),
    (f"{SERVER}ca_file = {__file__}\n{ACCOUNT}", [(4, "IMAP-2993", "ca_file", "no certificate")]),
    (f"{SERVER}local_certificate_path = x\n{ACCOUNT}", [(4, "IMAP-2993", "local_certificate_path", "No such file")]),
    (GOOD + SERVER.replace("IMAP", "POP"), [(9, "POP-2993", None, "same local port as [IMAP-2993]")]),
    (
        f"{SERVER}local_address = 0.0.0.0\nallow_plaintext_from = loopback\n{ACCOUNT}" + SERVER.replace("IMAP", "POP"),
        [(11, "POP-2993", None, "same local port")],
    ),
    (
        "[SMTP-25]\nserver_address = a.example.com\n  server_port = 1\nserver_port = 2\n" + ACCOUNT,
        [(2, "SMTP-25", "server_address", "line 3 is indented")],
    ),
    (
        "[SMTP-25]\nserver_address = a\nserver_port = 1\nlocal_starttls = yes\n" + ACCOUNT,
        [(4, "SMTP-25", "local_starttls", "needs a certificate")],
    ),
    (
        "[SMTP-25]\nserver_address = a\nserver_port = 1\nehlo_name = a b\n" + ACCOUNT,
        [(4, "SMTP-25", "ehlo_name", "not a name")],
    ),
    # globals
    (f"[emailproxy]\nconsent_wait = nan\n{GOOD}", [(2, "emailproxy", "consent_wait", "from 0 to 3600")]),
    (f"[emailproxy]\nconsent_wait = inf\n{GOOD}", [(2, "emailproxy", "consent_wait", "from 0 to 3600")]),
    (f"[emailproxy]\nlogin_timeout = 0\n{GOOD}", [(2, "emailproxy", "login_timeout", "above 0")]),
    (f"[emailproxy]\nmax_connections = 0\n{GOOD}", [(2, "emailproxy", "max_connections", "from 1")]),
    (f"[emailproxy]\nmax_connections = {'9' * 5000}\n{GOOD}", [(2, "emailproxy", "max_connections", "from 1")]),
    (f"[emailproxy]\nlog_files = 1.5\n{GOOD}", [(2, "emailproxy", "log_files", "from 1")]),
    (f"[emailproxy]\nstate_dir = ~nobody-here/x\n{GOOD}", [(2, "emailproxy", "state_dir", "home folder")]),
    # accounts
    (
        f"{SERVER}[a@b]\n",
        [(4, "a@b", k, "is missing") for k in ("token_url", "oauth2_scope", "client_id")]
        + [(4, "a@b", "oauth2_flow", "permission_url")],
    ),
    (
        GOOD.replace("https://login.example.com/t", "http://login.example.com/t"),
        [(5, "anna@example.com", "token_url", "write https://")],
    ),
    (
        GOOD.replace("https://login.example.com/a", "ftp://login.example.com/a"),
        [(6, "anna@example.com", "permission_url", "not an https URL")],
    ),
    (GOOD.replace("https://login", "https://anna:hush@login", 1), [(5, "anna@example.com", "token_url", "user name")]),
    (GOOD.replace("com/token", "com:99999/token"), [(5, "anna@example.com", "token_url", "not a URL")]),
    (
        GOOD.replace("https://login.example.com/t", "https://[::1/t"),
        [(5, "anna@example.com", "token_url", "not a URL")],
    ),
    (GOOD.replace("com/token", "com/to ken"), [(5, "anna@example.com", "token_url", "a space")]),
    (GOOD.replace("mail off", 'mail "off'), [(7, "anna@example.com", "oauth2_scope", "character")]),
    (f"{GOOD}client_id\n", [(9, None, None, "equals sign")]),
    (f"{GOOD}client_secret = a\n  b\n", [(9, "anna@example.com", "client_secret", "several lines")]),
    (f"{GOOD}redirect_uri = http://localhost/#x\n", [(9, "anna@example.com", "redirect_uri", "fragment")]),
    (f"{GOOD}redirect_uri = app://localhost/\n", [(9, "anna@example.com", "redirect_uri", "http or https")]),
    (f"{GOOD}redirect_listen_address = 8801\n", [(9, "anna@example.com", "redirect_listen_address", "host")]),
    (
        f"{GOOD}redirect_listen_address = https://localhost:1\n",
        [(9, "anna@example.com", "redirect_listen_address", "reverse proxy")],
    ),
    (
        f"{GOOD}redirect_listen_address = localhost:0\n",
        [(9, "anna@example.com", "redirect_listen_address", "http://127.0.0.1:8801/")],
    ),
    (
        f"{GOOD}oauth2_flow = client_credental\n",
        [(9, "anna@example.com", "oauth2_flow", "did you mean client_credentials?")],
    ),
    (
        re.sub("permission_url = .*", "oauth2_flow = authorization_code", GOOD),
        [(4, "anna@example.com", "permission_url", "is missing")],
    ),
    (
        re.sub("permission_url = .*", "oauth2_flow = client_credentials", GOOD),
        [(4, "anna@example.com", "client_secret", "is missing")],
    ),
    (re.sub("permission_url = .*", "", GOOD), [(4, "anna@example.com", "oauth2_flow", "add permission_url")]),
    (f"{GOOD}[{'é' * 127}@x]\n{ACCOUNT_KEYS}", [(9, f"{'é' * 60}...", None, "254 octets")]),
    (f"{GOOD}client_secret = {'x' * 20_000}\n", [(9, "anna@example.com", "client_secret", "longer than")]),
    # files without anything to do
    ("", [(None, None, None, "no server section"), (None, None, None, "no account section")]),
    ("# nothing\n\n", [(None, None, None, "no server section"), (None, None, None, "no account section")]),
    (SERVER, [(None, None, None, "no account section")]),
    (ACCOUNT, [(None, None, None, "no server section")]),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_a_fault_names_line_section_key_and_mend(
    text: str, expected: list[tuple[int | None, str | None, str | None, str]]
) -> None:
    found = faults(text)
    assert [(fault.line, fault.section, fault.key) for fault in found] == [place[:3] for place in expected]
    for fault, (*_, words) in zip(found, expected, strict=True):
        assert words in str(fault)
        assert fault.mend
        assert "\n" not in str(fault)


def test_all_faults_are_told_at_once_and_in_order() -> None:
    text = f"stray\n[DEFAULT]\n{GOOD.replace('= 993', '= x').replace('https', 'gopher')}what\n"
    assert [fault.line for fault in faults(text)] == [1, 2, 5, 7, 8, 11]


def test_no_message_shows_a_secret() -> None:
    for text in (
        f"{GOOD}client_secret = {SECRET}\n  two lines\n",
        f"{GOOD}client_secrt = {SECRET}\n",
        f"{GOOD}[IMAP-1]\nclient_secret = {SECRET}\n",
        f"{GOOD}[IMAP-1]\nrefresh_token = {SECRET}\n",
        f"[emailproxy]\nupstream_proxy = http://anna:{SECRET}@:x/\n{GOOD}",
        f"{GOOD}oauth2_flow = devize\nclient_secret = '{SECRET}'\n",
        f"{GOOD}client_secret = keyring:{SECRET}\n",
        f"{GOOD}client_secret = env:{SECRET}\n",
        f"{GOOD}jwt_key_passphrase = {SECRET}\n  two lines\n",
        f"[emailproxy]\nhook_secret = keyring:{SECRET}\n{GOOD}",
        f"{GOOD}{SECRET}\n",
    ):
        assert SECRET not in "\n".join(map(str, faults(text)))
    told = config(f"{GOOD}client_secret = '{SECRET}'\n")
    assert any("quotes" in notice for notice in told.notices)
    assert SECRET not in repr(told) + str(told) + "".join(told.notices)
    assert catchall.resolve(told, "anna@example.com").client_secret == Secret(SECRET)


NOTICES = [
    (f"{GOOD}use_pkce = False\n", 9, "PKCE is always used"),
    (f"{GOOD}[Something else]\nx = 1\n", 9, "is ignored"),
    (f"{GOOD}[@example.com]\nclient_id = x\n", 9, "allow_catch_all_accounts = True"),
    (f"{GOOD}redirect_uri = https://mail.example.com/x/\n", 9, "will listen on http://127.0.0.1:8801/"),
    (f"{GOOD}redirect_uri = https://localhost/\n", 9, "will listen on http://127.0.0.1:8801/"),
    (f"{GOOD}oauth2_flow = service_account\n", 9, "authorization_code is used"),
]


@pytest.mark.parametrize(("text", "line", "words"), NOTICES)
def test_what_is_accepted_with_a_notice(text: str, line: int, words: str) -> None:
    notices = config(text).notices
    assert len(notices) == 1
    assert notices[0].startswith(f"{PATH}:{line}: ")
    assert words in notices[0]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"\ufeff{GOOD}",  # bad input 36
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace(" = ", ":"),
        GOOD.replace("token_url", "Token_URL"),
        re.sub("(?m)^(?=[a-z])", "  ", GOOD),
        GOOD.replace("[IMAP-2993]", "  [IMAP-2993]  # a comment"),
        GOOD.replace("mail offline_access", "mail\n   # why\n\n   offline_access"),
        f"{GOOD}documentation = token_url\n  goes = on\n",
        f"[Server setup]\ndocumentation = x\n{GOOD}",
        f"{GOOD}oauth2_flow = Authorization_Code\n",
        f"{GOOD}redirect_uri = http://localhost:9999/x\nredirect_listen_address = [::1]:9999\n",
        f"{SERVER}local_address = ::1\n{ACCOUNT}",
        f"{SERVER}local_address = [::1]\n{ACCOUNT}" + SERVER.replace("IMAP", "POP") + "local_address = 127.0.0.1\n",
        GOOD.replace("https://login.example.com/token", "http://127.0.0.1:5/token"),
        GOOD.replace("https://login.example.com/token", "http://[::1]:5/token"),
        GOOD.replace("imap.example.com", "bücher.example"),
        f"[emailproxy]\nencrypt_client_secret_on_first_use = on\n{GOOD}",
        f"[emailproxy]\nuse_login_password_as_client_credentials_secret = on\n{GOOD}",
    ],
)
def test_what_is_accepted_silently(text: str) -> None:
    found = config(text)
    assert found.notices == ()
    assert catchall.resolve(found, "anna@example.com").scope == "mail offline_access"


def test_the_servers_inherit_the_global_ca_file(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(certificate.read_bytes())
    file = tmp_path / "x.ini"
    servers = SERVER + SERVER.replace("IMAP-2993", "POP-2995") + "ca_file = other.pem\n"
    file.write_text(f"{servers}{ACCOUNT}[emailproxy]\nca_file = {certificate.name}\nstate_dir = s\nlog_file = l\n")
    monkeypatch.chdir(tmp_path)
    found = ini.load(Path("x.ini"))
    assert [server.ca_file for server in found.servers] == [tmp_path / certificate.name, other]
    assert (found.settings.state_dir, found.settings.log_file) == (tmp_path / "s", tmp_path / "l")
    assert ini.load(file, state_dir=Path("q")).settings.state_dir == Path("q")


@pytest.mark.parametrize(
    ("octets", "line", "what"),
    [
        (b"[a]\nx = \0\n", 2, "NUL"),  # bad input 37
        (b"[a]\n\nx = \xff\n", 3, "not UTF-8"),
        (b"#" * (MAX_FILE_OCTETS + 1), None, "larger than 16777216 octets"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, octets: bytes, line: int | None, what: str) -> None:
    file = tmp_path / "x.ini"
    file.write_bytes(octets)
    with pytest.raises(ConfigError, match=what) as caught:
        ini.load(file)
    assert caught.value.faults[0].line == line


@pytest.mark.parametrize("name", ["none.ini", ".", "none/none.ini", "a\0b"])
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: ") as caught:
        ini.load(tmp_path / name)
    assert "--config" in caught.value.faults[0].mend


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(
    ("mode", "secret", "told"), [(0o644, "x", 1), (0o640, "x", 0), (0o600, "x", 0), (0o644, "", 0)]
)
def test_a_secret_that_everybody_can_read_is_told(tmp_path: Path, mode: int, secret: str, told: int) -> None:
    file = tmp_path / "x.ini"
    file.write_text(f"{GOOD}client_secret = {secret}\n")
    file.chmod(mode)
    assert len([notice for notice in ini.load(file).notices if "chmod 600" in notice]) == told
