"""Tokens are renewed by running servers, with nobody logging in."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.e2e.harness.realm import realm

pytestmark = pytest.mark.system("dovecot")

LIFE_S = 20
"""Of an access token. Servers renew it in the second half of its life, and no sooner than 10 s after the last time."""
PATIENCE_S = 90.0


async def test_of_two_servers_on_one_state_folder_one_renews_in_each_period(tmp_path: Path) -> None:
    async with realm(tmp_path, expires_in=LIFE_S) as ours:
        provider, twin = ours.provider, ours.twin()
        async with ours.proxy(ours.person), twin.proxy(ours.person), asyncio.timeout(PATIENCE_S):
            await ours.sign_in()
            await twin.log_in()
            renewed_s = []
            for count in (2, 3):
                await provider.wait_for_requests(count)
                renewed_s.append(time.monotonic())
            await asyncio.gather(ours.log_in(), twin.log_in())
        assert renewed_s[1] - renewed_s[0] > LIFE_S / 4, "both servers renewed the same token"
        grants = [(request.grant, request.status) for request in provider.requests]
        assert grants == [("authorization_code", 200), ("refresh_token", 200), ("refresh_token", 200)]
        assert provider.revoked_families == 0
