"""What all tests share: components of the operating system are asked for, and missed out loud."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.e2e.harness.installed import NODE_MODULES, PROGRAMS, PROGRAMS_OF_PYPI

# The same examples in each run, however busy the machine is: what looks for new ones is scripts/fuzz.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_configure() -> None:
    """Debian keeps servers where only root's PATH looks; and who starts us in the background may ignore Ctrl-C.

    What ignores it hands that on to its children, and tests press Ctrl-C.
    """
    ours = (PROGRAMS, PROGRAMS_OF_PYPI)
    os.environ["PATH"] = ":".join((*map(str, ours), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out the tests whose `system` marker names programs that are not here, and says so; CI leaves out none."""
    if os.environ.get("CI") != "true":
        for item in items:
            if absent := _absent(item):
                item.add_marker(pytest.mark.skip(reason=f"needs {absent}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if absent := _absent(item):
        pytest.fail(f"needs {absent}, and no test may be left out here", pytrace=False)


def _absent(item: pytest.Item) -> str:
    """The programs and npm packages that the test needs and this machine does not have."""
    needed = {name for marker in item.iter_markers("system") for name in marker.args}
    return ", ".join(
        sorted(name for name in needed if shutil.which(name) is None and not (NODE_MODULES / name).is_dir())
    )
