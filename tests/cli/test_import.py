"""`emailproxy import`: sections of another proxy's configuration become ours, and nothing else changes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from emailproxy.cli.main import cli
from emailproxy.config import ini
from emailproxy.config.catchall import resolve
from tests.cli.site import ROOT_ONLY, SERVICE

KEPT = Fernet(Fernet.generate_key()).encrypt(b"canary-token").decode()
THEIRS = f"""\
[Server setup]
documentation = Servers.
	They have a port each.

[IMAP-1993]
server_address = imap.example.com
server_port = 993

[SMTP-1587]
server_address = smtp.example.com
server_port = 587
server_starttls = True
local_address = 127.0.0.1

[Account setup]
documentation = Accounts.

[ada@example.com]
permission_url = https://login.example.com/authorize
token_url = https://login.example.com/token
oauth2_scope = mail
    offline_access
redirect_uri = http://localhost:8801/
client_id = their-client
client_secret = canary-client-secret
token_salt = MDEyMzQ1Njc4OWFiY2RlZg==
token_iterations = 1200000
access_token = {KEPT}
access_token_expiry = 1700000000
refresh_token = {KEPT}
last_activity = 1700000000

[emailproxy]
delete_account_token_on_password_error = True
"""
OURS = """\
# Mine.
[IMAP-2993]
server_address = imap.example.org
server_port = 993

; Bob's.
[bob@example.org]
token_url = https://login.example.org/token
permission_url = https://login.example.org/authorize
oauth2_scope = mail
client_id = our-client
"""

Import = Callable[..., Result]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs" / "emailproxy.config"
    path.parent.mkdir()
    path.write_text(THEIRS)
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return tmp_path / "ours" / "emailproxy.ini"


@pytest.fixture
def take(theirs: Path, ours: Path) -> Import:
    """Imports into our configuration; another file's, where one is named."""

    def run(*arguments: str | Path, file: Path = theirs) -> Result:
        before = file.read_bytes()
        command = ["import", file, *arguments, "--config", ours, "--state", ours.parent / "state"]
        result = CliRunner().invoke(cli, list(map(str, command)))
        assert not isinstance(result.exception, Exception), result.exception
        assert file.read_bytes() == before, "the source file is never touched"
        return result

    return run


def facts(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def outcomes(result: Result) -> dict[str, str]:
    return {section["name"]: section["outcome"] for section in facts(result)["sections"]}


def test_accounts_and_servers_become_ours(take: Import, ours: Path) -> None:
    result = take("--json")
    assert outcomes(result) == {"IMAP-1993": "added", "SMTP-1587": "added", "ada@example.com": "added"}
    assert facts(result)["written"] is True
    config = ini.load(ours)
    assert [server.section for server in config.servers] == ["IMAP-1993", "SMTP-1587"]
    account = resolve(config, "ada@example.com")
    assert (account.client_id, account.scope) == ("their-client", "mail offline_access")
    assert "canary" not in result.output


def test_encrypted_values_come_along_for_the_first_login(take: Import, ours: Path) -> None:
    result = take()
    assert result.exit_code == 0, result.output
    assert "its tokens move at the first login with the old password" in " ".join(result.output.split())
    [cached] = ini.load(ours).cached.values()
    assert (cached.refresh_token, cached.salt, cached.iterations) == (KEPT, b"0123456789abcdef", 1_200_000)


def test_what_is_there_stays_to_the_letter(take: Import, ours: Path) -> None:
    ours.parent.mkdir()
    ours.write_bytes(OURS.replace("\n", "\r\n").encode())
    ours.chmod(0o640)
    assert set(outcomes(take("--json")).values()) == {"added"}
    text = ours.read_bytes()
    assert text.startswith(OURS.replace("\n", "\r\n").encode())
    assert text.count(b"\n") == text.count(b"\r\n")
    assert stat.S_IMODE(ours.stat().st_mode) == 0o640
    before = text
    assert set(outcomes(take("--json")).values()) == {"there already"}
    assert ours.read_bytes() == before


def test_a_new_file_is_for_its_owner_alone(take: Import, ours: Path) -> None:
    take()
    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    assert stat.S_IMODE(ours.parent.stat().st_mode) == 0o700


@ROOT_ONLY
def test_roots_import_leaves_the_file_to_its_owner(take: Import, ours: Path) -> None:
    ours.parent.mkdir()
    ours.write_text(OURS)
    os.chown(ours, SERVICE, SERVICE)
    take()
    assert ours.stat().st_uid == SERVICE


def test_a_dry_run_writes_nothing_and_tells_the_same(take: Import, ours: Path) -> None:
    would = facts(take("--json", "--dry-run"))
    assert not ours.parent.exists()
    assert "would be added" in take("--dry-run").output
    did = facts(take("--json"))
    assert (would.pop("written"), did.pop("written")) == (False, True)
    assert would == did


def test_an_account_that_is_there_is_replaced_only_by_force(take: Import, ours: Path) -> None:
    ours.parent.mkdir()
    ours.write_text(OURS.replace("bob@example.org", "Ada@Example.com"))
    before = ours.read_text()
    result = take("--json")
    assert outcomes(result)["ada@example.com"] == "left alone"
    assert "line 7 has a section of this name; --force replaces it" in result.output
    assert ours.read_text().startswith(before)
    assert outcomes(take("--json", "--force"))["ada@example.com"] == "replaced"
    assert resolve(ini.load(ours), "ada@example.com").client_id == "their-client"
    assert "; Bob's.\n[Ada@Example.com]\n" in ours.read_text()


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("[POP-1993]\nserver_address = pop.example.com\nserver_port = 995\n", "claims the same local port"),
        ("[POP-1995]\nserver_address = pop.example.com\n", "server_port is missing"),
        ("[eve@example.com]\ntoken_url = https://login.example.com/token\n", "client_id is missing"),
        ("[eve@example.com]\ntoken_url = nonsense\nclient_id = x\noauth2_scope = y\n", "token_url is not"),
        ("[eve@example.com]\nbanana = yellow\n", "banana there is no such key"),
    ],
)
def test_a_section_that_is_of_no_use_is_told_and_the_others_are_taken(
    take: Import, theirs: Path, section: str, why: str
) -> None:
    theirs.write_text(THEIRS + section)
    name = section[1 : section.index("]")]
    result = take("--json")
    assert outcomes(result) == {
        "IMAP-1993": "added", "SMTP-1587": "added", "ada@example.com": "added", name: "not taken"
    }  # fmt: skip
    [told] = [one["why"] for one in facts(result)["sections"] if one["name"] == name]
    assert why in told


def test_where_nothing_is_of_use_it_has_failed(take: Import, theirs: Path, ours: Path) -> None:
    theirs.write_text("[eve@example.com]\ntoken_url = https://login.example.com/token\n")
    result = take()
    assert result.exit_code == 1
    assert "oauth2_flow" in result.output
    assert not ours.exists()


def test_settings_for_all_accounts_come_along_where_ours_says_nothing(take: Import, theirs: Path, ours: Path) -> None:
    secret, password = "encrypt_client_secret_on_first_use", "use_login_password_as_client_credentials_secret"
    theirs.write_text(f"{THEIRS}{secret} = True\n{password} = yes\n")
    ours.parent.mkdir()
    ours.write_text(f"{OURS}[emailproxy]\n{secret} = False\n")
    assert outcomes(take("--json"))["emailproxy"] == "added"
    settings = ini.load(ours).settings
    assert (settings.encrypt_client_secret_on_first_use, settings.delete_account_token_on_password_error) == (
        False,
    ) * 2
    assert settings.use_login_password_as_client_credentials_secret is True
    assert outcomes(take("--json"))["emailproxy"] == "there already"


def test_catch_alls_are_switched_on_unless_ours_forbids_them(take: Import, theirs: Path, ours: Path) -> None:
    theirs.write_text(THEIRS.replace("ada@example.com", "@example.com"))
    ours.parent.mkdir()
    ours.write_text(OURS + "[emailproxy]\nallow_catch_all_accounts = False\n")
    result = take("--json")
    assert outcomes(result)["@example.com"] == "not taken"
    assert "set allow_catch_all_accounts = True in [emailproxy]" in result.output
    ours.write_text(OURS)
    assert outcomes(take("--json"))["@example.com"] == "added"
    assert resolve(ini.load(ours), "eve@example.com").client_id == "their-client"


def test_another_clients_secret_is_not_inherited(take: Import, theirs: Path, ours: Path) -> None:
    theirs.write_text(THEIRS.replace("client_secret = canary-client-secret\n", ""))
    ours.parent.mkdir()
    wide = OURS.replace("bob@example.org", "@") + "client_secret = ours\n"
    ours.write_text(wide + "[emailproxy]\nallow_catch_all_accounts = True\n")
    take()
    assert resolve(ini.load(ours), "ada@example.com").client_secret is None


def test_relative_paths_still_mean_their_files(take: Import, theirs: Path, ours: Path) -> None:
    key = theirs.with_name("key.json")
    key.write_text("{}")
    theirs.write_text(
        "[robot@example.com]\ntoken_url = https://oauth2.example.com/token\noauth2_flow = service_account\n"
        "oauth2_scope = mail\nclient_id = file\nclient_secret = key.json\n"
    )
    assert outcomes(take("--json")) == {"robot@example.com": "added"}
    assert f"client_secret = {key}\n" in ours.read_text()


def test_values_of_several_lines_stay_whole(take: Import, theirs: Path, ours: Path) -> None:
    robot = (
        "[robot@example.com]\ntoken_url = https://oauth2.example.com/token\noauth2_flow = service_account\n"
        'oauth2_scope = mail\nclient_id = key\nclient_secret = {\n    "type": "service_account"\n    }\n'
    )
    theirs.write_text(robot)
    assert outcomes(take("--json")) == {"robot@example.com": "added"}
    theirs.write_text(robot.replace("mail", "more"))
    assert outcomes(take("--json", "--force")) == {"robot@example.com": "replaced"}
    secret = resolve(ini.loads(ours.read_text(), ours, allow_placeholders=True), "robot@example.com").client_secret
    assert json.loads(secret.reveal()) == {"type": "service_account"}  # type: ignore[union-attr]


def test_the_configuration_itself_is_not_imported(ours: Path) -> None:
    ours.parent.mkdir()
    ours.write_text(OURS)
    result = CliRunner().invoke(cli, ["import", str(ours), "--config", str(ours)])
    assert result.exit_code == 2
    assert "is the configuration that would be written" in result.output
    assert ours.read_text() == OURS


def test_a_fault_in_our_own_file_is_told_and_nothing_written(take: Import, ours: Path) -> None:
    ours.parent.mkdir()
    ours.write_text(OURS + "[IMAP-1]\nwrong = 1\n")
    before = ours.read_bytes()
    result = take()
    assert result.exit_code == 78
    assert f"{ours}:13: [IMAP-1] wrong" in result.output
    assert ours.read_bytes() == before
