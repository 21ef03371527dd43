"""`emailproxy register` for every flow."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from emailproxy.config import catchall, ini
from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.config.sources import FromEnvironment, FromFile, FromKeyring
from emailproxy.secret import Secret
from tests.cli.conftest import Register
from tests.cli.terminal import answered

SECRET = "canary-7Zq8~secret"
ACCOUNT = "--account=anna@example.com"
IMAP = "--imap-server-address=imap.example.com"
CLIENT = ["--oauth2-client-id=abc", "--oauth2-client-secret=x"]
TOKEN = ["--oauth2-token-url=https://login.example.com/token", "--oauth2-scope=mail"]
ENTRA = "https://login.microsoftonline.com"
DEFAULT_SCOPE = "https://outlook.office365.com/.default"
HERE = Path("here")

COMMANDS: list[tuple[list[str], FlowName, ProviderName, dict[str, Any]]] = [
    (
        ["--provider=microsoft", "--tenant=contoso.com", *CLIENT],
        FlowName.AUTHORIZATION_CODE,
        ProviderName.MICROSOFT,
        {
            "token_url": f"{ENTRA}/contoso.com/oauth2/v2.0/token",
            "permission_url": f"{ENTRA}/contoso.com/oauth2/v2.0/authorize",
        },
    ),
    (
        ["--provider=microsoft", "--oauth2-flow=device", *CLIENT],
        FlowName.DEVICE,
        ProviderName.MICROSOFT,
        {"permission_url": f"{ENTRA}/common/oauth2/v2.0/devicecode"},
    ),
    (
        [IMAP, *TOKEN, *CLIENT, "--oauth2-flow=device", "--oauth2-permission-url=https://login.example.com/device"],
        FlowName.DEVICE,
        ProviderName.GENERIC,
        {"permission_url": "https://login.example.com/device"},
    ),
    (
        [
            *["--provider=microsoft", "--tenant=contoso.com", "--oauth2-flow=client_credentials"],
            *["--oauth2-client-id=abc", "--jwt-certificate-path=client.pem", "--jwt-key-path=client.key"],
            "--jwt-key-passphrase=env:PASSPHRASE",
        ],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {
            "token_url": f"{ENTRA}/contoso.com/oauth2/v2.0/token",
            "scope": DEFAULT_SCOPE,
            "certificate": HERE / "client.pem",
            "certificate_key": HERE / "client.key",
            "key_passphrase": FromEnvironment("PASSPHRASE"),
            "client_secret": None,
        },
    ),
    (
        [
            *[IMAP, "--tenant=contoso.com", "--oauth2-flow=client_credentials", "--oauth2-client-id=abc"],
            "--client-assertion-file=/var/run/token",
        ],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {"client_assertion_file": Path("/var/run/token"), "client_secret": None},
    ),
    (
        ["--provider=microsoft", "--managed-identity=system"],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {"managed_identity": "system", "token_url": "", "scope": DEFAULT_SCOPE},
    ),
    (
        [
            *[IMAP, "--oauth2-flow=password", "--oauth2-client-id=abc", "--oauth2-resource=https://partner.outlook.cn"],
            "--oauth2-token-url=https://login.partner.microsoftonline.cn/common/oauth2/token",
        ],
        FlowName.PASSWORD,
        ProviderName.GENERIC,
        {"resource": "https://partner.outlook.cn", "permission_url": None},
    ),
    (
        ["--provider=google", "--service-account-key=google.json"],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"client_id": "file", "client_secret": FromFile(HERE / "google.json"), "scope": "https://mail.google.com/"},
    ),
    (
        ["--provider=google", "--service-account-email=p@x.iam.gserviceaccount.com"],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"service_account_email": "p@x.iam.gserviceaccount.com", "client_secret": None},
    ),
    (
        [
            *["--provider=google", "--oauth2-flow=service_account", "--oauth2-client-id=key"],
            "--oauth2-client-secret-file=google.json",
        ],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"client_id": "key", "client_secret": Secret('{ "type": "service_account" }')},
    ),
    (
        [IMAP, "--token-command=my-token --for 'anna b'"],
        FlowName.TOKEN_COMMAND,
        ProviderName.GENERIC,
        {"token_command": ("my-token", "--for", "anna b")},
    ),
    (
        ["--provider=google", '--token-command=["my-token"]'],
        FlowName.TOKEN_COMMAND,
        ProviderName.GENERIC,
        {"token_command": ("my-token",), "permission_url": None},
    ),
    (
        ["--provider=yahoo", "--oauth2-client-id=abc", "--oauth2-client-secret=keyring:mail/anna"],
        FlowName.AUTHORIZATION_CODE,
        ProviderName.GENERIC,
        {"client_secret": FromKeyring("mail", "anna")},
    ),
]


@pytest.fixture(autouse=True)
def _files(register: Register) -> None:
    """What the commands name, in the folder that they run in."""
    Path("google.json").write_text('{\n"type": "service_account"\n}\n')
    for name in ("client.pem", "client.key"):
        Path(name).touch()


@pytest.mark.parametrize(("arguments", "flow", "provider", "expected"), COMMANDS)
def test_each_flow_is_written_as_it_is_read(
    register: Register,
    file: Path,
    arguments: list[str],
    flow: FlowName,
    provider: ProviderName,
    expected: dict[str, Any],
) -> None:
    done = register(ACCOUNT, *arguments)
    assert done.exit_code == 0, done.output
    found = ini.load(file)
    assert found.notices == ()
    account = catchall.resolve(found, "anna@example.com")
    assert (account.flow, account.provider) == (flow, provider)
    assert {name: getattr(account, name) for name in expected} == {
        name: _from_here(value) for name, value in expected.items()
    }
    needs_person = flow in (FlowName.AUTHORIZATION_CODE, FlowName.DEVICE)
    assert ("logs --consent" in done.stdout) is needs_person
    assert ("the mailbox's own password" in done.stdout) is (flow is FlowName.PASSWORD)


def _from_here(value: Any) -> Any:
    match value:
        case Path() if value.is_relative_to(HERE):
            return Path.cwd() / value.relative_to(HERE)
        case FromFile(path):
            return FromFile(_from_here(path))
    return value


@pytest.mark.parametrize("arguments", [arguments for arguments, *_ in COMMANDS])
def test_no_account_inherits_another_client(register: Register, file: Path, arguments: list[str]) -> None:
    everything = [*TOKEN, *CLIENT, "--oauth2-permission-url=https://login.example.com/authorize"]
    assert register(IMAP, *everything, "--jwt-key-path=client.key").exit_code == 0
    before = file.read_text()
    assert register(ACCOUNT, *arguments, "--force").exit_code == 0
    beside = catchall.resolve(ini.load(file), "anna@example.com")
    file.write_text(before.partition("[@]")[0])
    assert register(ACCOUNT, *arguments, "--force").exit_code == 0
    alone = catchall.resolve(ini.load(file), "anna@example.com")
    kept = {"client_id", "scope", "token_url"}  # of no use where the flow has none of its own
    kept |= {"imap_server", "pop_server", "smtp_server"}  # which follow from an inherited token_url, too
    told = [one.name for one in fields(Account) if one.name not in kept]
    assert [getattr(beside, name) for name in told] == [getattr(alone, name) for name in told]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--provider=microsoft", "--oauth2-flow=password"], ["token_url", "client_id"]),
        (["--provider=google", "--oauth2-flow=service_account"], ["client_secret"]),
        (
            ["--provider=microsoft", "--oauth2-flow=client_credentials", "--tenant=x.example"],
            ["client_id", "client_secret"],
        ),
        (
            ["--provider=microsoft", "--oauth2-flow=client_credentials", "--client-assertion-file=x"],
            ["token_url", "client_id"],
        ),
    ],
)
def test_what_a_flow_still_needs_is_a_placeholder(
    register: Register, file: Path, arguments: list[str], left: list[str]
) -> None:
    done = register(*arguments)
    assert done.exit_code == 0, done.output
    assert [fault.key for fault in ini.load(file, allow_placeholders=True).placeholders] == left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--provider=fastmail", "--oauth2-flow=device"], "only microsoft has device for mail"),
        (["--provider=yahoo", "--oauth2-flow=client_credentials"], "only microsoft has client_credentials for mail"),
        (["--provider=yahoo", "--tenant=contoso.com"], "--tenant is Microsoft's"),
        (["--provider=microsoft", "--tenant=my tenant"], "--tenant: 'my tenant' is no tenant"),
        (["--provider=microsoft", "--oauth2-flow=service_account"], "service accounts are Google's"),
        (["--provider=google", "--service-account-key=none.json"], "No such file"),
        (["--provider=google", "--service-account-key=google.json", *CLIENT], "not both"),
        ([IMAP, *TOKEN, "--oauth2-client-id=abc", "--jwt-certificate-path=no.pem"], "--jwt-certificate-path: "),
        ([IMAP, "--oauth2-flow=token_command"], "--token-command missing"),
        ([IMAP, "--token-command='a"], "--token-command: No closing quotation"),
        ([IMAP, "--token-command=[1]"], "--token-command: is not a list of texts"),
        ([IMAP, "--oauth2-flow=password", *TOKEN[:1], *CLIENT], "--oauth2-scope missing"),
        ([IMAP, *TOKEN, "--oauth2-flow=client_credentials", "--managed-identity=me"], "--managed-identity: "),
        ([IMAP, *TOKEN, "--managed-identity=system", "--client-assertion-file=a\n[b@c]"], "several lines"),
        (["--provider=google", "--oauth2-flow=service_account", *CLIENT], "neither file nor key"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_writes_nothing(
    register: Register, file: Path, arguments: list[str], words: str
) -> None:
    refused = register(*arguments)
    assert refused.exit_code == 2, refused.output
    assert words in " ".join(refused.stderr.split())
    assert not file.exists()


CLIENT_QUESTIONS = [("Client id", "abc"), ("Client secret", SECRET)]
ANSWERS = {
    FlowName.SERVICE_ACCOUNT: [
        ("Mail provider", "google"),
        ("How to sign in", "service-account"),
        ("Account", "@example.com"),
        ("JSON key", __file__),
    ],
    FlowName.CLIENT_CREDENTIALS: [
        ("Mail provider", "microsoft"),
        ("How to sign in", "application"),
        ("Account", "@example.com"),
        ("Tenant", "contoso.com"),
        *CLIENT_QUESTIONS,
    ],
    FlowName.DEVICE: [
        ("Mail provider", ""),
        ("How to sign in", "device"),
        ("Account", "@example.com"),
        *CLIENT_QUESTIONS,
    ],
    FlowName.AUTHORIZATION_CODE: [("Mail provider", "fastmail"), ("Account", "@example.com"), *CLIENT_QUESTIONS],
}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("flow", ANSWERS)
def test_on_a_terminal_it_asks_what_the_flow_needs(tmp_path: Path, flow: FlowName) -> None:
    path = tmp_path / "emailproxy.ini"
    status, shown = answered(["register", f"--config={path}"], ANSWERS[flow])
    assert status == 0, shown
    assert SECRET not in shown
    assert catchall.resolve(ini.load(path), "anna@example.com").flow is flow
