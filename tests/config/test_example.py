"""The documented example, which must not fall behind the reader."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from emailproxy.config import catchall, ini, keys
from emailproxy.config.model import DEFAULT_REDIRECT_URI, Account, Config, FlowName, MailServer, ProviderName, Settings
from emailproxy.config.sources import FromEnvironment
from emailproxy.config.values import boolean, duration

EXAMPLE = Path(__file__).parents[2] / "emailproxy.example.ini"
TEXT = EXAMPLE.read_text()
DOCUMENTED = dict(re.findall(r"(?m)^#?([a-z0-9_]+) = (.*)$", TEXT))
FILLED_IN = re.sub("(?m)^(client_id|client_secret) = [A-Z_]+$", r"\1 = x", TEXT.replace("TENANT_ID", "contoso"))

# the indented lines of the comments at the end
SHOWN = re.sub("(?m)^#( {3}|$)", "", "".join(re.findall(r"(?m)^#(?: {3}[^ ].*)?\n", TEXT.rpartition("# Examples,")[2])))
SETTINGS = re.sub(r"(?m)^#(on_\w+|hook_\w+(?<!_file)(?<!_command)|refresh_margin|keep_alive) = ", r"\1 = ", TEXT)


def test_it_loads_once_its_placeholders_are_filled_in() -> None:
    draft = ini.load(EXAMPLE, allow_placeholders=True)
    assert draft.notices == ()
    assert [(fault.section, fault.key) for fault in ini.placeholders(draft)] == [
        ("@", "token_url"),
        ("@", "permission_url"),
        ("@", "client_id"),
        ("@", "client_secret"),
    ]


def test_every_key_that_the_reader_knows_is_documented() -> None:
    base = Path("/")
    known = {*keys.settings_keys(base), *keys.account_keys(base)}
    known.update(*keys.server_keys(base).values())
    assert known == DOCUMENTED.keys()
    for key in (*keys.CACHED, *keys.IGNORED, "use_pkce", "starttls"):
        assert re.search(rf"\b{key}\b", TEXT), key


FIELDS = {one.name: one for one in (*fields(Account), *fields(Settings))}


@pytest.mark.parametrize(
    "name", [name for name, info in FIELDS.items() if isinstance(info.default, bool | int | float)]
)
def test_the_documented_default_is_the_default(name: str) -> None:
    default = FIELDS[name].default
    if name == "allow_catch_all_accounts":
        return
    documented = DOCUMENTED[name]
    read = duration(0, 10**9, above_low=False)
    assert (boolean(documented) if isinstance(default, bool) else read(documented)) == default


def test_the_documented_redirect_uri_is_the_default() -> None:
    assert DOCUMENTED["redirect_uri"] == DEFAULT_REDIRECT_URI


def test_the_documented_settings_load() -> None:
    settings = ini.loads(SETTINGS, EXAMPLE, allow_placeholders=True).settings
    assert None not in [getattr(settings, name) for name in (*keys.HOOKS, "hook_secret")]


def everything(folder: Path) -> Config:
    """The file with all that its comments at the end show."""
    for name in ("client.pem", "client.key"):
        (folder / name).touch()
    (folder / "server.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "server.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    return ini.loads(f"{FILLED_IN}{SHOWN}", folder / "emailproxy.ini")


def test_the_documented_listeners_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    found = {server.section: server for server in everything(tmp_path).servers}
    assert found["IMAP-1143"].target is None
    assert found["IMAP-1993"].local_certificate == tmp_path / "server.pem"
    assert not found["IMAP-1993"].on_loopback
    scanner = found["SMTP-1025"]
    assert (scanner.login_as, scanner.login_as_password) == (
        "anna@example.org",
        FromEnvironment("SCANNER_PASSWORD"),
    )
    assert scanner.allow_from == scanner.allow_plaintext_from


def test_the_documented_shared_mailbox_is_opened_by_its_owner(tmp_path: Path) -> None:
    found = everything(tmp_path)
    office = catchall.resolve(found, "office@example.org")
    anna = catchall.resolve(found, "anna@example.org")
    assert (office.key, office.smtp_auth_as, office.token_url) == (anna.key, anna.name, anna.token_url)
    assert catchall.resolve(found, "carol@example.net").smtp_server == MailServer("smtp.example.net", 587, True)


@pytest.mark.parametrize(
    ("user", "flow", "provider"),
    [
        ("device@example.com", FlowName.DEVICE, ProviderName.MICROSOFT),
        ("secret@example.com", FlowName.CLIENT_CREDENTIALS, ProviderName.MICROSOFT),
        ("certificate@example.com", FlowName.CLIENT_CREDENTIALS, ProviderName.MICROSOFT),
        ("workload@example.com", FlowName.CLIENT_CREDENTIALS, ProviderName.MICROSOFT),
        ("managed@example.com", FlowName.CLIENT_CREDENTIALS, ProviderName.MICROSOFT),
        ("password@example.cn", FlowName.PASSWORD, ProviderName.GENERIC),
        ("anyone@workspace.example", FlowName.SERVICE_ACCOUNT, ProviderName.GOOGLE),
        ("anyone@keyless.example", FlowName.SERVICE_ACCOUNT, ProviderName.GOOGLE),
        ("command@example.com", FlowName.TOKEN_COMMAND, ProviderName.GENERIC),
    ],
)
def test_every_documented_example_is_an_account(
    tmp_path: Path, user: str, flow: FlowName, provider: ProviderName
) -> None:
    found = everything(tmp_path)
    account = catchall.resolve(found, user)
    assert (account.flow, account.provider) == (flow, provider)
    assert account.section != "@"
    assert found.notices == ()
