"""The last of the memory is left alone, where a process may not have more."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMITED = """
import resource
from pathlib import Path
from emailproxy.net import memory
room = memory.Room()
assert room.is_for_one_more(7)
held = [bytes(memory.PIECE) for _ in range(32 * memory.MIB // memory.PIECE)]
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + memory.FOR_TLS * 3 // 2
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
memory.require(memory.FOR_TLS)
assert [room.is_for_one_more(standing) for standing in (7, 8, 6, 7)] == [False, False, True, False]
try:
    memory.require(memory.FOR_CONNECTIONS)
except MemoryError as error:
    assert str(error) == "less than 32 MiB are left"
else:
    raise AssertionError
del held[::2]  # the kernel knows nothing of it
memory.require(memory.FOR_CONNECTIONS * 3 // 4)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert room.is_for_one_more(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_limited_process_knows_what_is_left() -> None:
    ended = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
