"""The command lines of the bench and of endure: what is wrong with them is said at once, in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.arguments import find_servers
from tests.endure import __main__ as endure


@pytest.mark.parametrize(
    ("main", "arguments", "told"),
    [
        (bench.main, "--only nothing", "no such measure: nothing; there are login_p50, "),
        (bench.main, "--candidates nobody", "no such candidate: nobody; there are emailproxy; "),
        (bench.main, "--rounds 0", "'0' is no whole number from 1 on"),
        (bench.main, "--rounds many", "'many' is no whole number from 1 on"),
        (bench.main, "--json /dev/null/x", "/dev/null/x cannot be written: Not a directory"),
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


def test_a_machine_without_dovecot_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.arguments.SERVERS_OF_DEBIAN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"scripts/bench: there is no Dovecot here; install dovecot-imapd"):
        find_servers("scripts/bench")
