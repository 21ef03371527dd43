"""Where the person is: whether a browser may be opened, the way through SSH, and what a phone can read."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import segno

from emailproxy.cli import person
from emailproxy.cli.progress import clock_face
from emailproxy.config.model import Account, FlowName

SSH = {"SSH_CONNECTION": "198.51.100.7 50123 192.0.2.7 22", "SSH_TTY": "/dev/pts/0"}
DISPLAY = {"DISPLAY": ":0"}

BROWSERS: list[tuple[dict[str, str], str, bool, bool]] = [
    # variables, platform, root, whether a browser may be opened
    ({}, "linux", False, False),
    (DISPLAY, "linux", False, True),
    ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", False, True),
    ({"DISPLAY": ""}, "linux", False, False),
    ({"BROWSER": "wslview"}, "linux", False, True),
    ({"BROWSER": "wslview"}, "linux", True, False),
    ({}, "linux", True, False),
    (DISPLAY, "linux", True, True),
    ({}, "freebsd14", False, False),
    ({}, "darwin", False, True),
    ({}, "win32", False, True),
    (SSH, "darwin", False, False),
    ({**SSH, **DISPLAY}, "linux", False, False),  # X11 forwarding
    ({"SSH_CLIENT": "198.51.100.7 50123 22", **DISPLAY}, "linux", False, False),
    ({"SSH_TTY": "/dev/pts/0", "BROWSER": "firefox"}, "linux", False, False),
]


@pytest.mark.parametrize(("variables", "platform", "root", "opens"), BROWSERS)
def test_a_browser_is_opened_where_the_person_would_see_it(
    variables: dict[str, str], platform: str, root: bool, opens: bool
) -> None:
    assert person.has_browser(variables, platform=platform, root=root) is opens


def account(**changes: Any) -> Account:
    settings = {"name": "ada@example.org", "section": "ada@example.org", "flow": FlowName.AUTHORIZATION_CODE}
    return Account(**{**settings, **changes})


TUNNELS: list[tuple[dict[str, str], dict[str, Any], str | None]] = [
    (SSH, {}, "ssh -L 8801:localhost:8801 ada@192.0.2.7"),
    ({}, {}, None),
    (DISPLAY, {}, None),
    (SSH, {"redirect_uri": "http://127.0.0.1:9000/cb"}, "ssh -L 9000:localhost:9000 ada@192.0.2.7"),
    (SSH, {"redirect_uri": "http://localhost/"}, "ssh -L 80:localhost:80 ada@192.0.2.7"),
    (SSH, {"redirect_uri": "http://[::1]:8801/"}, "ssh -L 8801:localhost:8801 ada@192.0.2.7"),
    (SSH, {"redirect_uri": "https://vault.example/oauth"}, None),
    (SSH, {"flow": FlowName.DEVICE}, None),
    (SSH, {"redirect_listen_address": "0.0.0.0:9000"}, "ssh -L 8801:localhost:9000 ada@192.0.2.7"),
    (SSH, {"redirect_listen_address": "http://192.0.2.7:9000/"}, "ssh -L 8801:192.0.2.7:9000 ada@192.0.2.7"),
    (SSH, {"redirect_listen_address": "[2001:db8::7]:9000"}, "ssh -L 8801:[2001:db8::7]:9000 ada@192.0.2.7"),
    ({"SSH_CONNECTION": "::1 5 2001:db8::7 2222"}, {}, "ssh -p 2222 -L 8801:localhost:8801 ada@2001:db8::7"),
]


@pytest.mark.parametrize(("variables", "changes", "line"), TUNNELS)
def test_the_way_through_ssh(variables: dict[str, str], changes: dict[str, Any], line: str | None) -> None:
    assert person.tunnel(account(**changes), variables, "ada") == line


def test_without_the_servers_address_its_name_will_do() -> None:
    line = person.tunnel(account(), {"SSH_TTY": "/dev/pts/0"}, "ada")
    assert line == f"ssh -L 8801:localhost:8801 ada@{os.uname().nodename}"


def test_who_came_by_ssh_is_not_who_sudo_made_of_them() -> None:
    assert person.user_name({"SUDO_USER": "ada", "USER": "root"}) == "ada"
    assert person.user_name({}) != ""


# ---- a browser, for real


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that notes what it was given and what it could see."""
    script = tmp_path / "browser"
    script.write_text('#!/bin/sh\nprintf %s "$1" > "$0.url"; env > "$0.env"; echo noise; exit ${REFUSES:-0}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    monkeypatch.setenv("CANARY", "canary-secret")
    return script


async def test_the_browser_gets_the_url_and_no_secret(browser: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url = "https://login.example/authorize?a=b&state=c d;$(e)'"
    assert await person.open_browser(url, {"CANARY"})
    assert Path(f"{browser}.url").read_text() == url
    assert "canary-secret" not in Path(f"{browser}.env").read_text()
    assert "PATH=" in Path(f"{browser}.env").read_text()
    assert capfd.readouterr() == ("", "")


async def test_a_browser_that_fails_is_noticed(browser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSES", "1")
    monkeypatch.setenv("PATH", str(browser.parent))  # and there is no other one
    monkeypatch.delenv("DISPLAY", raising=False)
    assert not await person.open_browser("https://login.example/")


# ---- QR codes

PAGE = "https://login.example/device?user_code=ABCD-EFGH"


class Screen(io.StringIO):
    """A terminal, as far as a program can tell."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = True) -> None:
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


SCREENS = [
    ("utf-8", True, 80, True),
    ("cp437", True, 80, True),
    ("utf-8", False, 80, False),
    ("ascii", True, 80, False),
    ("utf-8", True, 20, False),
]


@pytest.mark.parametrize(("encoding", "terminal", "columns", "shown"), SCREENS)
def test_a_qr_code_is_shown_where_there_is_room_for_it(
    encoding: str, terminal: bool, columns: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    screen = Screen(encoding, terminal=terminal)
    assert person.show_qr(PAGE, screen) is shown
    assert bool(screen.getvalue()) is shown
    if shown:
        lines = screen.getvalue().splitlines()
        symbol = segno.make_qr(PAGE, error="l").symbol_size(border=person.QUIET_ZONE)[0]
        assert {len(line) for line in lines} == {symbol}
        assert len(lines) == (symbol + 1) // 2


CLOCK = [
    (0, "0:00"),
    (-3, "0:00"),
    (59.9, "0:59"),
    (60, "1:00"),
    (900, "15:00"),
    (3600, "1:00:00"),
    (86_399, "23:59:59"),
]


@pytest.mark.parametrize(("seconds", "shown"), CLOCK)
def test_times_read_as_on_a_clock(seconds: float, shown: str) -> None:
    assert clock_face(seconds) == shown
