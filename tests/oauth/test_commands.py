"""Programs that the configuration names: real ones, good and bad."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from emailproxy.oauth.commands import MAX_ERROR_LINES, CommandFailed, Commands
from tests.net.loops import on_both_loops
from tests.oauth.world import until

WHAT = "the token_command of ada@example.org"


async def run(*arguments: str, timeout_s: float = 30, stdin: bytes = b"", hidden: tuple[str, ...] = ()) -> bytes:
    return await Commands(hidden).run(arguments, what=WHAT, timeout_s=timeout_s, stdin=stdin)


def python(program: str) -> tuple[str, ...]:
    return sys.executable, "-c", program


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@on_both_loops
async def test_what_it_prints_is_returned() -> None:
    assert await run("printf", r"a\n\000b") == b"a\n\0b"


@on_both_loops
async def test_no_shell_reads_the_arguments() -> None:
    assert await run("echo", "$HOME; `id` | *") == b"$HOME; `id` | *\n"


@on_both_loops
async def test_standard_input_is_fed_and_ends() -> None:
    assert await run("cat", stdin=b"x" * 50_000) == b"x" * 50_000
    assert await run("cat") == b""


@on_both_loops
async def test_a_program_may_leave_its_input_unread() -> None:
    assert await run("true", stdin=b"x" * 1_000_000) == b""


@on_both_loops
async def test_standard_error_goes_to_the_log_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert await run("sh", "-c", r"printf 'one\n\033[31mtwo\r\n\n\377 three' >&2; echo out") == b"out\n"
    said = [f"{WHAT} says: {line}" for line in ("one", "[31mtwo", "� three")]
    assert [record.getMessage() for record in caplog.records if record.name == "emailproxy.oauth"] == said


@pytest.mark.parametrize("line", ["y", "x" * 5000])
@on_both_loops
async def test_standard_error_without_end_is_capped(caplog: pytest.LogCaptureFixture, line: str) -> None:
    caplog.set_level("INFO")
    await run("sh", "-c", f"yes {line} | head -c 1000000 >&2")
    said = [record.getMessage() for record in caplog.records if record.name == "emailproxy.oauth"]
    assert 0 < len(said) <= MAX_ERROR_LINES
    assert max(map(len, said)) < 400


@on_both_loops
async def test_a_secret_that_it_prints_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(CommandFailed) as caught:
        await run("sh", "-c", "echo canary-token; exit 3")
    assert "canary" not in caplog.text + str(caught.value)


@on_both_loops
async def test_what_is_for_us_alone_no_child_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "CANARY_SECRET", "KEPT"):
        monkeypatch.setenv(name, "x")
    seen = (await run("env", hidden=("CANARY_SECRET",))).decode()
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert "KEPT" in names
    assert names & {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "CANARY_SECRET"} == set()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@on_both_loops
async def test_no_file_of_ours_is_open_in_a_child() -> None:
    ours, other = os.pipe()
    os.set_inheritable(ours, True)
    try:
        assert (await run("ls", "/proc/self/fd")).split() == [b"0", b"1", b"2", b"3"]  # the last is of `ls` itself
    finally:
        os.close(ours)
        os.close(other)


@on_both_loops
async def test_what_is_cancelled_at_once_leaves_nothing_open() -> None:
    for turns in range(5):
        running = asyncio.create_task(run("cat", stdin=b"x" * 1_000_000))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("false",), "failed (exit code 1); what it said is in the log"),
        (("sh", "-c", "kill -9 $$"), "was ended by SIGKILL"),
        (("sh", "-c", "kill -40 $$"), "was ended by signal 40"),
        (("/nowhere/program",), "cannot be run: /nowhere/program: No such file or directory"),
        (("/etc/passwd",), "cannot be run: /etc/passwd: Permission denied"),
        (("yes",), "printed more than 64 KiB, and was killed"),
        (("echo", "a\0b"), "holds a NUL"),
        ((), "is empty"),
    ],
    ids=repr,
)
@on_both_loops
async def test_a_program_that_fails_is_named(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        await run(*arguments)
    assert str(caught.value).startswith(WHAT)
    assert said in str(caught.value)


STUBBORN = """
import os, signal, sys
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
os.fork()
print(os.getpid(), file=open(sys.argv[1], "a"), flush=True)
signal.pause()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("cancelled", [False, True])
@on_both_loops
async def test_what_does_not_end_is_killed_with_its_children(tmp_path: Path, cancelled: bool) -> None:
    file = tmp_path / "pids"

    def pids() -> list[int]:
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    running = asyncio.create_task(run(*python(STUBBORN), str(file), timeout_s=60 if cancelled else 1))
    if cancelled:
        await until(lambda: len(pids()) == 2)
        running.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else CommandFailed):
        await running
    await until(lambda: not any(map(is_alive, pids())))
    assert not cancelled or len(pids()) == 2


@on_both_loops
async def test_it_has_no_terminal_and_a_session_of_its_own() -> None:
    own = int(await run(*python("import os; print(os.getsid(0))")))
    assert own != os.getsid(0)


@on_both_loops
async def test_a_daemon_that_it_leaves_behind_does_not_hold_us_up(tmp_path: Path) -> None:
    """Agents that a password manager starts keep its standard error open."""
    file = tmp_path / "pid"
    program = f"sleep 100 >/dev/null </dev/null & echo $! >{file}; echo token"
    assert await run("sh", "-c", program, timeout_s=20) == b"token\n"
    os.kill(int(file.read_text()), 9)


@on_both_loops
async def test_many_run_side_by_side() -> None:
    printed = await asyncio.gather(*(run("echo", str(number)) for number in range(20)))
    assert [int(each) for each in printed] == list(range(20))
