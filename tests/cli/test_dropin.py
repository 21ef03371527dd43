"""The bare command takes the command lines that people have: it serves what another proxy served."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from emailproxy import __version__
from emailproxy.cli.main import cli
from emailproxy.config import ini
from tests.cli.site import Site
from tests.e2e.harness.proxy import serve

OURS, THEIRS, USERS, SYSTEMS, NAMED = "emailproxy.ini", "emailproxy.config", "the user's", "the system's", "named.cfg"
EVERYTHING = {OURS, THEIRS, USERS, SYSTEMS, NAMED}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where a configuration may be."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(ini, "SYSTEM_FILE", tmp_path / "system.ini")
    return {
        OURS: Path(OURS),
        THEIRS: Path(THEIRS),
        USERS: tmp_path / "config" / "emailproxy" / "emailproxy.ini",
        SYSTEMS: tmp_path / "system.ini",
        NAMED: Path(NAMED),
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "there", "served"),
    [
        ([], EVERYTHING, OURS),
        ([], EVERYTHING - {OURS}, THEIRS),
        ([], {USERS, SYSTEMS}, USERS),
        ([], {SYSTEMS}, SYSTEMS),
        (["--no-gui"], EVERYTHING, THEIRS),
        (["--debug"], EVERYTHING - {THEIRS}, OURS),
        (["--local-server-auth", "--external-auth"], {THEIRS, USERS}, THEIRS),
        (["--config-file", NAMED], EVERYTHING, NAMED),
        (["--no-gui", f"--config-file={NAMED}", "--debug"], EVERYTHING, NAMED),
        (
            ["--debug", "--cache-store", "cache", "--config-file", NAMED, "--no-gui", "--log-file", "log"],
            EVERYTHING,
            NAMED,
        ),
        (["--no", "--config", NAMED, "--ext", "--loc", "--log=log"], EVERYTHING, NAMED),
    ],
)
def test_it_serves_the_file_that_is_meant(
    places: dict[str, Path], arguments: list[str], there: set[str], served: str
) -> None:
    for name in there:
        places[name].parent.mkdir(parents=True, exist_ok=True)
        places[name].write_text("[IMAP-1]\nwrong = 1\n")
    result = run(*arguments)
    assert result.exit_code == 78
    assert f"emailproxy: {places[served]}:2: [IMAP-1] wrong: there is no such key" in result.output


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "emailproxy register"),
        ([], 2, "There is no configuration yet"),
        (["--no-gui"], 78, "there is no configuration file; looked for emailproxy.ini, emailproxy.config,"),
        (["--config-file", "absent"], 78, "absent: cannot be read: No such file"),
        (["--config-file"], 2, "Option '--config-file' requires an argument"),
        (["--config-file", "."], 2, "is a directory"),
        (["--gui"], 2, "No such option '--gui'"),
        (["--c", "x"], 2, "No such option '--c'"),
        (["--no-gui", "server"], 2, "No such command 'server'"),
        (["--debug", "serve"], 2, "--debug goes with the bare command; the options of 'serve' stand behind its name"),
        (["--cache-store", "aws:mail||arn:aws:x", "--no-gui"], 78, "AWS Secrets Manager is not supported yet"),
        (["--cache-store=aws:name"], 78, "emailproxy authorize ACCOUNT"),
        (["--no-gui", "--version"], 0, f"emailproxy, version {__version__}"),
        (["--debug", "--help"], 0, "--config-file FILE --cache-store FILE"),
    ],
)
def test_what_cannot_be_served_is_told(arguments: list[str], code: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert words in " ".join(result.output.split())


async def test_a_command_line_of_another_proxy_starts_the_server(site: Site) -> None:
    theirs = site.folder / "emailproxy.config"
    theirs.write_text(site.config.read_text())
    site.config.unlink()
    before = theirs.read_bytes()
    log_file = site.folder / "log" / "elsewhere.log"
    (site.folder / "cache").touch()
    arguments = ("--external-auth", "--debug", "--log-file", log_file, "--no-gui", "--local-server-auth")
    arguments += ("--cache-store", "cache")
    async with serve(*arguments, log_file=log_file, home=site.folder, command=()) as proxy:
        await proxy.printed("emailproxy authorize ACCOUNT --paste --config emailproxy.config")
        await proxy.printed("--cache-store: cache is read and never written")
        assert await proxy.stop() == 0
    assert "ready" in log_file.read_text()
    assert theirs.read_bytes() == before
