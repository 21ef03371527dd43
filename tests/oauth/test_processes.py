"""Several processes on one state folder, and a provider that revokes everything when a refresh token comes twice."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from tests.oauth.world import World

PROCESSES, LOGINS = 4, 50


async def start(world: World, started_s: float) -> Process:
    arguments = (world.folder, world.provider.token_url, world.port, LOGINS, started_s)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.oauth.child", *map(str, arguments)),
        cwd=Path(__file__).parents[2],
        stdin=PIPE,
        stdout=PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    return child


async def test_rotation_without_grace_survives_many_processes(tmp_path: Path) -> None:
    """200 expiries: 200 refreshes, and no family revoked."""
    async with World.at(tmp_path / "state", expires_in=1, grace_s=0) as world:
        world.account()
        process = await world.process()
        await world.signed_in(process)
        started_s = time.time()
        children = [await start(world, started_s) for _ in range(PROCESSES)]
        outputs = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
        assert [int(out) for out, _ in outputs] == [LOGINS] * PROCESSES
        grants = [request.grant for request in world.provider.requests]
        assert grants.count("refresh_token") == PROCESSES * LOGINS
        assert {request.status for request in world.provider.requests} == {200}
        assert world.provider.revoked_families == 0
