"""Where the configuration is looked for, and where a service keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emailproxy.config import ini
from emailproxy.errors import ConfigError
from tests.config.samples import GOOD, PATH


class TestFind:
    """Where the configuration is looked for."""

    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("here", "user/emailproxy", "system"):
            (tmp_path / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
        monkeypatch.setattr(ini, "SYSTEM_FILE", tmp_path / "system" / ini.FILE_NAME)

    def test_the_first_there_is_is_taken(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="emailproxy register"):
            ini.find()
        for place in (ini.SYSTEM_FILE, tmp_path / "user/emailproxy/emailproxy.ini", Path("emailproxy.ini")):
            place.touch()
            assert ini.find() == place
        assert ini.find(Path("/named")) == Path("/named")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
    def test_root_does_not_obey_what_another_user_put_there(self, tmp_path: Path) -> None:
        ini.SYSTEM_FILE.touch()
        for name in ("emailproxy.config", "emailproxy.ini"):
            Path(name).touch()
            assert ini.find() == Path(name)
            os.chown(name, 12345, 12345)
            assert ini.find() == ini.SYSTEM_FILE
            os.chown(name, 0, 0)
            os.chown(".", 12345, 12345)
            assert ini.find() == ini.SYSTEM_FILE
            os.chown(".", 0, 0)
            Path(name).unlink()

    def test_another_proxys_file_comes_after_ours_in_the_working_directory(self) -> None:
        ini.SYSTEM_FILE.touch()
        Path("emailproxy.config").touch()
        assert ini.find() == Path("emailproxy.config")
        assert ini.own_file() == ini.SYSTEM_FILE
        Path("emailproxy.ini").touch()
        assert ini.find() == Path("emailproxy.ini")
        assert ini.find(drop_in=True) == Path("emailproxy.config")

    def test_a_service_keeps_its_files_where_systemd_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/emailproxy:/var/lib/other")
        monkeypatch.setenv("LOGS_DIRECTORY", "/var/log/emailproxy")
        found = ini.loads(GOOD, PATH).settings
        assert (found.state_dir, found.log_file) == (
            Path("/var/lib/emailproxy/state"),
            Path("/var/log/emailproxy/emailproxy.log"),
        )
