"""The control socket: its modes, who is let in, and whose it is where there are several servers."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from emailproxy.admin import control, peers
from emailproxy.admin.control import ControlSocket
from emailproxy.admin.paths import MAX_PATH
from emailproxy.errors import ServiceError
from tests.cli.site import ROOT_ONLY, SERVICE
from tests.net.loops import on_both_loops


class Greets(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(b"hello")
        stream.close()


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[ControlSocket]:
    control_socket = ControlSocket(path, Greets)
    await control_socket.open()
    try:
        yield control_socket
    finally:
        await control_socket.close()


async def heard(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(5):
        said = await reader.read()
    writer.close()
    return said


@on_both_loops
async def test_it_answers_is_nobody_elses_and_goes_with_its_server(short: Path) -> None:
    path = short / "run" / "emailproxy" / "a.sock"
    async with listening(path):
        assert await heard(path) == b"hello"
        modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent, path.parent.parent)]
        assert modes == [0o600, 0o700, 0o700]
        assert os.listdir(path.parent) == ["a.sock"]
    assert not path.exists()


def test_it_has_its_name_only_when_it_listens_and_others_are_kept_out(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask: looked at in the moment before it gets its name."""
    seen: list[int] = []

    def replace(temporary: Path, path: Path) -> Path:
        seen.append(stat.S_IMODE(temporary.stat().st_mode))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(temporary))
        os.replace(temporary, path)
        return path

    monkeypatch.setattr(Path, "replace", replace)
    before = os.umask(0)
    try:
        control.bound(short / "run" / "a.sock").close()
    finally:
        os.umask(before)
    assert seen == [0o600]


@on_both_loops
async def test_a_dead_servers_socket_is_replaced(short: Path) -> None:
    path = short / "run" / "a.sock"
    control.bound(path).close()  # nobody removes it
    assert path.exists()
    async with listening(path):
        assert await heard(path) == b"hello"


async def test_a_live_ones_is_left_alone(short: Path) -> None:
    path = short / "run" / "a.sock"
    async with listening(path):
        with pytest.raises(ServiceError, match="another server with this state folder has"):
            await ControlSocket(path, asyncio.Protocol).open()
        assert await heard(path) == b"hello"
        assert os.listdir(path.parent) == ["a.sock"]


async def test_one_that_is_too_busy_to_answer_is_alive(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "BACKLOG", 0)
    path = short / "run" / "a.sock"
    with control.bound(path), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        assert control.is_alive(path)


async def test_a_successors_socket_is_not_removed(short: Path) -> None:
    path = short / "run" / "a.sock"
    async with listening(path):
        path.unlink()
        successor = control.bound(path)
    assert path.exists()
    successor.close()


def long_name(short: Path) -> Path:
    return short / ("x" * (MAX_PATH - len(str(short)))) / "a.sock"


def open_folder(short: Path) -> Path:
    (short / "run").mkdir(0o755)
    return short / "run" / "a.sock"


def no_folder(short: Path) -> Path:
    (short / "file").touch()
    return short / "file" / "run" / "a.sock"


def is_a_folder(short: Path) -> Path:
    path = short / "run" / "a.sock"
    path.mkdir(parents=True, mode=0o700)
    path.parent.chmod(0o700)
    return path


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        (long_name, "more than 107 octets; set runtime_dir"),
        (open_folder, "open to other users .* set runtime_dir"),
        (no_folder, "set runtime_dir"),
        (is_a_folder, "cannot be made .* set runtime_dir"),
    ],
)
def test_what_keeps_it_from_being_there_is_said_with_the_mend(short: Path, obstacle: object, words: str) -> None:
    path = obstacle(short)  # type: ignore[operator]
    with pytest.raises(ServiceError, match=f"^there is no control socket: .*{words}"):
        control.bound(path)
    if path.parent.is_dir():
        assert [name for name in os.listdir(path.parent) if name.endswith(".tmp")] == []


CONNECTING = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as client:
    try:
        client.connect(sys.argv[2])
        print(client.recv(100))
    except PermissionError:
        print("denied")
"""


async def as_user(uid: int, path: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", CONNECTING, str(uid), str(path)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


@ROOT_ONLY
async def test_other_users_are_refused_even_where_the_modes_let_them_in(short: Path) -> None:
    path = short / "run" / "a.sock"
    async with listening(path):
        assert await as_user(SERVICE, path) == "denied"
        path.parent.chmod(0o755)
        assert await as_user(SERVICE, path) == "denied"
        path.chmod(0o666)
        assert await as_user(SERVICE, path) == "b''"
        assert await as_user(0, path) == "b'hello'"


async def test_the_other_end_is_known(short: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peers.user_of(ours) == os.geteuid()
    assert [uid for uid in (0, os.geteuid(), 77_777, 88_888) if peers.is_trusted(uid, 88_888)] == [
        0,
        os.geteuid(),
        88_888,
    ]
