"""The proxy changes under its clients: another configuration, and the end."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.world import upstream
from tests.endure.busy import HELD_S, Work, digest, fetch, judge_mails, logged_in, mail, message, send
from tests.endure.frame import Stage, scenario
from tests.endure.site import Site, site
from tests.endure.talk import PROTOCOLS, Talk, connect
from tests.endure.watch import seconds_until

MIB = 1024 * 1024
ROOM = {"max_connections_per_address": 2000, "max_connections": 4000, "max_unauthenticated": 2000}
"""All clients come from one address here."""
KINDS = ("a section is added", "settings change", "an account is added", "the file is broken")
AFTERWARDS_S = 5.0
"""What the end may take besides the transfers: a second or two for the sessions, the rest for a busy machine."""


@scenario("reload", group="change", what="100 reloads, a quarter of broken files, under 200 busy sessions.")
async def reload(stage: Stage) -> None:
    standing, reloads = stage.effort((200, 100), (20, 12))
    octets = 300_000
    async with site(stage, settings=ROOM, stub_octets=octets) as here, asyncio.TaskGroup() as clients:
        work = Work(here, octets)
        kinds = ((work.fetch, "IMAP", here.local_stub), (work.idle, "IMAP", here.local_stub),
                 (work.send, "SMTP", here.port("SMTP")), (work.idle, "IMAP", here.port("IMAP")))  # fmt: skip
        for number in range(standing):
            clients.create_task(work.standing(*kinds[number % len(kinds)]))
        clients.create_task(work.come_and_go(here.port("IMAP")))
        try:
            await seconds_until(lambda: work.inside == standing, 60.0)
            await _reload_often(here, reloads)
        finally:
            work.over.set()
    work.judge()


async def _reload_often(here: Site, reloads: int) -> None:
    """And what it costs."""
    config = Config(here)
    took_s = [await config.reload(number) for number in range(reloads // 3)]
    rest = here.at_rest()
    took_s += [await config.reload(number) for number in range(reloads // 3, reloads)]
    stage, after = here.stage, here.at_rest()
    stage.figure("reloads", len(took_s))
    stage.figure("the longest took", max(took_s), "s", at_most=2.0, timing=True)
    stage.figure("memory grown by, since a third of them", after.rss_kib - rest.rss_kib, "KiB", at_most=8 * 1024)
    stage.figure("complaints in the log, but for the broken files", len(config.complaints()), exactly=0)


@dataclass
class Config:
    """The file that is read again and again."""

    site: Site

    def __post_init__(self) -> None:
        self.path = Path(self.site.world.folder / "emailproxy.ini")
        self._text = self.path.read_text()
        (self._port,) = free_ports(1)

    async def reload(self, number: int) -> float:
        """With another content each time; how long it takes until it is in force, or is refused."""
        proxy, kind = self.site.proxy, number % len(KINDS)
        self.path.write_text(self._variant(number, kind))
        broken = kind == KINDS.index("the file is broken")
        expected = (
            "the one before stays in force" if broken else rf"the configuration \S+ is in force now: {self._news(kind)}"
        )
        start, began_s = len(proxy.output), time.monotonic()
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.printed(expected, start=start)
        return time.monotonic() - began_s

    def _news(self, kind: int) -> str:
        return f"added POP-{self._port}" if kind == 0 else f"removed POP-{self._port}" if kind == 1 else "no listening"

    def _variant(self, number: int, kind: int) -> str:
        world = self.site.world
        section = _section(f"POP-{self._port}", upstream(world.server.pop.tls))
        account = _section(f"user{number}@example.com", world.account)
        changed = self._text.replace("[emailproxy]\n", f"[emailproxy]\nconsent_wait = {10 + number}\n")
        return (self._text + section, changed, self._text + account, self._text + "[IMAP-0]\n")[kind]

    def complaints(self) -> list[str]:
        """Lines about faults of the program itself, but for what a broken file has to be told."""
        about = (str(self.path), "the configuration is wrong")
        return [line for line in self.site.watch.complaints() if not any(words in line for words in about)]


def _section(name: str, keys: Mapping[str, object]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


# ---- the end


@dataclass
class Transfers:
    """Messages on their way when the signal comes. Their clients are slow."""

    site: Site
    octets: int
    begun: int = 0
    fetched: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended_s: float = 0.0
    """When the last one had come to its end."""

    async def download(self, talk: Talk) -> None:
        await self._count(self._download(talk))

    async def upload(self, talk: Talk, number: int) -> None:
        await self._count(self._upload(talk, number))

    async def _download(self, talk: Talk) -> None:
        self.fetched.append(await fetch(talk, held_s=HELD_S, begun=self._once()))

    async def _upload(self, talk: Talk, number: int) -> None:
        content = mail(number, self.octets)
        await send(talk, content, held_s=HELD_S, begun=self._once())
        self.sent.append(digest(content))

    async def _count(self, transfer: Awaitable[None]) -> None:
        try:
            await transfer
        except (OSError, EOFError, ValueError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        self.ended_s = time.monotonic()

    def _once(self) -> Callable[[], object]:
        """To be called as often as one likes: a transfer has begun."""
        begun = set[None]()

        def begin() -> None:
            self.begun += not begun
            begun.add(None)

        return begin


@scenario("sigterm", group="change", what="SIGTERM under load: slow transfers of several MB, idle sessions, logins.")
async def sigterm(stage: Stage) -> None:
    downloads, uploads, idle = stage.effort((60, 20, 60), (8, 4, 8))
    octets = stage.effort(8, 2) * MIB
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(
            site(stage, settings=ROOM | {"drain_timeout": "2 min"}, stub_octets=octets)
        )
        transfers = Transfers(here, octets)
        receiving = [await logged_in(here.local_stub) for _ in range(downloads)]
        sending = [await logged_in(here.port("SMTP"), "SMTP") for _ in range(uploads)]
        standing = [await logged_in(here.port("IMAP")) for _ in range(idle)]
        for talk in (*receiving, *sending, *standing):
            stack.callback(talk.close)
        comers = Work(here, octets)
        tasks = [
            *(asyncio.create_task(transfers.download(talk)) for talk in receiving),
            *(asyncio.create_task(transfers.upload(talk, number)) for number, talk in enumerate(sending)),
            *(asyncio.create_task(comers.come_and_go(here.port("IMAP"))) for _ in range(4)),
        ]
        await seconds_until(lambda: transfers.begun == downloads + uploads and comers.came > 0, 60.0)
        stage.figure(
            "transfers under way at the signal", transfers.begun - len(transfers.fetched), exactly=len(tasks) - 4
        )
        began_s = time.monotonic()
        here.proxy.process.send_signal(signal.SIGTERM)
        await here.proxy.printed("INFO sessions end as soon as they are idle")
        stage.figure("connections taken after the signal", await _let_in(here), exactly=0)
        await asyncio.gather(*(talk.reader.read() for talk in standing))
        stage.figure("idle sessions ended after", time.monotonic() - began_s, "s", at_most=5.0, timing=True)
        await asyncio.gather(*tasks)
        code = await here.proxy.end(60.0)
        ended_s = time.monotonic()
        _judge_end(transfers, code)
        stage.figure("the last transfer took", transfers.ended_s - began_s, "s")
        stage.figure("the end after it", ended_s - transfers.ended_s, "s", at_most=AFTERWARDS_S, timing=True)
        stage.figure("complaints in the log", len(here.watch.complaints()), exactly=0)


def _judge_end(transfers: Transfers, code: int) -> None:
    stage, right = transfers.site.stage, digest(message(transfers.octets))
    for failure in transfers.failures[:5]:
        stage.say(f"a transfer failed: {failure}")
    stage.figure("transfers that were cut", len(transfers.failures), exactly=0)
    stage.figure("messages fetched", len(transfers.fetched), at_least=1)
    stage.figure("of them otherwise than they are", sum(one != right for one in transfers.fetched), exactly=0)
    judge_mails(transfers.site, transfers.sent)
    stage.figure("exit code", code, exactly=0)


async def _let_in(here: Site) -> int:
    """How many of some connections, one to each port, are accepted."""
    taken = 0
    for protocol in PROTOCOLS:
        with suppress(OSError):
            (await connect(here.port(protocol))).close()
            taken += 1
    return taken


@scenario("stalled", group="change", what="SIGTERM while clients take nothing of what they asked for.")
async def stalled(stage: Stage) -> None:
    clients, timeout_s = stage.effort((50, 10.0), (5, 1.0))
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(
            site(stage, settings=ROOM | {"drain_timeout": timeout_s}, stub_octets=64 * MIB)
        )
        for _ in range(clients):
            talk = await logged_in(here.local_stub)
            stack.callback(talk.close)
            talk.writer.write(b"f FETCH 1 BODY[]\r\n")
            await talk.reader.readline()
        began_s = time.monotonic()
        here.proxy.process.send_signal(signal.SIGTERM)
        code = await here.proxy.end(timeout_s + 60.0)
        took_s = time.monotonic() - began_s
        stage.figure("the end after", took_s, "s", at_least=timeout_s)
        stage.figure("of that beyond drain_timeout", took_s - timeout_s, "s", at_most=AFTERWARDS_S, timing=True)
        stage.figure("exit code", code, exactly=0)
        told = re.findall(r"WARNING sessions that were not idle yet were cut: (\d+)\n", here.proxy.log)
        stage.figure("lines that say how many were cut", len(told), exactly=1)
        stage.figure("sessions cut, as it says", sum(map(int, told)), exactly=clients)
