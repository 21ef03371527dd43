"""The usual parts, started together: Dovecot, provider, the proxy as a process of its own, and an account signed in."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from emailproxy.admin.client import Client
from tests.bench.upstream import upstream
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.world import World, world
from tests.e2e.harness.world import upstream as section_for
from tests.endure.frame import Stage
from tests.endure.watch import Watch, seconds_until

RUNTIME = "run"
ROOM_KIB = 2048
"""What the allocator may keep of whatever was done a first time."""
THREADS = 32
"""Blocking clients run in the loop's default threads, of which a small machine has six."""
LAST_LINES = 15
"""Of the log, where a scenario ends in an exception."""
Section = Mapping[str, object]


@dataclass(frozen=True)
class Rest:
    """The proxy before the trouble."""

    descriptors: int
    rss_kib: int


@dataclass(frozen=True)
class Site:
    stage: Stage
    world: World
    proxy: Proxy
    watch: Watch
    local_stub: int
    """The proxy's IMAP port before the stub; 0, where there is none."""

    def port(self, protocol: str) -> int:
        """Of the proxy's section for IMAP, POP or SMTP with implicit TLS upstream."""
        local = self.world.local
        return {"IMAP": local.imap, "POP": local.pop, "SMTP": local.smtp}[protocol]

    def at_rest(self) -> Rest:
        return Rest(self.watch.descriptors, self.watch.rss_kib)

    def sessions(self) -> int:
        """How many there are, as `emailproxy status` tells. Blocks."""
        status = Client(self.world.state, self.world.folder / RUNTIME).ask("GET", "/status")
        return sum(listener["sessions"] for listener in status["listeners"])

    async def judge_rest(self, before: Rest, *, grown_kib: int = ROOM_KIB, within_s: float = 10.0) -> None:
        """What these scenarios end with: nothing is left of the trouble."""
        watch, stage = self.watch, self.stage
        back_s = await seconds_until(lambda: watch.descriptors <= before.descriptors, within_s)
        stage.figure("file descriptors back to what they were, after", back_s, "s", at_most=within_s)
        stage.figure("sessions left", await asyncio.to_thread(self.sessions), exactly=0)
        grown = watch.rss_kib - before.rss_kib
        stage.figure("memory grown by, in the end", grown, "KiB", at_most=grown_kib)
        watch.judge_log(stage)


@asynccontextmanager
async def site(
    stage: Stage,
    *,
    settings: Section | None = None,
    sections: Mapping[str, Section] | None = None,
    stub_octets: int | None = None,
    through: Sequence[str] = (),
    **world_options: Any,
) -> AsyncIterator[Site]:
    """Starts all of it, signs the harness's user in once, with a consent, and ends it.

    Args:
        settings: what `[emailproxy]` has besides the usual.
        sections: whole sections besides the usual.
        stub_octets: an IMAP stub runs as well, which takes more connections than Dovecot; its message has so many.
        through: a command that the proxy is started by, and that becomes it (exec), such as prlimit(1).
        world_options: for `tests.e2e.harness.world.world`, such as `expires_in`.
    """
    room_for_clients()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        started = await enter(world(stage.folder, **world_options))
        (stage.folder / RUNTIME).mkdir(mode=0o700)
        more = {name: dict(section) for name, section in (sections or {}).items()}
        local_stub = 0
        if stub_octets is not None:
            stub = await enter(upstream(started.authority.issue("localhost"), message_octets=stub_octets))
            (local_stub,) = free_ports(1)
            more[f"IMAP-{local_stub}"] = section_for(stub.imap)
        more["emailproxy"] = {**started.globals, "runtime_dir": stage.folder / RUNTIME, **(settings or {})}
        arguments = ("--config", started.configure(**more))
        proxy = await enter(serve(*arguments, log_file=started.log_file, home=started.folder, through=through))
        try:
            await started.sign_in(proxy)
            yield Site(stage, started, proxy, Watch(proxy), local_stub)
        except BaseException:
            for line in proxy.log.splitlines()[-LAST_LINES:]:
                stage.say(f"in the log: {line}")
            raise


def room_for_clients() -> None:
    """Threads for blocking clients, and file descriptors for thousands of them."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
