"""All workers, in the first process: started, started again, told of another configuration, ended, asked."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from emailproxy.config.model import SECONDS, Config
from emailproxy.errors import ServiceError
from emailproxy.net.activation import Activated
from emailproxy.net.places import Places
from emailproxy.oauth.clock import rfc3339
from emailproxy.service.reloading import Plan, Reloaded, explained, in_force
from emailproxy.workers.channel import Facts, Gone
from emailproxy.workers.member import Member, Offer
from emailproxy.workers.merging import merged
from emailproxy.workers.nursery import CLOSE_S, Nursery, NurseryGone
from emailproxy.workers.ports import Ports, Section

FIRST_WAIT_S = 1 * SECONDS  # before a worker that ended is started again; doubled each time
LONGEST_WAIT_S = 60 * SECONDS  # a worker that has lived so long starts over with the first wait
RELOAD_S = 10 * SECONDS  # for workers to take what another has taken; who is later is named
SILENT = "no worker answers; those that hang are killed and replaced within a minute, see the log"
NO_WORKER = "no worker runs at the moment; see the log, and try again"

log = logging.getLogger("emailproxy.workers")


class Crew:
    """Takes the place of a `Service`. `start` it once, `reload` it as often as you like, `stop` it once."""

    def __init__(
        self,
        config: Config,
        nursery: Nursery,
        activated: Activated,
        *,
        written: Callable[[str], None],
        on_fault: Callable[[ServiceError], None],
        debug: bool = False,
    ) -> None:
        """
        Args:
            nursery: forked with this configuration.
            written: takes what a worker logs.
            on_fault: hears why workers that end cannot be replaced.
            debug: whether workers log more.
        """
        self._config = config
        self._text, self._path = b"", Path()
        """Another configuration than the nursery has."""
        self._nursery = nursery
        self._ports = Ports(activated)
        self._on_fault = on_fault
        self._debug = debug
        offer = Offer(nursery, Places(), written, self._ensure)
        self._members = [Member(number, offer) for number in range(1, config.settings.workers + 1)]
        self._redirecting: Member | None = None
        """Who listens for the provider's redirects."""
        self._keeping: dict[Member, asyncio.Task[None]] = {}
        self._reloading: set[asyncio.Task[None]] = set()
        """Workers that take another configuration after the first of them."""
        self._one_at_a_time = asyncio.Lock()
        self._stopping, self._hurried = asyncio.Event(), asyncio.Event()
        self._started_s = self._loaded_s = time.time()

    @property
    def up(self) -> list[Member]:
        return [member for member in self._members if member.up]

    # ---- the start

    async def start(self) -> None:
        """Has all workers listen on every section, or none.

        Raises:
            ServiceError: they cannot; nothing is left open.
        """
        self._nursery.watch()
        try:
            async with self._one_at_a_time:
                self._ports.add(await self._ports.opened(self._config.servers))
                for notice in self._ports.notices():
                    log.warning("%s", notice)
                first, *others = self._members
                self._redirecting = first
                await self._begin(first, quiet=False)
                begun = await asyncio.gather(*map(self._begin, others), return_exceptions=True)
                for error in filter(None, begun):
                    raise error
        except BaseException:
            await self.stop()
            raise
        if self._redirecting is first:  # else it has ended meanwhile, and another one listens
            await self._resume(first)

    async def _begin(self, member: Member, *, quiet: bool = True) -> None:
        orders = {"number": member.number, "path": str(self._path), "quiet": quiet, "debug": self._debug}
        await member.begin(self._ports.take(), self._text, **orders)
        if self._stopping.is_set():
            member.tell("stop")
        if member not in self._keeping:
            self._keeping[member] = asyncio.get_running_loop().create_task(self._keep(member))

    async def _keep(self, member: Member) -> None:
        """Starts it again whenever it ends."""
        wait_s: float = FIRST_WAIT_S
        try:
            while True:
                await member.watch()
                lived_s, who = time.time() - member.since_s, str(member)
                how = await member.bury(0)
                if self._stopping.is_set():
                    return
                if lived_s >= LONGEST_WAIT_S:
                    wait_s = FIRST_WAIT_S
                log.error("%s ended (%s), and its sessions with it; another one starts in %.0f s", who, how, wait_s)
                if self._redirecting is member:
                    await self._resume(next(iter(await self.answering()), None))
                wait_s = await self._again(member, wait_s)
        except NurseryGone as error:
            if not self._stopping.is_set():
                self._on_fault(error)
        except Exception:
            log.exception("replacing worker %d met a fault of emailproxy", member.number)
            self._on_fault(ServiceError("a worker that ended was not replaced"))

    async def _again(self, member: Member, wait_s: float) -> float:
        """Starts it after this wait, or after longer ones; returns the next."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            async with self._one_at_a_time:
                if self._stopping.is_set():
                    return wait_s
                try:
                    await self._begin(member)
                except NurseryGone:
                    raise
                except ServiceError as error:
                    if not self._stopping.is_set():
                        log.error("worker %d cannot start: %s; tried again in %.0f s", member.number, error, wait_s)
                    continue
            if self._redirecting is None:
                await self._resume(member)
            return wait_s

    # ---- the provider's redirects

    async def _resume(self, member: Member | None) -> None:
        """From now on this one listens for them, at once where consents wait."""
        self._redirecting = member
        if member is None:
            return
        try:
            await member.ask("resume")
        except Gone:
            pass  # the next one will
        except ServiceError as error:  # the state folder cannot be used at the moment, and logins say so, too
            log.warning("%s listens for no sign-in of before: %s", member, error)

    async def _ensure(self, account: str) -> None:
        if self._redirecting is not None:
            await self._redirecting.ask("ensure", account=account)

    # ---- another configuration

    async def reload(self, config: Config, text: bytes, path: Path) -> Reloaded:
        """Puts another configuration in force, which is this text's: in all workers, or in none.

        Raises:
            ServiceError: a section cannot be opened, a file of its cannot be used, or the server is about to end;
                nothing has changed.
        """
        async with self._one_at_a_time:
            if self._stopping.is_set():
                raise ServiceError("the server is stopping")
            plan = Plan.of(self._config, config)
            try:
                opened = await self._ports.opened(plan.opened)
            except ServiceError as error:
                raise explained(error, plan, self._ports.addresses) from None
            try:
                others = await self._first_reloaded(opened, text, path)
            except BaseException:
                self._ports.drop(opened)
                raise
            self._config, self._text, self._path = in_force(self._config, config), text, path
            self._loaded_s = time.time()
            late = await self._others_reloaded(others, opened)
            self._ports.add(opened, plan.ended)
            return replace(plan.outcome, late=late)

    async def _first_reloaded(self, opened: dict[str, Section], text: bytes, path: Path) -> list[Member]:
        """Tries it with one worker; returns the others."""
        for first in await self.answering():
            try:
                await self._reload_one(first, opened, text, path, quiet=False)
            except Gone:
                continue
            return [member for member in self.up if member is not first]
        if self.up:
            raise self._nobody()
        return []

    async def _others_reloaded(self, others: list[Member], opened: dict[str, Section]) -> tuple[str, ...]:
        """Those that do not answer in time."""
        begun = {asyncio.ensure_future(self._reloaded_too(member, opened)): member for member in others}
        if not begun:
            return ()
        self._reloading |= begun.keys()
        for task in begun:
            task.add_done_callback(self._reloading.discard)
        _, late = await asyncio.wait(begun, timeout=RELOAD_S)
        names = tuple(str(member) for task, member in begun.items() if task in late)
        for name in names:
            log.error("%s does not answer: it takes the configuration once it does, or its successor has it", name)
        return names

    async def _reload_one(
        self, member: Member, opened: dict[str, Section], text: bytes, path: Path, *, quiet: bool
    ) -> None:
        for section, sockets in self._ports.take(opened):
            member.tell("sockets", section=section, sockets=sockets)
        await member.ask("reload", text, path=str(path), quiet=quiet)

    async def _reloaded_too(self, member: Member, opened: dict[str, Section]) -> None:
        """Where another one took the configuration already: who does not is replaced by one that does."""
        try:
            await self._reload_one(member, opened, self._text, self._path, quiet=True)
        except Gone:
            pass  # its successor has it from the start
        except ServiceError as error:  # a file has changed in this very moment, or there are no descriptors
            if not self._stopping.is_set():
                log.error("%s ends, as it cannot take the configuration that others have taken: %s", member, error)
                member.tell("stop")

    # ---- what they do

    async def status(self) -> Facts:
        """What `emailproxy status` shows: of workers that hang only that they do.

        Raises:
            ServiceError: there is no worker at the moment, or none that answers.
        """
        members = self.up
        found = await asyncio.gather(*(member.ask_briefly("counts") for member in members))
        counts = {member: own for member, own in zip(members, found, strict=True) if own is not None}
        if not counts:
            raise self._nobody()
        status = await next(iter(counts)).ask("status")
        now_s = time.time()
        return merged(status, list(counts.values())) | {
            "pid": os.getpid(),
            "started": rfc3339(self._started_s),
            "uptime_s": int(now_s - self._started_s),
            "config": {"path": str(self._config.path.absolute()), "loaded": rfc3339(self._loaded_s)},
            "workers": [
                {
                    "worker": member.number,
                    "pid": member.pid,
                    "started": rfc3339(member.since_s),
                    "uptime_s": int(now_s - member.since_s),
                    "sessions": _sessions(counts.get(member)),
                }
                for member in members
                if member in counts or not member.gone.is_set()
            ],
        }

    async def ask_one(self, what: str, octets: bytes = b"", **facts: object) -> tuple[Member, Facts]:
        """Any worker's answer.

        Raises:
            ServiceError: its refusal, or there is no worker that answers; Gone where it has ended meanwhile.
        """
        for member in await self.answering():
            return member, await member.ask(what, octets, **facts)
        raise self._nobody()

    async def answering(self) -> list[Member]:
        """Those that do not hang."""
        members = self.up
        found = await asyncio.gather(*(member.ask_briefly("ping") for member in members))
        return [member for member, answer in zip(members, found, strict=True) if answer is not None]

    def _nobody(self) -> ServiceError:
        hung = ", ".join(map(str, self.up))
        return ServiceError(f"{SILENT}: {hung}" if hung else NO_WORKER)

    async def ask_all(self, what: str, octets: bytes = b"", **facts: object) -> list[tuple[Member, Facts]]:
        """All workers' answers, those left out that have ended meanwhile.

        Raises:
            ServiceError: a refusal.
        """
        members = self.up
        answers = await asyncio.gather(
            *(member.ask(what, octets, **facts) for member in members), return_exceptions=True
        )
        found = []
        for member, answer in zip(members, answers, strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, Gone):
                    raise answer
            else:
                found.append((member, answer))
        return found

    def set_debug(self, debug: bool) -> None:
        """Whether workers log more."""
        self._debug = debug
        for member in self._members:
            member.tell("debug", debug=debug)

    # ---- the end

    @property
    def drain_timeout_s(self) -> float:
        """How long `stop` waits at most for what is under way."""
        return self._config.settings.drain_timeout

    def hasten(self) -> None:
        """The end is near: no start that is under way may put it off for long."""
        for member in self._members:
            member.hasten()

    async def stop(self) -> None:
        """Has all workers end as a `Service` does, and kills those that do not."""
        self._stopping.set()
        self.hasten()
        for member in self._members:
            member.tell("stop")
        ending: asyncio.Future[Any] = asyncio.gather(*self._keeping.values())
        hurried: asyncio.Future[Any] = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({ending, hurried}, timeout=self.drain_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        await asyncio.wait({ending}, timeout=CLOSE_S)
        for member in self._members:
            if member.pid and not member.gone.is_set():
                log.error("%s did not end in time, and was killed", member)
                member.kill()
        await ending
        async with self._one_at_a_time:  # a reload that is under way has nobody to ask any more
            self._ports.close()
        await self._nursery.close()

    def hurry(self) -> None:
        """`stop` waits no longer: what is left is cut."""
        self._hurried.set()
        for member in self._members:
            member.tell("hurry")


def _sessions(counts: Facts | None) -> int | None:
    """A worker's; None where it does not answer."""
    return None if counts is None else sum(line["sessions"] for line in counts["listeners"])
