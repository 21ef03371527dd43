"""`emailproxy serve --print-unit`: a systemd unit that lets the service do its work and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from emailproxy.cli import unit
from tests.cli.site import PASSWORD, ROBOT, Ended, Site, ended, under_a_manager
from tests.e2e.harness.proxy import COMMAND

EXPOSURE = 20  # tenths: at most 2.0 of 10


async def printed(folder: Path, *arguments: str | Path) -> str:
    shown = await ended(*COMMAND, "serve", "--print-unit", *arguments, cwd=folder)
    assert shown.code == 0, shown.err
    return shown.out


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", text)


async def test_it_runs_this_emailproxy_with_a_copy_of_the_configuration(tmp_path: Path) -> None:
    text = await printed(tmp_path, "--config", "mine.ini")
    [command] = values(text, "ExecStart")
    assert Path(shlex.split(command)[0]).is_absolute()
    assert os.access(shlex.split(command)[0], os.X_OK)
    assert command.endswith(" serve --config ${CREDENTIALS_DIRECTORY}/emailproxy.ini")
    assert values(text, "LoadCredential") == [f"emailproxy.ini:{tmp_path}/mine.ini"]
    assert values(await printed(tmp_path), "LoadCredential") == ["emailproxy.ini:/etc/emailproxy/emailproxy.ini"]
    assert "@" not in "".join(values(text, "(?:ExecStart|LoadCredential)"))
    assert list(tmp_path.iterdir()) == []  # it needs no configuration, and starts nothing


async def test_a_stop_may_take_as_long_as_the_configuration_says(site: Site) -> None:
    assert values(await printed(site.folder, "--config", "none.ini"), "TimeoutStopSec") == ["40"]
    site.sections["emailproxy"] = {"state_dir": site.state, "drain_timeout": "2 min"}
    assert values(await printed(site.folder, "--config", site.configure()), "TimeoutStopSec") == ["130"]


@pytest.mark.parametrize(("text", "code", "what"), [(None, 0, "No such file"), ("drain_timeout = abc", 78, "abc")])
async def test_a_configuration_that_says_nothing_is_told(
    tmp_path: Path, text: str | None, code: int, what: str
) -> None:
    """One that is yet to be written is no failure; one that is wrong is, but the unit is there."""
    if text is not None:
        (tmp_path / "it.ini").write_text(f"[emailproxy]\n{text}\n")
    shown = await ended(*COMMAND, "serve", "--print-unit", "--config", "it.ini", cwd=tmp_path)
    assert (shown.code, values(shown.out, "TimeoutStopSec")) == (code, ["40"])
    assert any(line.startswith(f"emailproxy: {tmp_path}/it.ini:") and what in line for line in shown.complaints)
    assert "the default, drain_timeout = 30 s (TimeoutStopSec=40)" in shown.complaints[-1]


async def test_a_reload_hands_root_s_file_to_the_server(tmp_path: Path) -> None:
    """The server has a copy of the start's, which no signal renews."""
    text = await printed(tmp_path, "--config", "my 100%.ini")
    [reload] = values(text, "ExecReload")
    assert reload.startswith("+/")  # with root's rights
    words = shlex.split(reload.replace("%%", "%"))
    assert words[-3:] == ["reload", "--config", f"{tmp_path}/my 100%.ini"]


NAMES = [
    ("/opt/emailproxy/bin/emailproxy", ["/opt/emailproxy/bin/emailproxy"]),
    ("/opt/100% mine/bin/emailproxy", ['"/opt/100%% mine/bin/emailproxy"']),
    ("/opt/a$b/bin/emailproxy", ["/opt/a$$b/bin/emailproxy"]),
    ('/opt/"q"\\/bin/emailproxy', ['"/opt/\\"q\\"\\\\/bin/emailproxy"']),
]


@pytest.mark.parametrize(("name", "words"), NAMES)
def test_paths_are_written_as_systemd_reads_them(name: str, words: list[str]) -> None:
    assert [unit.quoted(name)] == words


@pytest.mark.parametrize(("program", "expected"), [("emailproxy", "bin/emailproxy"), ("__main__.py", None)])
def test_the_script_is_preferred_to_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, expected: str | None
) -> None:
    script = tmp_path / "bin" / program
    script.parent.mkdir()
    script.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    python = [str(tmp_path / "elsewhere" / "python"), "-m", "emailproxy"]
    assert unit.installed() == ([str(tmp_path / expected)] if expected else python)


async def test_an_installation_that_the_service_could_not_see_is_told(tmp_path: Path) -> None:
    """pytest's folders are in one of the places that the unit hides."""
    script = tmp_path / "emailproxy"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    arguments = [str(script), "serve", "--print-unit"]
    program = f"import sys; sys.argv = {arguments!r}; from emailproxy.cli.main import main; main()"
    script.chmod(0o755)
    shown = await ended(sys.executable, "-c", program, cwd=tmp_path)
    assert shown.code == 0
    assert values(shown.out, "ExecStart")[0].startswith(f"{script} serve")
    if any(script.is_relative_to(folder) for folder in unit.HIDDEN):
        assert "would not see" in shown.complaints[0]


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    path = tmp_path / "emailproxy.service"
    path.write_text(await printed(tmp_path))
    return path


@pytest.mark.system("systemd-analyze")
async def test_systemd_finds_little_exposed(file: Path) -> None:
    rated = await ended(
        "systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", file, cwd=file.parent
    )
    assert rated.code == 0, rated.out
    assert "Overall exposure level" in rated.out
    # It can fail: without its sandbox the same unit is over the threshold.
    bare = file.with_name("bare.service")
    bare.write_text(
        re.sub(r"(?m)^(Protect|Restrict|SystemCall|Private|CapabilityB|DynamicU).*\n", "", file.read_text())
    )
    rated = await ended(
        "systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", bare, cwd=file.parent
    )
    assert rated.code != 0


@pytest.mark.system("systemd-analyze")
async def test_systemd_has_no_complaints(file: Path) -> None:
    assert await verified(file) == Ended(0, "", "")
    file.write_text(file.read_text().replace("ProtectClock=yes", "ProtectClocks=yes"))
    assert "ProtectClocks" in (await verified(file)).err


async def verified(file: Path) -> Ended:
    return await ended("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file, cwd=file.parent)


@pytest.mark.parametrize(
    "setting",
    [
        *("DynamicUser=yes", "ProtectSystem=strict", "ProtectHome=yes", "NoNewPrivileges=yes", "PrivateDevices=yes"),
        *("CapabilityBoundingSet=", "AmbientCapabilities=", "MemoryDenyWriteExecute=yes", "Type=notify"),
        *("SystemCallFilter=@system-service", "StateDirectory=emailproxy", "LogsDirectory=emailproxy", "UMask=0077"),
        *("RuntimeDirectory=emailproxy", "RuntimeDirectoryMode=0700"),
    ],
)
async def test_the_promised_settings_are_there(file: Path, setting: str) -> None:
    assert setting in file.read_text().splitlines()


# ---- the server under the unit's filters

# Installs the unit's system call filter, and W^X, as systemd does (systemd.exec(5)), then becomes the command.
SANDBOX = """
import ctypes, os, sys
names, forbidden, command = sys.argv[1].split(), sys.argv[2].split(), sys.argv[3:]
ALLOW, EPERM, MASKED_EQUAL = 0x7FFF0000, 0x00050001, 7
PROT_WRITE, PROT_EXEC = 2, 4

class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
resolve = lambda name: library.seccomp_syscall_resolve_name(name.encode())

def load(default, action, rules):
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    for name, comparisons in rules:
        number = resolve(name)
        if number == -1:  # another kernel's
            continue
        array = (Compare * len(comparisons))(*comparisons)
        failed = library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array)
        assert not failed or number < -1, (name, failed)
    assert library.seccomp_load(context) == 0

# As root, too, systemd forbids new privileges first; without root it must.
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
write_execute = Compare(2, MASKED_EQUAL, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC)
execute = Compare(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)
load(ALLOW, EPERM, [("mmap", [write_execute]), ("mprotect", [execute]), ("pkey_mprotect", [execute])])
load(EPERM, ALLOW, [(name, []) for name in names if name not in forbidden])
os.execv(command[0], command)
"""


async def calls(group: str) -> list[str]:
    """The system calls of one of systemd's groups, groups in it resolved."""
    listed = await ended("systemd-analyze", "syscall-filter", group, "--no-pager", cwd=Path("/"))
    assert listed.code == 0, listed.err
    words = [line.split("#")[0].strip() for line in listed.out.splitlines()]
    nested = [await calls(word) for word in words if word.startswith("@") and word != group]
    return [word for word in words if word and not word.startswith("@")] + list(itertools.chain(*nested))


def sandbox(allowed: list[str], forbidden: list[str]) -> tuple[str, ...]:
    return (sys.executable, "-c", SANDBOX, " ".join(allowed), " ".join(forbidden))


@pytest.mark.system("systemd-analyze")
async def test_the_server_works_under_the_system_call_filter(site: Site) -> None:
    text = await printed(site.folder)
    allowed, forbidden = values(text, "SystemCallFilter")
    assert forbidden.startswith("~")
    denied = {call for group in forbidden[1:].split() for call in await calls(group)}
    if os.geteuid() == 0:
        denied -= {"fchown"}  # with which root, and only root, gives files to the folder's owner
    inside = sandbox(await calls(allowed), sorted(denied))
    for probe in ("os.sched_setaffinity(0, os.sched_getaffinity(0))", "mmap.mmap(-1, 4096, prot=7)"):
        program = f"import mmap, os; {probe}"
        assert "PermissionError" in (await ended(*inside, sys.executable, "-c", program, cwd=site.folder)).err, probe

    async with under_a_manager(site, *inside, *COMMAND, "serve", "--config", site.config) as program:
        # The whole way up to the mail server, which is not there: key derivation, provider, state folder.
        reader, writer = await asyncio.open_connection("127.0.0.1", site.imap)
        writer.write(f'a LOGIN "{ROBOT}" "{PASSWORD}"\r\n'.encode())
        async with asyncio.timeout(20):
            while not (line := await reader.readline()).startswith(b"a "):
                assert line
        assert b"[UNAVAILABLE]" in line
        writer.close()
        assert await program.stop() == 0
    assert "Traceback" not in site.log
