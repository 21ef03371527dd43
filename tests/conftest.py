"""What all tests share: components of the operating system are asked for, and missed out loud."""

from __future__ import annotations

import os
import shutil

import pytest


def pytest_configure() -> None:
    """Debian keeps servers where only root's PATH looks."""
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests whose `system` marker names programs that are not here; under CI that is an error."""
    missing: set[str] = set()
    for item in items:
        named = {program for marker in item.iter_markers("system") for program in marker.args}
        absent = sorted(program for program in named if not _installed(program))
        if absent:
            missing.update(absent)
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(absent)}"))
    if missing and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"no test may be left out here, and these are missing: {', '.join(sorted(missing))}")


def _installed(program: str) -> bool:
    return shutil.which(program) is not None
