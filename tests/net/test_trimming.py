"""When a crowd of connections has left, their memory goes back to the system."""

from __future__ import annotations

import asyncio
import platform
import subprocess
import sys
from collections.abc import Sequence

import pytest

from emailproxy.net import trimming
from emailproxy.net.admission import Doorman, Ticket
from emailproxy.net.shared import SessionLimits
from emailproxy.net.trimming import Trimming

LIMITS = SessionLimits(max_connections=10_000, max_unauthenticated=10_000)
PROCESS = """
import asyncio, gc, re, sys
from pathlib import Path
from emailproxy.net import trimming
from emailproxy.net.admission import Doorman
from emailproxy.net.shared import SessionLimits

def resident_mib():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

async def main():
    trimming.AFTER_S = 0.0
    doorman = Doorman(SessionLimits(max_connections=1000, max_unauthenticated=1000))
    held = [(doorman.admit(), [bytearray(8000) for _ in range(8)]) for _ in range(1000)]
    last = bytearray(8000)  # on top of the heap, so that it cannot shrink
    for ticket, _ in held:
        ticket.leave()
    del held, ticket, _
    before = resident_mib()
    assert before > 60, before
    assert "ctypes" not in sys.modules
    async with asyncio.timeout(20):
        while resident_mib() > before - 50:
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_the_memory_of_a_crowd_is_given_back() -> None:
    ended = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def crowd_before(doorman: Doorman, count: int) -> list[Ticket]:
    return [doorman.admit() for _ in range(count)]


async def left(tickets: Sequence[Ticket]) -> None:
    """They leave, and what is due at once is done."""
    for ticket in tickets:
        ticket.leave()
    for _ in range(3):  # a timer of no time at all needs two turns of the loop
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("come", "leaving", "times"),
    [
        (499, [499], 0),  # few
        (500, [500], 1),
        (1000, [499], 0),  # not half of them
        (1000, [500], 1),
        (1000, [400, 99, 1], 1),  # whether at once or not
        (4000, [1999], 0),
        (4000, [2000, 999, 1, 500, 499, 1], 4),  # half of those that stood the time before, and the last 500
    ],
)
async def test_it_is_a_crowd_that_leaves(
    come: int, leaving: list[int], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "AFTER_S", 0.0)
    doorman, given_back = Doorman(LIMITS), 0

    def count() -> None:
        nonlocal given_back
        given_back += 1

    doorman.trimming = Trimming(lambda: doorman.inside, count)
    tickets = crowd_before(doorman, come)
    for number in leaving:
        await left(tickets[:number])
        del tickets[:number]
    assert given_back == times


async def test_those_that_come_and_go_or_come_back_are_no_crowd_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "AFTER_S", 0.0)
    doorman, given_back = Doorman(LIMITS), []
    doorman.trimming = Trimming(lambda: doorman.inside, lambda: given_back.append(doorman.inside))
    for _ in range(50):
        await left(crowd_before(doorman, 100))
    standing = crowd_before(doorman, 1500)
    for _ in range(20):
        await left(crowd_before(doorman, 100))
    for ticket in standing:
        ticket.leave()
    back = crowd_before(doorman, 1500)
    await left(back[:100])
    assert given_back == []
    await left(back)
    assert given_back == [0]


async def test_there_is_one_pause_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    doorman, given_back = Doorman(LIMITS), []
    doorman.trimming = Trimming(lambda: doorman.inside, lambda: given_back.append(doorman.inside))
    tickets = crowd_before(doorman, 4000)
    await left(tickets[:2000])
    monkeypatch.setattr(trimming, "AFTER_S", 0.0)  # who asked for another one would have it at once
    await left(tickets[2000:])
    assert given_back == []
