"""The server is killed (SIGKILL) at random moments, and starts again from what is on the disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import stat
import statistics
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from emailproxy.errors import EmailProxyError
from emailproxy.oauth.records import ACCESS
from emailproxy.store import codec
from tests.e2e.harness.proxy import Proxy
from tests.endure.frame import Stage, scenario
from tests.endure.ground import Ground, ground

SEED = "EMAILPROXY_ENDURE_SEED"
"""An environment variable: the moments of an earlier run again, as far as a machine repeats itself."""
LOGIN, REFRESH, CONSENT = "logs.in@example.com", "refreshes@example.com", "consents@example.com"
KINDS = (LOGIN, REFRESH, CONSENT)
"""What a round is killed in the middle of, each by an account of its own."""
STALE_S = 1
"""What the provider says of the life of a token that is to be renewed by the next login. While it lasts, logins are
given it, though it is to be renewed."""
BEYOND = 1.2
"""Of what an event takes: some kills come after its end."""
MEASURED = 2
"""The first rounds are killed after their end: they tell how long the events of the others take."""
GRACE_S = 60.0
ON_DISK_S = 0.25
"""From a provider's answer to the disk. It takes some milliseconds; a machine that does much else has pauses. Who is
killed in between has lost the answer, and a provider without grace does not take what was sent for it once more."""
CONSENT_S = 30.0


@dataclass
class Losses:
    """What the kills have cost so far."""

    events: int = 0
    kills: int = 0
    damaged: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Accounts with tokens whose owner was asked to sign in, though nothing excuses that."""
    in_window: int = 0
    """The same, where the provider had just replaced the refresh token, and takes the old one no more."""
    failed: list[str] = field(default_factory=list)
    completed: Counter[str] = field(default_factory=Counter)


@scenario(
    "sigkill",
    group="kill",
    what="SIGKILL at random moments of logins, refreshes and consents; the next start must find every account usable.",
    limit_s=3600,
    short_limit_s=120,
)
async def sigkill(stage: Stage) -> None:
    seed = int(os.environ.get(SEED) or time.time_ns() % 1_000_000)
    stage.say(f"the moments are those of {SEED}={seed}")
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    events = stage.effort(500, 20)
    for grace_s, name in ((GRACE_S, "grace"), (0.0, "no-grace")):
        folder = stage.folder / name
        folder.mkdir(mode=0o711)
        async with ground(folder, grace_s=grace_s) as here:
            losses = await Killing(here, chance, grace_s).until(events / 2)
        words = f"a provider with {grace_s:.0f} s of grace" if grace_s else "a provider without grace"
        _report(stage, words, losses, grace_s)


def _report(stage: Stage, words: str, losses: Losses, grace_s: float) -> None:
    for text in (*losses.damaged[:3], *losses.asked[:3], *losses.failed[:3]):
        stage.say(text)
    done = ", ".join(f"{count} of {name.partition('@')[0]}" for name, count in sorted(losses.completed.items()))
    stage.say(f"{words}: came to their end before the kill: {done}")
    stage.figure(f"{words}: logins, refreshes and consents under way", losses.events)
    stage.figure(f"{words}: kills", losses.kills)
    stage.figure(f"{words}: state files that were not whole", len(losses.damaged), exactly=0)
    stage.figure(f"{words}: accounts that did not work after a start", len(losses.failed), exactly=0)
    stage.figure(f"{words}: owners who had to sign in once more", len(losses.asked), exactly=0)
    if not grace_s:
        text = f"{words}: the same, the provider's answer being on the way to the disk"
        stage.figure(text, losses.in_window)


class Killing:
    """Rounds of: start, every account works, three events at once, kill, look at the files."""

    def __init__(self, here: Ground, chance: random.Random, grace_s: float) -> None:
        self._here, self._chance, self._grace_s = here, chance, grace_s
        self._took_s: dict[str, list[float]] = {name: [] for name in KINDS}
        self._killed_at_s = 0.0
        self._behind: dict[str, int] = {}
        """By account: the provider's grants that its file did not know when all was well, and when it was killed."""
        self._left_behind: dict[str, int] = {}
        self._losses = Losses()
        for name in KINDS:
            here.add_account(name)
        here.provider.told_life_s = {REFRESH: STALE_S, CONSENT: STALE_S}

    async def until(self, events: float) -> Losses:
        losses = self._losses
        while losses.events < events:
            await self._round(losses.kills)
            losses.events += len(KINDS)
        async with self._here.serve() as proxy:
            await self._works(proxy)
        return losses

    async def _round(self, number: int) -> None:
        async with self._here.serve() as proxy:
            if number:
                await self._works(proxy)
            else:
                await self._here.sign_in_all(proxy, KINDS)
            self._behind = self._grants_behind()
            self._here.provider.disown(CONSENT)
            await asyncio.sleep(STALE_S)  # the tokens to be renewed have ended now
            events = [asyncio.create_task(self._event(proxy, name)) for name in KINDS]
            await self._moment(events, number)
            proxy.process.send_signal(signal.SIGKILL)
            self._killed_at_s = time.monotonic()
            await proxy.process.wait()
            for event in events:
                event.cancel()
            await asyncio.gather(*events, return_exceptions=True)
        self._left_behind = self._grants_behind()
        self._losses.kills += 1
        self._losses.damaged += damaged(self._here.world.state)

    def _grants_behind(self) -> dict[str, int]:
        """How many more grants there were than its file knows of, by account; each raises its generation by one."""
        found = {}
        for name in KINDS:
            record = codec.parse_record((self._here.accounts_folder / f"{name}.ini").read_bytes())
            found[name] = self._here.provider.dealt[name] - record.generation
        return found

    async def _moment(self, events: list[asyncio.Task[None]], number: int) -> None:
        if number < MEASURED:
            await asyncio.gather(*events)
            return
        kind = KINDS[number % len(KINDS)]
        await asyncio.sleep(self._chance.uniform(0, BEYOND * statistics.median(self._took_s[kind])))

    async def _event(self, proxy: Proxy, name: str) -> None:
        """A login with a token that lives, one that has to renew its token, or one whose owner must sign in."""
        began_s = time.perf_counter()
        await (self._here.sign_in(proxy, name) if name == CONSENT else self._here.pulse(name).login_ms())
        self._took_s[name].append(time.perf_counter() - began_s)
        self._losses.completed[name] += 1

    async def _works(self, proxy: Proxy) -> None:
        await asyncio.gather(*(self._account_works(proxy, name) for name in KINDS))

    async def _account_works(self, proxy: Proxy, name: str) -> None:
        """Logs in; where that waits for a person, one is there."""
        here, start = self._here, len(proxy.output)
        login = asyncio.create_task(here.pulse(name).login_ms())
        asked = asyncio.create_task(proxy.consent_url(name, start=start, timeout=CONSENT_S))
        try:
            async with asyncio.timeout(CONSENT_S):
                await asyncio.wait({login, asked}, return_when=asyncio.FIRST_COMPLETED)
                if not login.done():
                    self._excuse(name)
                    await here.world.visit(await asked)
                await login
        except (OSError, EOFError, ValueError, AssertionError) as error:
            self._losses.failed.append(f"{name} did not work: {error}")
        finally:
            for task in (login, asked):
                task.cancel()
            await asyncio.gather(login, asked, return_exceptions=True)

    def _excuse(self, name: str) -> None:
        """Why an owner is asked: the consent was under way, or the provider's answer was lost with the process."""
        if name == CONSENT:
            return
        before_s = self._killed_at_s - self._here.provider.dealt_at_s.get(name, 0.0)
        lost = self._left_behind[name] > self._behind[name]
        if lost and not self._grace_s and before_s <= ON_DISK_S:
            self._losses.in_window += 1
        else:
            where = "not on disk" if lost else "on disk"
            self._losses.asked.append(f"{name} must sign in; killed {before_s:.3f} s after a grant that was {where}")


def damaged(state: Path) -> list[str]:
    """What is wrong with a state folder's files: none may be torn, open to others, or without the tokens it had."""
    faults = []
    for path in [*state.glob("accounts/*.ini"), *state.glob("pending/*.ini")]:
        try:
            if path.parent.name == "pending":
                codec.parse_pending(path.read_bytes())
            elif ACCESS not in codec.parse_record(path.read_bytes()).sealed:
                faults.append(f"{path.name} has no tokens")
        except EmailProxyError as error:
            faults.append(f"{path.name}: {error}")
        with suppress(FileNotFoundError):
            if stat.S_IMODE(path.stat().st_mode) != 0o600:
                faults.append(f"{path.name} is open to others")
    return faults
