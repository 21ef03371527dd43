"""A proxy's start, from its command to the first greeting that a client gets; nobody has signed in yet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.candidate import EMAILPROXY, PYPI, Candidate
from tests.bench.candidates.emailproxy import configuration
from tests.bench.processes import Tree
from tests.bench.site import Bench
from tests.e2e.harness import otherproxy
from tests.e2e.harness.proxy import COMMAND, environment
from tests.e2e.harness.world import World, write_config

KIB_A_MIB = 1024
PAUSE_S = 0.001
START_S, STOP_S = 30.0, 10.0


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, its environment, and the IMAP port that it opens."""

    command: tuple[str | Path, ...]
    env: Mapping[str, str]
    home: Path
    port: int


@dataclass(frozen=True, slots=True)
class Started:
    """A process that serves."""

    tree: Tree
    took_s: float


@contextlib.asynccontextmanager
async def started(launch: Launch) -> AsyncIterator[Started]:
    """Starts it, and ends it."""
    with tempfile.TemporaryFile() as output:
        start_s = time.perf_counter()
        process = subprocess.Popen(
            launch.command, env=dict(launch.env), cwd=launch.home, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            await asyncio.to_thread(_greeted, launch.port, process, start_s + START_S)
            yield Started(Tree(process.pid), time.perf_counter() - start_s)
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _greeted(port: int, process: subprocess.Popen[bytes], until_s: float) -> None:
    while process.poll() is None and time.perf_counter() < until_s:
        try:
            with socket.create_connection(("127.0.0.1", port), START_S) as connection:
                if connection.recv(4096):
                    return
        except ConnectionError:
            pass
        time.sleep(PAUSE_S)
    raise RuntimeError(f"port {port} greets nobody; the process's exit code: {process.poll()}")


def _of_emailproxy(world: World) -> Launch:
    command = (*COMMAND, "serve", "--config", configuration(world))
    return Launch(command, environment(world.folder), world.folder, world.local.imap)


def _of_pypi(world: World) -> Launch:
    sections = otherproxy.sections(world)
    del sections[f"SMTP-{world.local.smtp_starttls}"]
    config = write_config(world.folder / "emailproxy.config", sections)
    return Launch(otherproxy.command(config), otherproxy.environment(world), world.folder, world.local.imap)


LAUNCHES: dict[str, Callable[[World], Launch]] = {EMAILPROXY: _of_emailproxy, PYPI: _of_pypi}


@contextlib.asynccontextmanager
async def at_rest(bench: Bench, candidate: Candidate) -> AsyncIterator[Started]:
    """One more of this candidate, which no client has logged in to yet."""
    world = bench.world_for("start", bench.servers)
    async with started(LAUNCHES[candidate.name](world)) as running:
        yield running


def resident_mib(tree: Tree) -> float:
    """What the processes have in memory: one by itself all that is resident, several among them their proportions.

    One's proportion would be smaller than what it has where it runs alone: others of its kind run beside it here, and
    share its libraries.
    """
    return (tree.rss_kib() if len(tree.pids()) == 1 else tree.pss_kib()) / KIB_A_MIB
