"""Hooks: what happens to accounts is told to a program or a URL, and no login ever waits for it.

Events wait in a short queue. One of an account is delivered at a time, so that they arrive in order; those of a few
accounts at once, so that one slow receiver does not hold up the others. Of logins that fail in floods one a minute is
told, with how many it stands for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from functools import partial

from emailproxy.config.model import MINUTES, SECONDS, Settings
from emailproxy.config.outbound import Outbound
from emailproxy.config.sources import Hook
from emailproxy.errors import EmailProxyError
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.happenings import Event, Happening
from emailproxy.oauth.hook_delivery import Delivery, message
from emailproxy.oauth.secrets import Secrets

MAX_WAITING = 100  # events; beyond, the oldest is dropped, one of a failed login first: anybody can cause those
MAX_AT_ONCE = 4  # accounts whose events are delivered at the same time
LAST_S = 1 * SECONDS  # at the end, for what is under way: the whole process ends within five
FAILED_EVERY_S = 1 * MINUTES  # a failed login of an account is told so often at most
MAX_FAILED_ACCOUNTS = 20  # in that time, of all accounts together: names that do not exist are made up by the thousand
MAX_REMEMBERED = 1024  # accounts whose failures and last sign-in are remembered
REMIND_S = 60 * MINUTES  # the same sign-in, waiting still, is told again so late

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event on its way to its hook."""

    happening: Happening
    hook: Hook
    at_s: float
    count: int

    @property
    def account(self) -> str:
        return self.happening.account.casefold()


class Floods:
    """Failed logins: which are told, and for how many each of those stands."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """By account: when one was told last, and how many failed since."""
        self._recent: deque[float] = deque(maxlen=MAX_FAILED_ACCOUNTS)

    def count(self, account: str, now_s: float) -> int:
        """How many failed logins this one stands for; 0: it is not told."""
        told_s, silent = self._told.get(account, (-FAILED_EVERY_S, 0))
        too_many = len(self._recent) == MAX_FAILED_ACCOUNTS and now_s - self._recent[0] < FAILED_EVERY_S
        tell = now_s - told_s >= FAILED_EVERY_S and not too_many
        self._told[account] = (now_s, 0) if tell else (told_s, silent + 1)
        self._told.move_to_end(account)
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)
        if tell:
            self._recent.append(now_s)
        return silent + 1 if tell else 0


class Hooks:
    """Tells whoever the configuration names."""

    def __init__(
        self,
        settings: Settings,
        commands: Commands,
        secrets: Secrets,
        *,
        outbound: Outbound | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Without `outbound` the environment names proxies."""
        self._clock = clock or Clock()
        self._delivery = Delivery(settings, commands, secrets, outbound=outbound, clock=self._clock)
        self._hooks = {
            Event.CONSENT_REQUIRED: settings.on_consent_required,
            Event.SIGN_IN_NEEDED: settings.on_sign_in_needed,
            Event.TOKEN_REFRESHED: settings.on_token_refreshed,
            Event.LOGIN_FAILED: settings.on_login_failed,
        }
        self._waiting: deque[Waiting] = deque()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """By account."""
        self._floods = Floods()
        self._asked: OrderedDict[str, tuple[float, Happening]] = OrderedDict()
        """The sign-in of each account that was told last, and when (monotonic)."""
        self._closed = False

    def notify(self, happening: Happening) -> None:
        """Takes note of an event; returns at once, and never fails."""
        try:
            self._take(happening)
        except Exception:
            log.exception("a hook could not be told: this is a fault of emailproxy's own")

    def _take(self, happening: Happening) -> None:
        hook = self._hooks[happening.event]
        if hook is None or self._closed:
            return
        count = self._count(happening)
        if count == 0:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop_one()
        self._waiting.append(Waiting(happening, hook, self._clock.wall_s(), count))
        self._start()

    def _count(self, happening: Happening) -> int:
        """How many events this one stands for; 0: it need not be told."""
        account, now_s = happening.account.casefold(), self._clock.monotonic_s()
        match happening.event:
            case Event.LOGIN_FAILED:
                return self._floods.count(account, now_s)
            case Event.CONSENT_REQUIRED:
                asked_s, asked = self._asked.get(account, (0.0, None))
                if asked == replace(happening, protocol="", address="") and now_s - asked_s < REMIND_S:
                    return 0
                self._asked[account] = now_s, replace(happening, protocol="", address="")
                self._asked.move_to_end(account)
                if len(self._asked) > MAX_REMEMBERED:
                    self._asked.popitem(last=False)
        return 1

    def _drop_one(self) -> None:
        failed = (waiting for waiting in self._waiting if waiting.happening.event is Event.LOGIN_FAILED)
        dropped = next(failed, self._waiting[0])
        self._waiting.remove(dropped)
        log.warning("too many events wait for hooks: %s was dropped", what(dropped.happening))

    def _start(self) -> None:
        """Delivers what may be: the oldest event of each account that has none under way."""
        for waiting in list(self._waiting):
            if len(self._under_way) >= MAX_AT_ONCE:
                return
            if waiting.account not in self._under_way:
                self._waiting.remove(waiting)
                task = asyncio.get_running_loop().create_task(self._deliver(waiting))
                self._under_way[waiting.account] = task
                task.add_done_callback(partial(self._ended, waiting.account))

    async def _deliver(self, waiting: Waiting) -> None:
        name = what(waiting.happening)
        body = message(waiting.happening, at_s=waiting.at_s, count=waiting.count)
        try:
            await self._delivery.deliver(waiting.hook, name, body)
        except EmailProxyError as error:
            log.warning("%s", error)
        except Exception:
            log.exception("%s met a fault of emailproxy's own", name)

    def _ended(self, account: str, _task: asyncio.Task[None]) -> None:
        del self._under_way[account]
        self._start()

    async def close(self) -> None:
        """Takes nothing more, gives what waits and is under way a second, and ends the rest."""
        self._closed = True
        try:
            async with asyncio.timeout(LAST_S):
                while self._under_way:
                    await asyncio.wait(self._under_way.values())
                    await asyncio.sleep(0)  # what waited behind them begins
        except TimeoutError:
            left = len(self._waiting) + len(self._under_way)
            log.warning("%d hooks did not end in time, and were stopped", left)
            self._waiting.clear()
            tasks = list(self._under_way.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._delivery.close()


def what(happening: Happening) -> str:
    return f"the hook on_{happening.event} of {happening.account}"
