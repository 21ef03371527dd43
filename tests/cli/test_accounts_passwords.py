"""`emailproxy accounts passwords` and its kin, with no server: on the files of a state folder."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from emailproxy.cli.main import cli
from emailproxy.errors import WrongPassword
from emailproxy.oauth.clock import rfc3339
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Record
from emailproxy.store.ini import IniStore
from tests.oauth.world import CHEAP

ADA = "ada@example.org"
OLD, GIVEN = "canary-old-password", "canary-given-password"
GENERATED = re.compile(r"[a-z]{7}(-[a-z]{7}){3}")


@pytest.fixture(autouse=True)
def state(tmp_path: Path) -> Path:
    """With an account that has one password, and a server's log beside it."""
    (tmp_path / "log").touch(0o600)
    lockbox, _ = slots.new_lockbox(ADA, Secret(OLD), now_s=1_700_000_000, cost=CHEAP)
    keep(tmp_path / "state", Record(ADA, lockbox))
    return tmp_path / "state"


def keep(state: Path, record: Record) -> None:
    async def save() -> None:
        store = IniStore(state)
        async with store.locked(record.account):
            await store.save(record)
        store.close()

    asyncio.run(save())


def kept(state: Path) -> Record | None:
    async def load() -> Record | None:
        store = IniStore(state)
        try:
            return await store.load(ADA)
        finally:
            store.close()

    return asyncio.run(load())


def accounts(state: Path, *arguments: str, given: str = "") -> Result:
    """The command, and what it printed. There is no configuration."""
    places = ["--state", str(state), "--config", str(state.parent / "no.ini")]
    if arguments[0] != "passwords":
        places += ["--log-file", str(state.parent / "log")]
    return CliRunner().invoke(cli, ["accounts", *arguments, *places], input=given)


def add(state: Path, *arguments: str, password: str = OLD, name: str = "scanner") -> Result:
    wanted = ("add-password", ADA, "--name", name, "--unlock-file", "-")
    return accounts(state, *wanted, *arguments, given=f"{password}\n")


def opens(state: Path, password: str) -> str | None:
    """The name of the password's slot."""
    record = kept(state)
    assert record is not None
    try:
        return slots.unlock(record.lockbox, ADA, Secret(password))[1].name
    except WrongPassword:
        return None


def test_a_generated_password_is_alone_on_standard_output(state: Path) -> None:
    added = add(state, "--protocol", "imap,smtp", "--from", "10.0.0.0/8", "--from", "::1", "--expires", "90d")
    assert added.exit_code == 0, added.output
    [password] = added.stdout.splitlines()
    assert GENERATED.fullmatch(password)
    assert opens(state, password) == "scanner"
    assert opens(state, OLD) == "first"
    assert "scanner" in added.stderr
    assert "IMAP and SMTP only, from 10.0.0.0/8, ::1/128, until " in added.stderr
    assert password not in added.stderr
    log = (state.parent / "log").read_text()
    assert "'scanner'" in log
    assert not {password, OLD} & set(re.split(r"\s", log))


def test_a_given_password_is_not_repeated(state: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_text(f"{GIVEN}\n")
    added = add(state, "--password-file", str(tmp_path / "new"))
    assert (added.exit_code, added.stdout) == (0, "")
    assert GIVEN not in added.stderr
    assert opens(state, GIVEN) == "scanner"


def test_the_facts_as_json(state: Path) -> None:
    facts = json.loads(add(state, "--protocol", "smtp", "--json").stdout)
    assert opens(state, facts["password"]) == "scanner"
    assert facts["protocols"] == ["SMTP"]
    listed = json.loads(accounts(state, "passwords", ADA.upper(), "--json").stdout)
    assert [line["name"] for line in listed["passwords"]] == ["first", "scanner"]
    assert listed["passwords"][0] == {
        "name": "first",
        "created": "2023-11-14T22:13:20Z",
        "last_used": None,
        "limits": "",
        "protocols": [],
        "networks": [],
        "expires": None,
        "expired": False,
    }
    assert facts["password"] not in json.dumps(listed)


WRONG = [
    (("--protocol", "imap,http"), "'http' is no protocol", 2),
    (("--from", "10.0.0.1/8"), "write 10.0.0.0/8", 2),
    (("--name", "a\nb"), "a password cannot be called", 2),
    (("--name", ""), "a password cannot be called", 2),
    (("--expires", "soon"), "no length of time", 2),
    (("--expires", "0"), "out of bounds", 2),
    (("--ask", "--password-file", "-"), "do not go together", 2),
    (("--ask",), "there is no terminal", 2),
    (("--password-file", "-"), "cannot both be standard input", 2),
]


@pytest.mark.parametrize(("arguments", "words", "code"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_what_cannot_be_meant_changes_nothing(state: Path, arguments: tuple[str, ...], words: str, code: int) -> None:
    before = kept(state)
    added = add(state, *arguments)
    assert (added.exit_code, added.stdout) == (code, "")
    assert words in added.stderr
    assert kept(state) == before


def test_a_wrong_or_a_missing_password_unlocks_nothing(state: Path) -> None:
    wrong = add(state, password="canary-wrong")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "not the one that ada@example.org was set up with" in wrong.stderr
    without = accounts(state, "add-password", ADA, "--name", "scanner")
    assert (without.exit_code, without.stdout) == (2, "")
    for way in ("--unlock-file", "on a terminal", "log in once with a mail program", "--consent"):
        assert way in without.stderr
    empty = accounts(state, "change-password", ADA, "--unlock-file", "-", given="\n")
    assert (empty.exit_code, empty.stdout) == (2, "")
    assert "--unlock-file: its first line, the local password, is empty" in empty.stderr


def test_an_account_without_a_password_is_told_how_to_get_one(state: Path) -> None:
    for arguments in (("passwords", "bob@example.org"), ("remove-password", "bob@example.org", "first")):
        shown = accounts(state, *arguments)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert f"emailproxy authorize bob@example.org' (looked in {state})" in shown.stderr


def test_an_account_that_is_not_configured_is_no_account(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "emailproxy.ini"
    file.write_text(
        f"[emailproxy]\nstate_dir = {state}\n[IMAP-1993]\nserver_address = mail.example\nserver_port = 993\n"
        'local_address = 127.0.0.1\n[ada@example.org]\ntoken_command = ["/bin/false"]\n'
    )
    file.chmod(0o600)
    for command in (("passwords",), ("add-password", "--name", "x"), ("change-password",), ("remove-password", "x")):
        name, *more = command
        shown = CliRunner().invoke(cli, ["accounts", name, "adam@example.org", *more, "--config", str(file)])
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert "no account adam@example.org is configured" in shown.stderr, shown.stderr


def test_a_password_is_changed_by_who_knows_it_and_its_slot_keeps_its_limits(state: Path) -> None:
    scanner = add(state, "--protocol", "smtp").stdout.strip()
    changed = accounts(state, "change-password", ADA, "--unlock-file", "-", given=f"{scanner}\n")
    assert changed.exit_code == 0, changed.output
    [password] = changed.stdout.splitlines()
    assert [opens(state, one) for one in (password, scanner, OLD)] == ["scanner", None, "first"]
    [line] = [line for line in accounts(state, "passwords", ADA).stdout.splitlines() if "scanner" in line]
    assert "SMTP only" in line


def test_one_is_removed_and_the_last_only_by_force(state: Path) -> None:
    add(state)
    removed = accounts(state, "remove-password", ADA, "Scanner")
    assert removed.exit_code == 0, removed.output
    assert "sessions that stand go on" in removed.stdout
    for name in ("scanner", "first"):
        refused = accounts(state, "remove-password", ADA, name)
        assert (refused.exit_code, refused.stdout) == (1, "")
    assert "is the last password" in refused.stderr
    assert "must sign in at its provider again" in refused.stderr
    assert opens(state, OLD) == "first"
    forced = accounts(state, "remove-password", ADA, "first", "--force")
    assert forced.exit_code == 0
    assert "its tokens are gone" in forced.stdout
    assert kept(state) is None


def test_one_that_is_over_says_so(state: Path) -> None:
    facts = json.loads(add(state, "--expires", "1", "--json").stdout)
    assert facts["expires"] <= rfc3339(time.time() + 1)
    while rfc3339(time.time()) <= facts["expires"]:  # the clock's next second
        pass
    [line] = [line for line in accounts(state, "passwords", ADA).stdout.splitlines() if "scanner" in line]
    assert "expired" in line


def test_another_proxys_tokens_that_would_serve_again_are_told(state: Path, tmp_path: Path) -> None:
    """Only those of the configuration that this state folder belongs to."""
    file, token = tmp_path / "emailproxy.config", Fernet(Fernet.generate_key()).encrypt(b"canary").decode()
    file.write_text(
        f"[emailproxy]\nstate_dir = {state}\nlog_file = {tmp_path}/log\n[IMAP-1993]\nserver_address = mail.example\n"
        f"server_port = 993\nlocal_address = 127.0.0.1\n[{ADA}]\ntoken_url = https://provider.example/token\n"
        "permission_url = https://provider.example/authorize\noauth2_scope = mail\nclient_id = x\n"
        "redirect_uri = http://localhost:8801/\ntoken_salt = MDEyMzQ1Njc4OWFiY2RlZg==\ntoken_iterations = 1200000\n"
        f"refresh_token = {token}\naccess_token = {token}\naccess_token_expiry = 1\n"
    )
    file.chmod(0o600)
    removed = CliRunner().invoke(cli, ["accounts", "remove", ADA, "--yes", "--config", str(file)])
    assert removed.exit_code == 0, removed.output
    assert f"{file} still holds another proxy's cached tokens of {ADA}" in removed.stderr
    assert token not in removed.output
