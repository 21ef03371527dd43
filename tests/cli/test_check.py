"""`emailproxy check` as a process: its lines, its document, its exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.check.site import ADA, PASSWORD, ROBOT, Site
from tests.cli.site import Ended, ended
from tests.cli.terminal import answered
from tests.e2e.harness.proxy import COMMAND


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Site]:
    """With mail servers behind it."""
    async with Site.at(tmp_path) as site:
        yield site


async def checked(site: Site, *arguments: str, password: str = "") -> Ended:
    path = site.config.path
    return await ended(*COMMAND, "check", *arguments, "--config", path, stdin=password.encode(), cwd=site.folder)


def document(done: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out)
    return found


WITH_PASSWORD = (ADA, "--password-file", "-")


async def test_a_chain_that_is_whole_ends_with_0(whole: Site) -> None:
    await whole.sign_in()
    done = await checked(whole, *WITH_PASSWORD, password=f"{PASSWORD.reveal()}\n")
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert lines[0] == f"ok            configuration  {whole.config.path}: 3 servers and 2 accounts"
    assert lines[-1].startswith("ok            login          ada@example.org at SMTP-")
    assert any(line.startswith("warning       tls ") for line in lines)
    assert any(line.strip().startswith("-> have whoever runs localhost renew it") for line in lines)
    assert PASSWORD.reveal() not in done.out + done.err


async def test_one_document_for_monitoring(whole: Site) -> None:
    await whole.sign_in()
    done = await checked(whole, *WITH_PASSWORD, "--json", password=f"{PASSWORD.reveal()}\n")
    assert done.code == 0, done
    found = document(done)
    assert (found["ok"], found["exit_code"]) == (True, 0)
    assert [finding["link"] for finding in found["findings"]][-3:] == ["login"] * 3


async def test_without_a_password_it_says_so_and_ends_well(whole: Site) -> None:
    await whole.sign_in()
    done = await checked(whole, ADA)
    assert done.code == 0, done
    assert "no local password was given" in done.out.splitlines()[-1]


async def test_where_a_person_is_needed_it_ends_with_3(whole: Site) -> None:
    done = await checked(whole, "--json")
    assert done.code == 3, done
    last = document(done)["findings"][-2]
    assert last == {
        "link": "token",
        "about": ADA,
        "grade": "needs person",
        "text": "nobody has signed in yet",
        "action": f"run 'emailproxy authorize {ADA}'",
        "facts": {"local_passwords": 0},
    }


async def test_a_broken_link_ends_with_1(whole: Site) -> None:
    whole.sections[whole.section("IMAP")] = {"server_address": "no-such-host.invalid"}
    done = await checked(whole)
    assert done.code == 1, done
    assert "no-such-host.invalid cannot be looked up" in done.out
    assert "token" not in done.out


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["lines", "JSON"])
async def test_a_configuration_that_is_wrong_ends_with_78(whole: Site, arguments: list[str]) -> None:
    path = whole.config.path
    path.write_text(path.read_text().replace("server_port = ", "server_port = x"))
    done = await ended(*COMMAND, "check", *arguments, "--config", path, cwd=whole.folder)
    assert done.code == 78, done
    assert "server_port" in done.out
    if arguments:
        findings = document(done)["findings"]
        assert {finding["link"] for finding in findings} == {"configuration"}
        assert len(findings) == 3
        assert findings[0]["about"].startswith(f"{path}:")


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["lines", "JSON"])
async def test_an_account_that_is_not_configured_is_told(whole: Site, arguments: list[str]) -> None:
    done = await checked(whole, "nobody@example.org", *arguments)
    assert done.code == 1, done
    assert "no account nobody@example.org is configured" in done.out


async def test_an_empty_password_file_is_a_wrong_use(whole: Site) -> None:
    done = await checked(whole, *WITH_PASSWORD)
    assert done.code == 2
    assert "its first line, the local password, is empty" in done.err


async def test_authorize_tries_the_chain_in_the_end(whole: Site) -> None:
    command = ("authorize", ROBOT, "--password-file", "-", "--config", whole.config.path)
    done = await ended(*COMMAND, *command, stdin=b"a local password\n", cwd=whole.folder)
    assert done.code == 0, done
    assert f"{ROBOT} is signed in" in done.out
    assert "a login by IMAP goes through, and the mailbox opens" in done.err
    whole.takes = False
    done = await ended(*COMMAND, *command, "--json", stdin=b"a local password\n", cwd=whole.folder)
    assert done.code == 1, done
    signed_in, checked = map(json.loads, done.out.splitlines())
    assert signed_in["signed_in"] is True
    assert checked["check"]["exit_code"] == 1
    done = await ended(*COMMAND, *command, "--no-check", stdin=b"a local password\n", cwd=whole.folder)
    assert done.code == 0, done


@pytest.mark.parametrize(
    ("typed", "words"),
    [(PASSWORD.reveal(), "a login by SMTP goes through"), ("", "no local password was given")],
    ids=["a password", "none"],
)
async def test_at_a_terminal_the_password_is_asked_for(whole: Site, typed: str, words: str) -> None:
    await whole.sign_in()
    command = ["check", ADA, "--config", str(whole.config.path)]
    code, shown = await asyncio.to_thread(answered, command, [("Local password", typed)])
    assert code == 0, shown
    assert words in shown
    assert PASSWORD.reveal() not in shown
