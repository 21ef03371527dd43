"""What the commands' tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from emailproxy.cli.main import cli
from emailproxy.config import ini
from tests.cli.site import SERVICE, Site

Register = Callable[..., Result]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site.at(tmp_path) as configured:
        yield configured


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users get to: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="emailproxy-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
async def services_site(reachable: Path) -> AsyncIterator[Site]:
    """A site whose folders belong to the service's user."""
    async with Site.at(reachable) as site:
        for folder in (site.state, site.log_file.parent):
            folder.mkdir(0o700)
            os.chown(folder, SERVICE, SERVICE)
        os.chown(site.config, SERVICE, SERVICE)
        yield site


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The user's configuration, as `register` finds it."""
    return tmp_path / "config" / "emailproxy" / "emailproxy.ini"


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Runs `emailproxy register` in an empty folder, with the user's configuration at `file`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(ini, "SYSTEM_FILE", tmp_path / "system.ini")

    def run(*arguments: str, given: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["register", *arguments], input=given)

    return run
