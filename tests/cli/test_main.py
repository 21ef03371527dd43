"""The command line as a whole: help, version, errors, and what they cost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from emailproxy import __version__
from emailproxy.cli.main import COMMANDS
from tests.cli.site import ended
from tests.e2e.harness.proxy import CHECKOUT, COMMAND

HEAVY = ("aiohttp", "msal", "google.auth", "google.oauth2", "uvloop", "aiosmtpd", "rich", "cryptography.x509")
HELP = [
    ["--help"],
    ["-h"],
    *([name, "--help"] for name in COMMANDS),
    *(
        ["accounts", name, "-h"]
        for name in ("list", "remove", "passwords", "add-password", "change-password", "remove-password")
    ),
]


@pytest.mark.parametrize("arguments", [*HELP, ["--version"]], ids=" ".join)
async def test_help_works_and_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules)))))\n"
        f"sys.argv = ['emailproxy', *{arguments!r}]\n"
        "from emailproxy.cli.main import main\n"
        "main()\n"
    )
    shown = await ended(sys.executable, "-c", program, cwd=tmp_path)
    assert shown.code == 0, shown
    assert shown.err == ""
    *text, imported = shown.out.splitlines()
    assert json.loads(imported) == []
    assert text[0] == (f"emailproxy, version {__version__}" if arguments == ["--version"] else text[0])
    assert arguments == ["--version"] or text[0].startswith("Usage: emailproxy")


async def test_the_help_names_every_command(tmp_path: Path) -> None:
    shown = await ended(*COMMAND, "--help", cwd=tmp_path)
    for name in (
        *("serve", "register", "authorize", "logs", "check", "status", "accounts"),
        *("import", "certificate", "demo"),
    ):
        assert f"\n  {name} " in shown.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server"], "No such command 'server'"),
        (["serve", "--deamon"], "No such option"),
        (["logs", "-n", "many"], "'many' is not a valid integer"),
        (["logs", "-n", "-1"], "-1 is not in the range"),
        (["logs", "-f", "--consent"], "does not go with --follow"),
        (["authorize"], "Missing argument 'ACCOUNT'"),
        (["accounts", "forget"], "No such command 'forget'"),
        (["serve", "--config", "."], "is a directory"),
    ],
)
async def test_wrong_usage_says_so_and_exits_with_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    shown = await ended(*COMMAND, *arguments, cwd=tmp_path)
    assert (shown.code, shown.out) == (2, "")
    assert words in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("command", [["serve"], ["authorize", "ada@example.org"]], ids=" ".join)
@pytest.mark.skipif(os.path.exists("/etc/emailproxy/emailproxy.ini"), reason="this machine has a configuration")
async def test_without_a_configuration_the_mend_is_register(tmp_path: Path, command: list[str]) -> None:
    shown = await ended(*COMMAND, *command, cwd=tmp_path)
    assert shown.code == 78
    [line] = shown.complaints
    assert "there is no configuration file" in line
    assert "emailproxy register" in line


BREAKS = {
    "ZeroDivisionError('canary')": "emailproxy: this is a fault of its own: ZeroDivisionError at sitecustomize.py:3; "
    "run it again with EMAILPROXY_TRACEBACK=1",
    "PermissionError(13, 'canary', '/some/file')": "emailproxy: /some/file: Permission denied",
}


@pytest.mark.parametrize("error", BREAKS)
async def test_what_no_command_expects_is_one_line_unless_asked_for_more(tmp_path: Path, error: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import emailproxy.cli.certificate\ndef place(*_):\n    raise {error}\n"
        "emailproxy.cli.certificate.state_place = place\n"
    )
    command, path = (*COMMAND, "certificate"), {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    shown = await ended(*command, env=path, cwd=tmp_path)
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.complaints
    assert line.startswith(BREAKS[error])
    assert "canary" not in line
    shown = await ended(*command, env=path | {"EMAILPROXY_TRACEBACK": "1"}, cwd=tmp_path)
    assert shown.complaints[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize("command", [["--version"], ["check", "--config", "none.ini"]], ids=" ".join)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
async def test_an_output_that_cannot_be_written_is_told_as_that(tmp_path: Path, command: list[str]) -> None:
    """By click, and by rich."""
    shown = await ended("/bin/sh", "-c", '"$@" >/dev/full', "sh", *COMMAND, *command, cwd=tmp_path)
    assert shown.code == 1
    assert shown.complaints == ["emailproxy: the output cannot be written: No space left on device"]


@pytest.mark.parametrize("redirection", ["2>/dev/full", ">&- 2>&-", "<&- 2>&-"])
async def test_the_exit_code_tells_even_where_nothing_can_be_said(tmp_path: Path, redirection: str) -> None:
    command = [*COMMAND, "serve", "--config", "none.ini"]
    assert (await ended("/bin/sh", "-c", f'"$@" {redirection}', "sh", *command, cwd=tmp_path)).code == 78


async def test_a_closed_stream_leaves_its_number_to_nobody(tmp_path: Path) -> None:
    """What is printed there would go to whoever has the socket that is opened next."""
    program = "import os; from emailproxy.cli import main; main._open_closed(); print(os.open('.', 0), flush=True)"
    shown = await ended("/bin/sh", "-c", '"$@" <&- 2>&-', "sh", sys.executable, "-c", program, cwd=tmp_path)
    assert int(shown.out) > 2
