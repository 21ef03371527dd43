"""Connections that are opened ahead, to a real mail server."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.e2e.harness.proxy import emailproxy
from tests.e2e.harness.world import World, imap_login, pop_login, smtp_login

pytestmark = pytest.mark.system("dovecot")


async def test_every_protocol_logs_in_over_connections_that_were_opened_ahead(world: World) -> None:
    local = world.local
    logins = [
        (imap_login, local.imap),
        (imap_login, local.imap_starttls),
        (pop_login, local.pop),
        (pop_login, local.pop_starttls),
        (smtp_login, local.smtp),
        (smtp_login, local.smtp_starttls),
    ]
    config = world.configure(emailproxy={**world.globals, "prewarm": 1})
    async with world.proxy(config) as proxy:
        await world.sign_in(proxy)
        await _all_stand(world)
        for _ in range(2):
            await asyncio.gather(*(asyncio.to_thread(log_in, port) for log_in, port in logins))
        assert "opened ahead" not in proxy.log
        assert await proxy.stop() == 0


async def _all_stand(world: World) -> None:
    """Waits until each section has one, as `emailproxy status` shows it."""
    config = world.folder / "emailproxy.ini"
    ready: set[int] = set()
    async with asyncio.timeout(20):
        while ready != {1}:
            status = await emailproxy("status", "--config", config, "--json", home=world.folder)
            ready = {line["prewarmed"] for line in json.loads(status.output)["listeners"]}
