"""Tokens from another program, and secrets from where the configuration says, through a mail login."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness.realm import Realm, Settings, realm
from tests.e2e.harness.world import CLIENT_SECRET, USER
from tests.fakes import filekeyring

pytestmark = pytest.mark.system("dovecot")

BOB = "bob@example.com"
TELLS_RUNS = 'echo run >>"$1"; cat "$2"'
FAILS = 'test -e "$1" || { echo "the vault is locked" >&2; exit 3; }; cat "$1"'
TELLS_ENVIRONMENT = 'env >"$1"; cat "$2"'


def shell(script: str, *arguments: Path) -> str:
    """A program and its arguments, as the configuration has them."""
    return json.dumps(["/bin/sh", "-c", script, "sh", *map(str, arguments)])


def by_command(script: str, *arguments: Path) -> Settings:
    return {"oauth2_flow": "token_command", "token_command": shell(script, *arguments)}


def token(ours: Realm, user: str = USER) -> str:
    return ours.provider.access_token(user)


async def test_a_program_prints_a_token(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        runs, printed = tmp_path / "runs", tmp_path / "printed"
        printed.write_text(f"{token(ours)}\n")
        async with ours.proxy(by_command(TELLS_RUNS, runs, printed)) as proxy:
            await ours.log_in()
            await proxy.printed(f"account {USER} is set up")
            assert "[AUTHENTICATIONFAILED]" in await ours.refusal(password="not that of the first login")
            await ours.log_in()
        assert runs.read_text() == "run\n"


async def test_a_program_says_when_its_token_ends(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        runs, printed = tmp_path / "runs", tmp_path / "printed"
        printed.write_text(json.dumps({"access_token": token(ours), "expires_in": 2}))
        async with ours.proxy(by_command(TELLS_RUNS, runs, printed)):
            await ours.log_in_until(lambda: runs.exists() and runs.read_text().count("run") > 1)
            await ours.log_in()


async def test_a_program_that_fails(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        vault = tmp_path / "vault"
        async with ours.proxy(by_command(FAILS, vault)) as proxy:
            told = await ours.refusal()
            assert "[UNAVAILABLE]" in told
            assert f"the token_command of {USER} failed (exit code 3)" in told
            await proxy.printed(f"the token_command of {USER} says: the vault is locked")
            vault.write_text(token(ours))
            await ours.log_in()


def from_file(ours: Realm) -> Settings:
    (ours.folder / "secret").write_text(f"{CLIENT_SECRET}\n")
    return {"client_secret_file": "secret"}


def from_command(ours: Realm) -> Settings:
    (ours.folder / "secret").write_text(f"{CLIENT_SECRET}\n")
    return {"client_secret_command": shell('cat "$1"', ours.folder / "secret")}


def from_environment(ours: Realm) -> Settings:
    ours.env["PROXY_CLIENT_SECRET"] = CLIENT_SECRET
    return {"client_secret": "env:PROXY_CLIENT_SECRET"}


def from_keyring(ours: Realm) -> Settings:
    ours.env |= filekeyring.environment(ours.folder / "keyring.json", {"mail/proxy": {"client": CLIENT_SECRET}})
    return {"client_secret": "keyring:mail/proxy/client"}


@pytest.mark.parametrize("source", [from_file, from_command, from_environment, from_keyring])
async def test_a_secret_from_elsewhere(tmp_path: Path, source: Callable[[Realm], Settings]) -> None:
    async with realm(tmp_path) as ours:
        section = {key: value for key, value in ours.application.items() if key != "client_secret"}
        async with ours.proxy(section | source(ours)):
            await ours.log_in()
        [asked] = ours.provider.requests
        assert (asked.form["client_secret"], asked.status) == (CLIENT_SECRET, 200)
        assert CLIENT_SECRET not in ours.config.read_text()


async def test_no_child_sees_a_secret_of_the_environment(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        of_command, of_hook, printed = (tmp_path / name for name in ("of-command", "of-hook", "printed"))
        printed.write_text(token(ours, BOB))
        account = ours.application | from_environment(ours)
        ours.env["PROXY_HOOK_SECRET"] = "canary of the hook's"
        ours.env["PROXY_SEEN"] = "by children"
        settings = {
            "on_login_failed": shell(TELLS_ENVIRONMENT, of_hook, Path("/dev/null")),
            "hook_secret": "env:PROXY_HOOK_SECRET",
        }
        also = {BOB: by_command(TELLS_ENVIRONMENT, of_command, printed)}
        async with ours.proxy(account, also=also, **settings) as proxy:
            await ours.log_in()
            await ours.log_in(BOB)
            await proxy.printed(f"account {BOB} is set up")
            await ours.refusal(BOB, "not that of the first login")
        for seen in (of_command.read_text(), of_hook.read_text()):
            assert "PROXY_SEEN=by children" in seen
            for hidden in ("PROXY_CLIENT_SECRET", "PROXY_HOOK_SECRET", "canary", "NOTIFY_SOCKET"):
                assert hidden not in seen
        assert ours.provider.requests[0].status == 200
