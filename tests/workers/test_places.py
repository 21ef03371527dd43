"""How many sessions of an account stand at once, over all workers."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from emailproxy.errors import TooManySessions
from emailproxy.net.places import Places
from tests.workers.pair import worker_with

ADA = "ada@example.org"


async def test_a_limit_holds_over_all_workers_and_the_one_who_waits_comes_next() -> None:
    common = Places()
    async with worker_with(common) as (_, one), worker_with(common) as (_, other), asyncio.timeout(20):
        places = [await one.take(ADA, "SMTP", 2, 10), await other.take(ADA, "SMTP", 2, 10)]
        assert one.take_at_once(ADA, "SMTP", 2) is None  # whoever has a limit asks
        with pytest.raises(TooManySessions, match="has 2 SMTP sessions already and may have 2"):
            await one.take(ADA, "SMTP", 2, 0)
        waiting = asyncio.create_task(one.take(ADA, "SMTP", 2, 10))
        impatient = asyncio.create_task(other.take(ADA, "SMTP", 2, 10))
        await asyncio.sleep(0)
        waiting.cancel()  # its client has left
        places[0].leave()
        places[0].leave()
        places[0] = await impatient
        assert (one.standing(), other.standing()) == (Counter(), Counter({ADA: 2}))
        with pytest.raises(TooManySessions):
            await one.take(ADA, "SMTP", 2, 0)


async def test_places_of_a_worker_that_died_are_free() -> None:
    common = Places()
    async with worker_with(common) as (dead, one), worker_with(common) as (_, other), asyncio.timeout(20):
        await one.take(ADA, "IMAP", 1, 10)
        dead.give_up()
        (await other.take(ADA, "IMAP", 1, 10)).leave()
        await other.take(ADA, "IMAP", 1, 10)
        assert common.standing() == Counter({ADA: 1})


async def test_without_a_limit_nobody_is_asked() -> None:
    common = Places()
    async with worker_with(common) as (_, places):
        place, at_once = await places.take(ADA, "IMAP", None, 0), places.take_at_once(ADA, "IMAP", None)
        assert (places.standing()[ADA], common.standing()[ADA]) == (2, 0)
        place.leave()
        assert at_once is not None
        at_once.leave()
        assert places.standing()[ADA] == 0
