"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import ssl
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BUSY_PART = 0.25
"""Of the cores: a load average above it disturbs what is measured."""
PROGRAM_S = 10.0
VERSIONS = {"stunnel": ("-version", r"stunnel ([\d.]+)"), "dovecot": ("--version", r"([\d.]+)")}


def facts() -> dict[str, str | int | float]:
    """The machine and the versions; of what is not here, nothing."""
    found: dict[str, str | int | float] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "load": round(os.getloadavg()[0], 2),
    }
    try:
        found["uvloop"] = version("uvloop")
    except PackageNotFoundError:
        found["uvloop"] = "none"
    for program, (argument, pattern) in VERSIONS.items():
        if shutil.which(program) is not None:
            found[program] = _version(program, argument, pattern)
    return found


def warning() -> str | None:
    """Why the figures will be disturbed, if they will."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= BUSY_PART * cores:
        return None
    return f"This machine is busy (load average {load:.2f} on {cores} cores): the figures will be disturbed."


def _cpu() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return named[1] if named else platform.machine()


def _version(program: str, argument: str, pattern: str) -> str:
    done = subprocess.run(
        [program, argument], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PROGRAM_S, text=True, check=False
    )
    found = re.search(pattern, done.stdout)
    return found[1] if found else "unknown"
