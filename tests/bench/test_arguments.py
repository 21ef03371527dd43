"""The command lines of the bench and of endure: what is wrong with them is said at once, in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.arguments import find_servers
from tests.e2e.harness.proxy import CHECKOUT
from tests.endure import __main__ as endure


@pytest.mark.parametrize(
    ("main", "arguments", "told"),
    [
        (bench.main, "--only nothing", "no such measure: nothing; there are login_p50, "),
        (bench.main, "--candidates nobody", "no such candidate: nobody; there are emailproxy; "),
        (bench.main, "--rounds 0", "'0' is no whole number from 1 on"),
        (bench.main, "--rounds many", "'many' is no whole number from 1 on"),
        (bench.main, "--json /dev/null/x", "/dev/null/x cannot be written: Not a directory"),
        (bench.main, "--plot /dev/null/x", "/dev/null/x.svg cannot be written: Not a directory"),
        (endure.main, "nothing", "no such scenario or group: nothing; --list names them"),
        (endure.main, "--minutes 0 --list", "'0' is no number of minutes above 0"),
        (endure.main, "--minutes nan --list", "'nan' is no number of minutes above 0"),
        (endure.main, "--json / --list", "/ cannot be written: Is a directory"),
    ],
)
def test_a_wrong_argument_is_told_of_before_anything_starts(
    main: Callable[[], int],
    arguments: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["script", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "drawn"),
    [
        ("", []),
        ("--plot", ["scripts/bench.svg", "scripts/bench.png"]),
        ("--plot --only start", ["build/bench.svg", "build/bench.png"]),
        ("--plot --candidates stunnel --json build/some.json", ["build/some.svg", "build/some.png"]),
        ("--plot --short", ["build/bench.svg", "build/bench.png"]),
        ("--short --plot build/mine.svg", ["build/mine.svg", "build/mine.png"]),
    ],
)
def test_only_a_whole_run_is_the_readme_s_picture(arguments: str, drawn: list[str]) -> None:
    assert [str(path) for path in bench.pictures(bench.parser().parse_args(arguments.split()))] == drawn


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("command", ["tests.bench --help", "tests.endure --list"])
def test_an_output_that_cannot_be_written_is_one_line(command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", *command.split()],
            stdout=full, stderr=subprocess.PIPE, env=environment, cwd=CHECKOUT, text=True, check=False,
        )  # fmt: skip
    program = "scripts/" + command.split()[0].removeprefix("tests.")
    assert ended.stderr == f"{program}: the output cannot be written: No space left on device\n"
    assert ended.returncode == 1


def test_a_machine_without_dovecot_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.arguments.SERVERS_OF_DEBIAN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"scripts/bench: there is no Dovecot here; install dovecot-imapd"):
        find_servers("scripts/bench")
