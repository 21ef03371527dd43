"""Gives memory back to the system when a crowd of connections has left.

What a session held is free at its end, but glibc keeps most of that for those that come next: of 9,000 sessions some
200 MiB stay resident, until malloc_trim(3) lets go of every free page. Who administers the host would not know that
they are free.

It is called on the event loop: beside a thread that does it, the loop waits for the allocator's lock, and no shorter.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

log = logging.getLogger("emailproxy.net")

AFTER_S = 60.0  # a crowd that lost its network comes back at once; and so there is one pause a minute at most
CROWD = 500  # connections: of fewer, 12 MiB are not worth a pause, which is of 7 ms after 3,000 and of 25 after 9,000


def give_back() -> None:
    """All free memory that makes whole pages, where the C library is glibc; elsewhere nothing."""
    if sys.platform != "linux":
        return
    try:
        import ctypes  # takes 2 ms and 400 KiB: most servers never see a crowd

        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
    except (ImportError, OSError, AttributeError, MemoryError):  # musl has no such function
        return
    log.debug("a crowd has left: its memory was given back")


class Trimming:
    """Knows when a crowd has left: at least `CROWD` of them, and half of those there were."""

    def __init__(self, standing: Callable[[], int], trim: Callable[[], None] = give_back) -> None:
        """`standing` says how many connections there are."""
        self._standing = standing
        self._trim = trim
        self._peak = 0
        """The most there were since the last time."""
        self._is_due = False

    def one_left(self) -> None:
        """`standing` has just become one less."""
        self._peak = max(self._peak, self._standing() + 1)
        if not self._is_due and self._crowd_has_left():
            self._is_due = True
            asyncio.get_running_loop().call_later(AFTER_S, self._look_again)

    def _crowd_has_left(self) -> bool:
        left = self._peak - self._standing()
        return left >= CROWD and left >= self._peak / 2

    def _look_again(self) -> None:
        self._is_due = False
        if self._crowd_has_left():
            self._peak = self._standing()
            self._trim()
