"""Turns at key derivation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from emailproxy.errors import TooManyLogins
from emailproxy.oauth.throttle import Rank
from emailproxy.oauth.turns import MAX_OF_LOGIN, MAX_OF_SITE, MAX_OF_SUSPECT, MAX_WAITING, Turns
from tests.oauth.world import settled


class Queue:
    """Turns with one place, which is taken, and who had them since, in order."""

    def __init__(self) -> None:
        self.turns = Turns(1)
        self.served: list[str] = []
        self.go = asyncio.Event()
        self.ranks: dict[str, Rank] = {}

    async def begin(self) -> asyncio.Task[None]:
        holder = self.join("holder")
        await settled()
        return holder

    def join(
        self, name: str, rank: Rank = Rank.CLEAN, *, site: str | None = None, account: str = ""
    ) -> asyncio.Task[None]:
        self.ranks[name] = rank
        return asyncio.create_task(self._take(name, name if site is None else site, account or name))

    async def _take(self, name: str, site: str, account: str) -> None:
        async with self.turns.turn(account, site, lambda: self.ranks[name]):
            self.served.append(name)
            await self.go.wait()


@pytest.fixture
async def queue() -> Queue:
    queue = Queue()
    await queue.begin()
    return queue


async def ended(tasks: list[asyncio.Task[None]]) -> list[str]:
    """How the tasks ended: served, or refused."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, TooManyLogins), result
    return ["served" if result is None else "refused" for result in results]


async def test_no_more_are_served_at_once_than_there_are_places() -> None:
    turns, now, most = Turns(2), 0, 0

    async def derive(number: int) -> None:
        nonlocal now, most
        async with turns.turn("ada", f"10.0.0.{number}", lambda: Rank.CLEAN):
            now += 1
            most = max(most, now)
            await settled()
            now -= 1

    await asyncio.gather(*(derive(number) for number in range(50)))
    assert (now, most, len(turns)) == (0, 2, 0)


async def test_the_best_rank_goes_first_and_in_it_who_came_last(queue: Queue) -> None:
    for name, rank in (
        ("idle", Rank.IDLE),
        ("suspect 1", Rank.SUSPECT),
        ("clean 1", Rank.CLEAN),
        ("attacked", Rank.UNDER_ATTACK),
        ("suspect 2", Rank.SUSPECT),
        ("clean 2", Rank.CLEAN),
    ):
        queue.join(name, rank)
    await settled()
    queue.go.set()
    await settled()
    assert queue.served == ["holder", "clean 2", "clean 1", "attacked", "suspect 2", "suspect 1", "idle"]


async def test_who_was_wrong_meanwhile_goes_behind_who_was_not(queue: Queue) -> None:
    for number in range(50):
        queue.join(f"guesser {number}", site=f"10.0.0.{number}")
    queue.join("owner")
    for number in range(5):
        queue.join(f"late guesser {number}", site=f"10.0.1.{number}")
    await settled()
    queue.ranks.update({name: Rank.SUSPECT for name in queue.ranks if "guesser" in name})
    queue.go.set()
    await settled()
    assert queue.served[1] == "owner"


@pytest.mark.parametrize(
    ("rank", "account", "most"),
    [
        (Rank.CLEAN, "", MAX_OF_SITE),
        (Rank.CLEAN, "ada", MAX_OF_LOGIN),
        (Rank.SUSPECT, "", MAX_OF_SUSPECT),
    ],
)
async def test_an_address_has_only_so_many_waiting(queue: Queue, rank: Rank, account: str, most: int) -> None:
    tasks = [queue.join(f"{number}", rank, site="10.0.0.1", account=account) for number in range(most + 3)]
    await settled()
    assert len(queue.turns) == most
    queue.join("other", rank, site="10.0.0.2", account=account)
    await settled()
    assert len(queue.turns) == most + 1
    queue.go.set()
    assert (await ended(tasks)).count("refused") == 3


async def test_the_queue_is_bounded_and_newcomers_displace_who_waits_longest(queue: Queue) -> None:
    tasks = [queue.join(f"{number}", Rank.SUSPECT) for number in range(MAX_WAITING)]
    tasks += [queue.join("clean", Rank.CLEAN), queue.join("suspect", Rank.SUSPECT), queue.join("idle", Rank.IDLE)]
    await settled()
    assert len(queue.turns) == MAX_WAITING
    queue.go.set()
    how = await ended(tasks)
    assert how[:2] == ["refused", "refused"]
    assert how[2:-1] == ["served"] * MAX_WAITING
    assert how[-1] == "refused"
    assert queue.served[1] == "clean"


async def test_who_leaves_makes_room_and_keeps_no_place(queue: Queue) -> None:
    waiting = [queue.join(f"{number}") for number in range(3)]
    await settled()
    waiting[2].cancel()
    await settled()
    assert len(queue.turns) == 2
    queue.go.set()
    assert await ended(waiting[:2]) == ["served", "served"]
    assert queue.served == ["holder", "1", "0"]


async def test_a_place_that_is_given_to_who_leaves_goes_on_to_the_next() -> None:
    turns, left = Turns(1), asyncio.Event()

    async def wait() -> None:
        async with turns.turn("ada", "", lambda: Rank.CLEAN):
            left.set()

    async with turns.turn("ada", "", lambda: Rank.CLEAN):
        first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
        await settled()
    second.cancel()  # the place is its own already, and it does not know yet
    with suppress(asyncio.CancelledError):
        await second
    await first
    assert left.is_set()
    async with turns.turn("ada", "", lambda: Rank.CLEAN):
        assert len(turns) == 0


async def test_suspects_leave_a_place_to_others() -> None:
    """Of two places they have one, however many they are: nobody with a clean record waits for theirs to end."""
    turns, over, begun = Turns(2), asyncio.Event(), 0

    async def guess(site: str) -> None:
        nonlocal begun
        async with turns.turn("ann", site, lambda: Rank.SUSPECT):
            begun += 1
            await over.wait()

    guesses = [asyncio.create_task(guess(f"192.0.2.{number}")) for number in range(5)]
    while len(turns) < 4:
        await asyncio.sleep(0)
    async with asyncio.timeout(10), turns.turn("ann", "198.51.100.1", lambda: min(Rank)):
        assert begun == 1
    assert begun == 1
    over.set()
    await asyncio.gather(*guesses)
    assert begun == 5
