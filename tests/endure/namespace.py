"""File systems of a process's own (mount_namespaces(7)): nobody else sees what is done to them, and they end with it.

Root may have them; so may everybody else where the kernel allows user namespaces.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.endure.frame import Stage

RUN_S = 20.0


def with_mounts(script: str) -> Sequence[str]:
    """The beginning of a command line: what is behind it runs with the mounts that these lines of sh(1) make.

    The process that is started becomes that command: its number stays the same.
    """
    return (*_UNSHARE, "--mount", "--propagation", "private", "sh", "-ec", f'{script}\nexec "$@"', "sh")


def check(stage: Stage, script: str) -> None:
    """Leaves the scenario out, where these mounts cannot be made."""
    done = _run((*with_mounts(script), "true"))
    if done.returncode:
        stage.cannot(f"no file systems of a process's own can be made here: {done.stderr.strip()}")


def within(pid: int, *command: str | Path) -> None:
    """Runs a command among the file systems of a process. Blocks.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    _run(("nsenter", "--target", str(pid), *_ENTER, "--mount", "--", *command)).check_returncode()


def seen_by(pid: int, path: Path) -> Path:
    """A path by which we find what a process finds at this one."""
    return Path(f"/proc/{pid}/root") / path.relative_to("/")


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)


_AS_ROOT = os.geteuid() == 0
_UNSHARE = ("unshare",) if _AS_ROOT else ("unshare", "--map-root-user")
_ENTER = () if _AS_ROOT else ("--user", "--preserve-credentials")
