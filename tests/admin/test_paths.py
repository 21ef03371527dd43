"""Where the control socket lies, as the server sees it and as commands look for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emailproxy.admin import paths
from emailproxy.config.model import Settings

NAMES = ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No runtime folder but those that a test makes."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "USERS_FOLDERS", tmp_path / "users")


def settings(folder: Path, **others: Path) -> Settings:
    return Settings(state_dir=folder / "state", log_file=folder / "log", **others)  # type: ignore[arg-type]


def test_the_name_is_the_folder_s_by_whatever_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("state")
    name = paths.socket_name(tmp_path / "state")
    assert len(name) == 21
    assert paths.socket_name(tmp_path / "link") == name
    monkeypatch.chdir(tmp_path)
    assert paths.socket_name(Path("state")) == name
    assert paths.socket_name(tmp_path) != name


def test_the_setting_comes_first_then_systemd_then_the_user_then_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(**others: Path) -> Path:
        return paths.server_place(settings(tmp_path, **others)).parent

    assert folder() == tmp_path / "state"
    user = tmp_path / "users" / str(os.geteuid())
    user.mkdir(parents=True)
    assert folder() == user / "emailproxy"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    assert folder() == user / "emailproxy"
    (tmp_path / "nowhere").mkdir()
    assert folder() == tmp_path / "nowhere" / "emailproxy"
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/service:{tmp_path}/other")
    assert folder() == tmp_path / "service"
    assert folder(runtime_dir=tmp_path / "mine") == tmp_path / "mine"


@pytest.mark.parametrize("where", ["setting", "service", "user", "xdg", "state", "owner"])
def test_commands_look_wherever_a_server_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The server's environment is not the command's: a shell of root's, or of the same user without a session."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "users" / str(os.geteuid())).mkdir(parents=True)
    with monkeypatch.context() as of_the_server:
        if where == "service":
            monkeypatch.setattr(paths, "SYSTEM_FOLDER", tmp_path / "run")
            of_the_server.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
        elif where == "xdg":
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        elif where == "state":
            (tmp_path / "users" / str(os.geteuid())).rmdir()
        elif where == "owner":
            if os.geteuid() != 0:
                pytest.skip("needs root, to look for others' servers")
            os.chown(state, 12_345, 12_345)
            (tmp_path / "users" / "12345").mkdir()
            of_the_server.setattr(os, "geteuid", lambda: 12_345)
        runtime_dir = tmp_path / "mine" if where == "setting" else None
        place = paths.server_place(settings(tmp_path, **({"runtime_dir": runtime_dir} if runtime_dir else {})))
    assert place in paths.client_places(state, runtime_dir)
