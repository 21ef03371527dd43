"""The event loop that a server runs on, and what goes with it."""

from __future__ import annotations

import asyncio
import gc
import sys


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's on Unix, winloop's on Windows, asyncio's own where neither installs."""
    try:
        if sys.platform == "win32":
            import winloop as fast
        else:
            import uvloop as fast
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = fast.new_event_loop()
    return loop


def settled() -> None:
    """The server is up: what there is by now stays, and the garbage collector need not look at it again."""
    gc.freeze()
