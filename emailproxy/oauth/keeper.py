"""The keeper renews tokens ahead of their end, so that no login waits for what could have been done before.

It looks after the accounts that a login has unlocked, with one task and one heap for all of them. An account is due

- before its access token ends: by the margin, and a random part of it more, so that accounts do not ask in step;
- `keep_alive_s` after its refresh token was used last, whatever the access token: providers forget idle ones;
- after a failure, when the wallet's pause is over.

Accounts that the keeper leaves alone: those whose owner must sign in first, those that cannot be renewed without a
person or a password (there is no refresh token), and those that need neither and that nobody has logged in to for
`keep_alive_s`, as their next login gets a token at any time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from emailproxy.config.model import DAYS, SECONDS, Account
from emailproxy.errors import LoginRefused, StateError
from emailproxy.oauth.clientsecret import completed
from emailproxy.oauth.clock import Clock, Now
from emailproxy.oauth.flow import Approval, FlowOf
from emailproxy.oauth.holdings import Held, Holdings
from emailproxy.oauth.wallet import SHORTEST_PAUSE_S, Replaced, Wallet

KEEP_ALIVE_S = 20 * DAYS
LOOK_EVERY_S = 30 * SECONDS  # whether the machine slept, or its clock was set
JUMP_S = 2 * SECONDS  # what the two clocks part in that time at most while both run: NTP slews by 15 ms
EARLIER = 0.2  # of the margin: the random part by which a token is renewed earlier still
KEEP_ALIVE_EARLIER = 0.05  # of `keep_alive_s`
LATER = 0.1  # of a pause: those who were told to come back at the same moment do not
MIN_PERIOD_S = 10 * SECONDS  # between two renewals: logins look after tokens that do not live as long
PER_PROVIDER = 8  # renewals at once: a machine that wakes with a thousand accounts is no flood
SLACK = 64  # entries of the heap that may be void before it is built anew
AT_ONCE = 500  # accounts that are planned or begun before logins get their turn: some 5 ms

log = logging.getLogger("emailproxy.oauth")


class Entry(NamedTuple):
    """An account in the heap; void where the account has another one."""

    due_s: float
    """Monotonic."""
    number: int
    """Tells entries that are due at once apart."""
    name: str


@dataclass(slots=True)
class Lane:
    """The renewals at one provider."""

    busy: int = 0
    waiting: deque[str] = field(default_factory=deque)


class Keeper:
    """Call `start` once, `close` once."""

    def __init__(
        self,
        holdings: Holdings,
        wallet: Wallet,
        flows: FlowOf,
        resolve: Callable[[str], Account],
        *,
        clock: Clock,
    ) -> None:
        self._holdings = holdings
        self._wallet = wallet
        self._flows = flows
        self._resolve = resolve
        self._clock = clock
        self._keep_alive_s: float = KEEP_ALIVE_S
        self._kept: dict[str, Entry | None] = {}
        """By name of account; None while it is being renewed."""
        self._heap: list[Entry] = []
        self._numbers = itertools.count()
        self._anew: deque[str] = deque()
        """Accounts whose plans are out of date."""
        self._lanes: dict[str, Lane] = {}
        self._stirred = asyncio.Event()
        self._seen = clock.now()
        self._main: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, *, keep_alive_s: float) -> None:
        """Plans every account anew, by this and by what has become of its tokens' terms."""
        self._keep_alive_s = keep_alive_s
        self._anew = deque(held.account.key for held in self._holdings)
        self._stirred.set()

    def start(self) -> None:
        self._holdings.watcher = self
        self._anew = deque(held.account.key for held in self._holdings)
        self._main = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Asks no provider any more. What was asked goes on: the wallet waits for it."""
        self._holdings.watcher = None
        tasks = [*self._tasks] if self._main is None else [self._main, *self._tasks]
        for lane in self._lanes.values():
            lane.waiting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what the wallet tells

    def watch(self, held: Held) -> None:
        """An account was unlocked, or what is known of it has changed."""
        name = held.account.key
        if name not in self._kept or self._kept[name] is not None:  # else its renewal's end is waited for
            self._plan(held)

    def keeps(self, held: Held) -> bool:
        return held.account.key in self._kept

    # ---- when

    def _plan(self, held: Held, soonest_s: float = 0.0) -> None:
        name, now = held.account.key, self._clock.now()
        wait_s = max(soonest_s, self._wait_s(held, now))
        if math.isinf(wait_s):
            self._kept.pop(name, None)
            return
        entry = self._kept[name] = Entry(now.monotonic_s + wait_s, next(self._numbers), name)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._stirred.set()
        if len(self._heap) > 2 * len(self._kept) + SLACK:
            self._heap = [each for each in self._kept.values() if each is not None]
            heapq.heapify(self._heap)

    def _wait_s(self, held: Held, now: Now) -> float:
        """Until the account is due; infinite where it is not the keeper's."""
        if held.unsaved:
            return max(0.0, held.save_again_at_s - now.monotonic_s)
        term, due_age_s = held.term, self._due_age_s(held)
        # By its own clock: a token that was just granted is let be, whatever its life.
        since_granted_s = now.monotonic_s - term.since.monotonic_s
        wait_s = max(due_age_s - term.age_s(now), MIN_PERIOD_S - since_granted_s, 0.0)
        paused_s = held.paused_until_s - now.monotonic_s
        if paused_s > 0:
            wait_s = max(wait_s, paused_s * (1 + held.chance * LATER))
        return wait_s

    def _due_age_s(self, held: Held) -> float:
        """The age at which its tokens are to be renewed."""
        tokens, term = held.tokens, held.term
        if tokens is None or held.record.needs_sign_in or held.spent:
            return math.inf
        if tokens.refresh_token is None and not self._needs_nobody(held):
            return math.inf
        margin_s = 0.0 if math.isinf(term.life_s) else term.life_s - term.rest_s
        due_age_s = term.rest_s - held.chance * EARLIER * margin_s
        if tokens.refresh_token is None:
            return due_age_s
        return min(due_age_s, self._keep_alive_s * (1 - held.chance * KEEP_ALIVE_EARLIER))

    def _needs_nobody(self, held: Held) -> bool:
        return self._flows(held.account).approval is Approval.NONE

    def _is_idle(self, held: Held) -> bool:
        unused_s = self._clock.monotonic_s() - held.used_at_s
        return self._needs_nobody(held) and unused_s > self._keep_alive_s and not held.unsaved

    # ---- the task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)  # even where it was stirred meanwhile: this may be one of many looks in a row
            self._stirred.clear()
            try:
                wait_s = self._look()
            except Exception:  # nobody would notice its end until the tokens are dead
                log.exception("renewing tokens ahead met a fault of emailproxy")
                wait_s = LOOK_EVERY_S
            await self._clock.wait(self._stirred, wait_s)

    def _look(self) -> float:
        """Begins what is due; seconds until the next look."""
        self._compare_clocks()
        for _ in range(min(len(self._anew), AT_ONCE)):
            held = self._holdings.get(self._anew.popleft())
            if held is not None:
                self.watch(held)
        now_s = self._clock.monotonic_s()
        for _ in range(AT_ONCE):
            if not self._heap or self._heap[0].due_s > now_s:
                break
            self._begin(heapq.heappop(self._heap))
        if self._anew:
            return 0.0
        return min(self._heap[0].due_s - now_s, LOOK_EVERY_S) if self._heap else LOOK_EVERY_S

    def _compare_clocks(self) -> None:
        """Plans anew where the machine slept or its clock was set: a token may be older than was foreseen."""
        before, now = self._seen, self._clock.now()
        self._seen = now
        jump_s = (now.wall_s - before.wall_s) - (now.monotonic_s - before.monotonic_s)
        if abs(jump_s) <= JUMP_S:
            return
        log.info("the clock jumped by %+.0f s, or this machine slept; every token is looked at anew", jump_s)
        self._anew = deque(self._kept)

    # ---- renewing

    def _begin(self, entry: Entry) -> None:
        if self._kept.get(entry.name) is not entry:
            return
        held = self._holdings.get(entry.name)
        if held is None:
            del self._kept[entry.name]
        elif self._is_idle(held):
            self._drop(held)
        elif held.paused_until_s > self._clock.monotonic_s() and not held.unsaved:
            self._plan(held)  # a login asked meanwhile, and failed
        else:
            self._kept[entry.name] = None
            lane = self._lanes.setdefault(urlsplit(held.account.token_url).netloc or held.account.flow, Lane())
            lane.waiting.append(entry.name)
            self._fill(lane)

    def _drop(self, held: Held) -> None:
        """Its next login starts from its file."""
        self._kept.pop(held.account.key, None)
        self._holdings.forget(held.account)

    def _fill(self, lane: Lane) -> None:
        while lane.waiting and lane.busy < PER_PROVIDER:
            lane.busy += 1
            task = asyncio.get_running_loop().create_task(self._renew(lane, lane.waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _renew(self, lane: Lane, name: str) -> None:
        try:
            await self._attempt(name)
        finally:
            lane.busy -= 1
            self._fill(lane)
            self._kept.pop(name, None)
            held = self._holdings.get(name)
            if held is not None:
                self._plan(held, SHORTEST_PAUSE_S)  # whatever became of it

    async def _attempt(self, name: str) -> None:
        held = self._holdings.get(name)
        if held is None:
            return
        try:
            account = self._resolve(held.account.name)
        except LoginRefused:
            account = None
        if account is None or account.key != name:
            self._drop(held)  # not configured any more, or it has another owner
            return
        held.account = completed(account, held.record)
        try:
            await self._wallet.renew_ahead(held)
        except Replaced:
            self._drop(held)
        except LoginRefused:
            pass  # the wallet has said so, and when to ask again
        except StateError as error:
            log.warning("the token of %s was not renewed: %s", held.account.name, error)
            self._wallet.pause(held)
        except Exception:
            log.exception("renewing the token of %s met a fault of emailproxy", held.account.name)
            self._wallet.pause(held)
