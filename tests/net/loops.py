"""Runs a test coroutine on the event loop that serves, and on asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from emailproxy.service import new_event_loop

TIMEOUT_S = 60
LOOPS = {"fast": new_event_loop, "asyncio": asyncio.new_event_loop}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes two plain tests of a coroutine function, one a loop."""

    @pytest.mark.parametrize("loop_name", LOOPS)
    @wraps(test)
    def both(*args: Any, loop_name: str, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(TIMEOUT_S):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(bounded())

    del both.__wrapped__  # type: ignore[attr-defined] - pytest must see `loop_name`
    both.__signature__ = _with_loop_name(test)  # type: ignore[attr-defined]
    return both


def _with_loop_name(test: Callable[..., Any]) -> Any:
    import inspect

    signature = inspect.signature(test)
    extra = inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)
    return signature.replace(parameters=[*signature.parameters.values(), extra])
