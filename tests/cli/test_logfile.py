"""The server's log file: private, one record a line, rotating, and patient with full disks."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from emailproxy.cli import logfile
from tests.cli.records import log, logging_to, messages, numbered, write
from tests.cli.site import GROUP, ROOT_ONLY, SERVICE, Site


def test_the_log_is_private_from_the_first_octet_and_so_are_the_rotated_ones(tmp_path: Path) -> None:
    path = tmp_path / "log" / "emailproxy.log"
    mask = os.umask(0)
    try:
        logfile.start(path, size_mib=1, files=2).close()
        with logging_to(path, octets=100, files=2):
            write(1, 20)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["emailproxy.log", "emailproxy.log.1", "emailproxy.log.2"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


FORGERIES = [
    "x\n2026-01-01 00:00:00,000 WARNING Please visit",
    "x\r\n2026-01-01 00:00:00,000 INFO account signed in",
    "\x1b]0;title\x07\x1b[2J",
    "\x9b2J \x85 \u2028 \u2029 \x0b \x0c \x1c \x7f \0",
]


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_a_record_is_one_line_whatever_is_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path):
        log.warning("login refused for %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("it failed")
    first, second, *traceback = path.read_text().splitlines()
    assert "WARNING login refused for " in first
    assert second.endswith("ERROR it failed")
    assert all(line.startswith("    ") for line in traceback)
    assert "ValueError" in traceback[-1] or "ValueError" in traceback[-2]
    assert path.read_text().replace("\n", "").isprintable()


def test_what_is_no_text_is_logged_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    handler = logfile.PrivateRotatingFile(path)
    handler.handle(logging.LogRecord("emailproxy", logging.INFO, "", 0, "no text: %s", ("\udcff",), None))
    handler.close()
    assert path.read_text() == "no text: \\udcff\n"


def test_what_libraries_warn_of_is_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path):
        logging.getLogger("asyncio").error("Task exception was never retrieved")
        logging.getLogger("oauthlib").debug("chatter")
    assert messages(path.read_text()) == ["Task exception was never retrieved"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
def test_a_full_disk_is_told_once_and_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full")):
        write(1, 5)
    assert capsys.readouterr().err.splitlines() == [
        "emailproxy: the log file /dev/full is incomplete: [Errno 28] No space left on device"
    ]


def test_a_log_that_cannot_rotate_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "emailproxy.log"
    (tmp_path / "emailproxy.log.1" / "in the way").mkdir(parents=True)
    with logging_to(path, octets=100, files=1):
        write(1, 9)
    assert messages(path.read_text()) == numbered(1, 9)
    [line] = capsys.readouterr().err.splitlines()
    assert "is incomplete" in line


async def test_a_log_that_all_can_read_is_told(site: Site) -> None:
    site.log_file.parent.mkdir()
    site.log_file.touch(0o644)
    site.log_file.chmod(0o644)
    async with site.serving():
        pass
    assert f"chmod 600 {site.log_file}" in site.log


@ROOT_ONLY
def test_what_root_makes_belongs_to_who_owns_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "made" / "log" / "emailproxy.log"
    os.chown(tmp_path, SERVICE, GROUP)
    with logfile.appended(path):
        log.info("by another command")
    assert messages(path.read_text()) == ["by another command"]
    path.unlink()
    with logging_to(path, octets=100):
        write(1, 9)
    for file in tmp_path.rglob("*"):
        assert (file.stat().st_uid, file.stat().st_gid) == (SERVICE, GROUP)


@pytest.mark.parametrize("trap", ["link", "fifo"])
def test_another_command_falls_for_no_trap_beside_the_log(tmp_path: Path, trap: str) -> None:
    path, victim = tmp_path / "emailproxy.log", tmp_path / "victim"
    victim.write_text("")
    if trap == "link":
        path.symlink_to(victim)
    else:
        os.mkfifo(path)
    with logfile.appended(path):
        log.info("nothing of this")
    assert victim.read_text() == ""
