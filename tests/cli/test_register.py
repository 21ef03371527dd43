"""`emailproxy register`, as a person uses it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from emailproxy.config import catchall, ini
from emailproxy.config.model import FlowName, MailProtocol
from emailproxy.config.presets import PROVIDERS
from emailproxy.errors import ConfigError
from emailproxy.secret import Secret
from tests.cli.conftest import Register
from tests.cli.terminal import answered

SECRET = "canary-7Zq8~secret"

DOCUMENTED = r"""
emailproxy register --imap-server-address=outlook.office365.com --imap-server-port=993 \
 --smtp-server-address=smtp.office365.com --smtp-server-port=587 --smtp-server-starttls \
 --oauth2-token-url="https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/token " \
 --oauth2-permission-url="https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/authorize " \
 --oauth2-scope=" https://outlook.office365.com/IMAP.AccessAsUser.All https://outlook.office365.com/SMTP.Send offline_access " \
 --oauth2-flow="client_credentials" --oauth2-client-id="CLIENT_ID" --oauth2-client-secret="CLIENT_SECRET" --force
"""  # noqa: E501 - as documented
OAUTH = [
    "--oauth2-token-url=https://login.example.com/token",
    "--oauth2-permission-url=https://login.example.com/authorize",
    "--oauth2-scope=mail",
    "--oauth2-client-id=abc",
]
IMAP = ["--imap-server-address=imap.example.com"]


def documented(**replaced: str) -> list[str]:
    arguments = shlex.split(DOCUMENTED.replace("\\\n", ""))[2:]
    for old, new in replaced.items():
        arguments = [argument.replace(old, new) for argument in arguments]
    return arguments


def test_the_documented_command_writes_a_draft_and_lists_what_is_left(register: Register, file: Path) -> None:
    done = register(*documented())
    assert done.exit_code == 0, done.output
    with pytest.raises(ConfigError) as caught:
        ini.load(file)
    assert [fault.key for fault in caught.value.faults] == ["token_url", "permission_url", "client_id", "client_secret"]
    for fault in caught.value.faults:
        assert str(fault) in done.stdout
    assert "remove permission_url" in done.stdout
    assert file.stat().st_mode & 0o7777 == 0o600 or os.name != "posix"


def test_the_documented_command_filled_in_loads(register: Register, file: Path) -> None:
    done = register(*documented(TENANT_ID="contoso", CLIENT_ID="abc", CLIENT_SECRET=SECRET))
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    found = ini.load(file)
    assert [(s.section, s.server_address, s.server_port, s.server_starttls) for s in found.servers] == [
        ("IMAP-2993", "outlook.office365.com", 993, False),
        ("SMTP-2465", "smtp.office365.com", 587, True),
    ]
    account = catchall.resolve(found, "anna@example.com")
    assert account.token_url == "https://login.microsoftonline.com/contoso/oauth2/v2.0/token"
    assert account.permission_url == "https://login.microsoftonline.com/contoso/oauth2/v2.0/authorize"
    assert account.scope.startswith("https://outlook.office365.com/IMAP.AccessAsUser.All https")
    assert account.client_secret == Secret(SECRET)
    assert account.flow is FlowName.AUTHORIZATION_CODE
    assert len(found.notices) == 1  # on the flow


def test_the_outcome_says_how_to_go_on(register: Register) -> None:
    done = register(*documented(TENANT_ID="contoso", CLIENT_ID="abc", CLIENT_SECRET=SECRET))
    for words in (
        "IMAP  host 127.0.0.1, port 2993",
        "SMTP  host 127.0.0.1, port 2465",
        "any password: the first one you use becomes the local password",
        "curl --user user@example.com imap://127.0.0.1:2993/INBOX",
        "emailproxy serve\n",
        "emailproxy authorize user@example.com\n",
        "emailproxy logs --consent\n",
    ):
        assert words in done.stdout
    assert "Fill these in" not in done.stdout


def test_a_named_file_is_in_the_next_commands(register: Register, tmp_path: Path) -> None:
    path = tmp_path / "my file.ini"
    done = register(f"--config={path}", *IMAP, *OAUTH, "--account=anna@example.com")
    assert f"emailproxy serve --config='{path}'" in done.stdout
    assert f"emailproxy authorize anna@example.com --config='{path}'" in done.stdout
    assert ini.load(path).servers


@pytest.mark.parametrize("again", [["--oauth2-client-id=other"], ["--imap-server-port=1"], []])
def test_without_force_no_section_is_overwritten(register: Register, file: Path, again: list[str]) -> None:
    assert register(*IMAP, *OAUTH).exit_code == 0
    before = file.read_bytes()
    refused = register(*IMAP, *OAUTH, *again)
    assert refused.exit_code == 1
    assert "already has" in refused.stderr
    assert "--force" in refused.stderr
    assert file.read_bytes() == before
    assert register(*IMAP, *OAUTH, *again, "--force").exit_code == 0


def test_force_overwrites_the_section_and_says_what_is_gone(register: Register, file: Path) -> None:
    assert register(*IMAP, *OAUTH, "--redirect-uri=http://localhost:9/").exit_code == 0
    text = "; mine\n" + file.read_text().replace("token_url", "# why\ntoken_url") + "; the end\n"
    file.write_text(text)
    done = register(*IMAP, *OAUTH, "--oauth2-client-id=other", "--force")
    assert done.exit_code == 0, done.output
    assert "Dropped [@] redirect_uri" in done.stdout
    after = file.read_text()
    assert after == text.replace("client_id = abc", "client_id = other").replace(
        "redirect_uri = http://localhost:9/\n", ""
    )


def test_a_second_account_shares_the_servers_and_does_not_inherit_another_client(
    register: Register, file: Path
) -> None:
    assert register(*IMAP, *OAUTH, "--oauth2-client-secret=x", "--oauth2-flow=client_credentials").exit_code == 0
    done = register(*IMAP, *OAUTH, "--account=Anna@example.com")
    assert done.exit_code == 0, done.output
    found = ini.load(file)
    account = catchall.resolve(found, "anna@example.com")
    assert (account.name, account.client_secret, account.flow) == (
        "Anna@example.com",
        None,
        FlowName.AUTHORIZATION_CODE,
    )
    assert len(found.servers) == 1
    assert register(*OAUTH, "--account=anna@EXAMPLE.com").exit_code == 1


def test_a_catch_all_is_not_allowed_against_the_file(register: Register, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("[emailproxy]\n# no strangers\nallow_catch_all_accounts = no\n")
    refused = register(*IMAP, *OAUTH)
    assert refused.exit_code == 1
    assert "allow_catch_all_accounts is no on line 3" in refused.stderr
    assert register(*IMAP, *OAUTH, "--force").exit_code == 0
    assert "# no strangers\nallow_catch_all_accounts = True\n" in file.read_text()


def test_line_endings_survive(register: Register, file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"# mine\r\n[emailproxy]\r\nconsent_wait = 3\r\n")
    assert register(*IMAP, *OAUTH).exit_code == 0
    octets = file.read_bytes()
    assert octets.startswith(b"# mine\r\n[emailproxy]\r\nconsent_wait = 3\r\nallow_catch_all_accounts = True\r\n")
    assert octets.count(b"\n") == octets.count(b"\r\n")
    assert ini.load(file).settings.consent_wait == 3


def test_a_wrong_file_is_never_edited(register: Register, file: Path) -> None:
    file.parent.mkdir(parents=True)
    for wrong in ("[emailproxy]\nconsent_wiat = 3\n", "[a@b]\n[a@b]\n", "what\n", "\0"):
        file.write_text(wrong)
        refused = register(*IMAP, *OAUTH, "--force")
        assert refused.exit_code == 78, refused.output
        assert str(file) in refused.stderr
        assert file.read_text() == wrong


def test_a_dry_run_shows_all_but_secrets_and_writes_nothing(register: Register, file: Path) -> None:
    done = register(*IMAP, *OAUTH, f"--oauth2-client-secret={SECRET}", "--dry-run")
    assert done.exit_code == 0
    assert "[IMAP-2993]\nserver_address = imap.example.com\nserver_port = 993\n" in done.stdout
    assert "client_secret = ********" in done.stdout
    assert SECRET not in done.output
    assert "Would write" in done.stdout
    assert not file.exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_facts_for_programs(register: Register, file: Path, dry_run: bool) -> None:
    done = register(*documented(CLIENT_SECRET=SECRET), "--json", *(["--dry-run"] if dry_run else []))
    facts = json.loads(done.stdout)
    assert (facts["config"], facts["written"], file.exists()) == (str(file), not dry_run, not dry_run)
    assert facts["sections"] == ["IMAP-2993", "SMTP-2465", "@"]
    assert [left["key"] for left in facts["placeholders"]] == ["token_url", "permission_url", "client_id"]
    assert facts["clients"][0] == {"protocol": "IMAP", "host": "127.0.0.1", "port": 2993}
    assert SECRET not in done.output


@pytest.mark.parametrize(
    ("arguments", "protocol", "server", "local_port"),
    [
        (["--imap-server-address=a.example"], MailProtocol.IMAP, ("a.example", 993, False), 2993),
        (
            ["--imap-server-address=a.example", "--imap-server-starttls"],
            MailProtocol.IMAP,
            ("a.example", 143, True),
            2993,
        ),
        (["--pop-server-address=a.example"], MailProtocol.POP, ("a.example", 995, False), 2995),
        (["--pop-server-address=a.example", "--pop-server-starttls"], MailProtocol.POP, ("a.example", 110, True), 2995),
        (["--smtp-server-address=a.example"], MailProtocol.SMTP, ("a.example", 465, False), 2465),
        (
            ["--smtp-server-address=a.example", "--smtp-server-starttls"],
            MailProtocol.SMTP,
            ("a.example", 587, True),
            2465,
        ),
        (
            ["--smtp-server-address= 'a.example' ", "--smtp-server-port=25", "--smtp-local-port=1025"],
            MailProtocol.SMTP,
            ("a.example", 25, False),
            1025,
        ),
        (["--imap-server-address=[a.example](http://a.example)"], MailProtocol.IMAP, ("a.example", 993, False), 2993),
    ],
)
def test_ports_have_the_usual_defaults(
    register: Register,
    file: Path,
    arguments: list[str],
    protocol: MailProtocol,
    server: tuple[str, int, bool],
    local_port: int,
) -> None:
    assert register(*arguments, *OAUTH).exit_code == 0
    (found,) = ini.load(file).servers
    assert (found.protocol, found.local_port) == (protocol, local_port)
    assert (found.server_address, found.server_port, found.server_starttls) == server


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_fills_in_servers_and_endpoints(register: Register, file: Path, name: str) -> None:
    done = register(f"--provider={name}", "--oauth2-client-id=abc", "--oauth2-client-secret=x", "--account=a@b.example")
    assert done.exit_code == 0, done.output
    found = ini.load(file)
    assert found.notices == ()
    assert [server.section for server in found.servers] == ["IMAP-2993", "POP-2995", "SMTP-2465"]
    assert catchall.resolve(found, "a@b.example").flow is FlowName.AUTHORIZATION_CODE
    assert not found.settings.allow_catch_all_accounts


def test_what_a_provider_still_needs_is_a_placeholder(register: Register, file: Path) -> None:
    done = register("--provider=google")
    assert done.exit_code == 0
    assert "placeholder CLIENT_ID" in done.stdout
    assert "placeholder CLIENT_SECRET" in done.stdout
    assert register("--provider=microsoft", "--force").exit_code == 0
    assert [left.key for left in ini.load(file, allow_placeholders=True).placeholders] == ["client_id"]


def test_an_application_of_a_provider_needs_no_person(register: Register, file: Path) -> None:
    done = register("--provider=microsoft", "--oauth2-flow=client_credentials", "--oauth2-client-id=abc")
    assert done.exit_code == 0
    assert "logs --consent" not in done.stdout
    draft = ini.load(file, allow_placeholders=True)
    assert [left.key for left in draft.placeholders] == ["token_url", "client_secret"]
    account = catchall.resolve(draft, "anyone@example.com")
    assert (account.flow, account.permission_url) == (FlowName.CLIENT_CREDENTIALS, None)


def test_the_redirect_addresses_are_written_canonically(register: Register, file: Path) -> None:
    redirect = ["--redirect-uri=<https://mail.example.com/x/>", "--redirect-listen-address= 127.0.0.1:9000 "]
    assert register(*IMAP, *OAUTH, *redirect).exit_code == 0
    account = catchall.resolve(ini.load(file), "anna@example.com")
    assert (account.redirect_uri, account.listen_address) == ("https://mail.example.com/x/", "127.0.0.1:9000")
    assert "redirect_listen_address = http://127.0.0.1:9000/\n" in file.read_text()


def test_a_secret_comes_from_a_file_or_standard_input(register: Register, file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    for arguments, given in (
        ([f"--oauth2-client-secret-file={tmp_path / 'secret'}"], None),
        (["--oauth2-client-secret-file=-"], f" {SECRET}\r\n"),
    ):
        assert register(*IMAP, *OAUTH, *arguments, "--force", given=given).exit_code == 0
        assert catchall.resolve(ini.load(file), "anna@example.com").client_secret == Secret(SECRET)
        file.unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to register"),
        (["--account=a@b"], "nothing to register"),
        (["--imap-local-port=1"], "nothing to register"),
        (["--imap-server-port=993"], "--imap-server-address is missing"),
        ([*IMAP, "--pop-local-port=3"], "--pop-server-address is missing"),
        ([*IMAP, "--oauth2-client-id=x"], "--oauth2-token-url, --oauth2-scope, --oauth2-permission-url missing"),
        ([*IMAP, *OAUTH[:1], *OAUTH[2:]], "--oauth2-permission-url missing"),
        ([*IMAP, *OAUTH, "--oauth2-token-url=http://login.example.com/"], "--oauth2-token-url: is http"),
        ([*IMAP, *OAUTH, "--oauth2-flow=client_credental"], "did you mean client_credentials?"),
        ([*IMAP, *OAUTH, "--oauth2-client-secret=x", "--oauth2-client-secret-file=-"], "not both"),
        ([*IMAP, *OAUTH, "--oauth2-client-secret-file=/no/such"], "No such file"),
        ([*IMAP, *OAUTH, "--oauth2-client-secret-file=-"], "it holds no secret"),
        ([*IMAP, *OAUTH, "--oauth2-client-id=a\n[SMTP-25]"], "several lines"),
        ([*IMAP, *OAUTH, "--account=anna"], "user@domain"),
        ([*IMAP, *OAUTH, "--account=a@b]\n[SMTP-25"], "user@domain"),
        ([*IMAP, *OAUTH, "--account=#a@b"], "user@domain"),
        (["--imap-server-address=https://a.example"], "--imap-server-address: "),
        (["--imap-server-address=a", "--pop-server-address=a", "--pop-local-port=2993", *OAUTH], "share a local port"),
        (["--provider=nobody"], "nobody"),
        (["--imap-server-address=a", "--imap-local-port=65536"], "65536"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_writes_nothing(
    register: Register, file: Path, arguments: list[str], words: str
) -> None:
    refused = register(*arguments)
    assert refused.exit_code == 2, refused.output
    assert words in " ".join(refused.stderr.split())
    assert not file.exists()


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that refuses")
def test_a_place_that_cannot_be_written_is_one_clear_line(register: Register) -> None:
    refused = register("--config=/proc/emailproxy/emailproxy.ini", *IMAP, *OAUTH)
    assert refused.exit_code == 1
    assert "cannot be written" in refused.stderr


def test_help_is_grouped_and_answers_questions(register: Register) -> None:
    text = register("--help").stdout
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Provider:",
        "IMAP server:",
        "POP server:",
        "SMTP server:",
        "OAuth 2.0:",
        "Other ways in:",
        "Account:",
        "Options:",
    ]
    assert "Examples:" in text
    assert "Questions:" in text


ANSWERS = {
    "google": [
        ("Mail provider", "google"),
        ("How to sign in", ""),
        ("Account", "anna@gmail.com"),
        ("Client id", "abc"),
        ("Client secret", SECRET),
    ],
    "other": [
        ("Mail provider", "other"),
        ("IMAP server", "imap.example.com"),
        ("STARTTLS", "y"),
        ("port", ""),
        ("POP server", ""),
        ("SMTP server", ""),
        ("Token URL", "https://login.example.com/token"),
        ("Permission URL", ""),
        ("Scope", "mail/.default"),
        ("Account", "anna@gmail.com"),
        ("Client id", "abc"),
        ("Client secret", SECRET),
    ],
}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("provider", ANSWERS)
def test_bare_on_a_terminal_it_asks(tmp_path: Path, provider: str) -> None:
    path = tmp_path / "emailproxy.ini"
    status, shown = answered(["register", f"--config={path}"], ANSWERS[provider])
    assert status == 0, shown
    assert SECRET not in shown
    account = catchall.resolve(ini.load(path), "anna@gmail.com")
    assert account.client_secret == Secret(SECRET)
    assert account.flow is (FlowName.AUTHORIZATION_CODE if provider == "google" else FlowName.CLIENT_CREDENTIALS)
