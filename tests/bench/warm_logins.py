"""Warm logins through the broker: the first one derives a key and reads a file, the others must not."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

from emailproxy.store.slots import DEFAULT_COST
from emailproxy.wire.events import Login
from tests.oauth.world import ADA, PASSWORD, World, visit_of


async def cpu_s(logins: int) -> float:
    """CPU seconds of this process for so many warm logins in a row."""
    logging.getLogger("emailproxy").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as folder:
        async with World.at(Path(folder) / "state") as world:
            world.account()
            process = await world.process(cost=DEFAULT_COST)
            await world.signed_in(process)
            await process.login()
            login, visit = Login(ADA, PASSWORD), visit_of()
            start_s = time.process_time()
            for _ in range(logins):
                await process.broker.token(login, visit)
                await process.broker.accepted(login, visit)
            return time.process_time() - start_s
