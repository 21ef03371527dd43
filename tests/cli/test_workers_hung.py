"""`workers = N` where a process hangs, as one that is stopped (SIGSTOP), or the one dies that starts the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.cli.records import messages
from tests.cli.site import Site
from tests.cli.test_serve_signals import with_a_mail_server
from tests.cli.test_workers import CLIENTS, ask, is_free
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Program, Proxy, running, serve

IMPATIENT = """
import os, signal, sys
from emailproxy.cli.main import main
from emailproxy.workers import crew, member, nursery, worker

crew.FIRST_WAIT_S, crew.RELOAD_S, member.ANSWER_S, crew.CLOSE_S = 0.5, 0.2, 1.0, 0.5
member.CLOSE_S = nursery.CLOSE_S = 0.5
member.LOOK_S, hanging, sys.argv = float(sys.argv[1]), sys.argv[2], sys.argv[5:]
starts = worker.Worker._start

async def may_hang(self, *arguments, **orders):
    if os.path.exists(hanging):
        os.write(2, b"one hangs\\n")
        os.kill(os.getpid(), signal.SIGSTOP)
    await starts(self, *arguments, **orders)

worker.Worker._start = may_hang
main()
"""
"""Becomes `emailproxy` with other figures; a worker hangs when it starts and this file is there."""
NEVER_S, SOON_S = 3600, 0.7


@contextlib.asynccontextmanager
async def impatient(site: Site, look_s: float) -> AsyncIterator[Proxy]:
    """Two workers, that are looked at every so many seconds."""
    async with with_a_mail_server(site):
        site.sections["emailproxy"] |= {"workers": 2, "drain_timeout": 0}
        site.configure()
        config, through = ("--config", site.config), become(site, look_s)
        async with serve(*config, log_file=site.log_file, home=site.folder, through=through) as proxy:
            yield proxy


def become(site: Site, look_s: float) -> tuple[str, ...]:
    return sys.executable, "-c", IMPATIENT, str(look_s), str(hanging(site))


def hanging(site: Site) -> Path:
    return site.folder / "hanging"


async def workers(site: Site) -> tuple[int, ...]:
    return tuple(line["pid"] for line in (await ask(site, "GET", "/status"))["workers"])


def stop(pid: int) -> None:
    """Returns once it is stopped."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()


async def test_who_hangs_is_named_and_holds_up_neither_status_nor_reload_nor_the_end(site: Site) -> None:
    [added] = free_ports(1)
    async with impatient(site, NEVER_S) as proxy:
        hung, _ = await workers(site)
        stop(hung)
        shown = (await site.run("status")).out
        assert re.search(rf"worker 1: process {hung}, has run for \S+ DOES NOT ANSWER", shown)
        assert re.search(r"worker 2: process \d+, has run for \S+ 0 sessions", shown)

        local = {"server_address": "localhost", "server_port": site.upstream, "local_address": "127.0.0.1"}
        site.configure(**{f"IMAP-{added}": local})
        reloaded = await site.run("reload")
        assert (reloaded.code, f"added: IMAP-{added}" in reloaded.out) == (0, True)
        [complaint] = reloaded.complaints
        assert f"worker 1 (process {hung}) has not taken it yet" in complaint
        os.kill(hung, signal.SIGCONT)
        clients = [await asyncio.open_connection("127.0.0.1", added) for _ in range(CLIENTS)]
        for reader, writer in clients:  # those that wait for the one that was late, too
            async with asyncio.timeout(20):
                assert (await reader.readline()).startswith(b"* OK")
            writer.close()

        stop(hung)
        assert await proxy.stop() == 0
    assert f"worker 1 (process {hung}) did not end in time, and was killed" in site.log
    assert messages(site.log)[-1] == "stopped"


async def test_who_hangs_for_long_is_replaced_and_who_hangs_at_its_start_puts_off_no_end(site: Site) -> None:
    async with impatient(site, SOON_S) as proxy:
        hung, other = await workers(site)
        stop(hung)
        await proxy.printed(rf"worker 1 \(process {hung}\) has not answered for 2 s, and is killed")
        replaced = r"worker 1 .* ended \(SIGKILL\), and its sessions with it; another one starts in 0 s\n"
        successor = (await proxy.printed(replaced + r"(?s:.*)worker 1 is process (\d+)\n"))[1]
        os.kill(int(successor), signal.SIGKILL)
        await proxy.printed(rf"worker 1 \(process {successor}\) .* in 1 s\n")  # twice as long
        hanging(site).touch()
        os.kill(other, signal.SIGKILL)
        await proxy.printed("one hangs\n")
        assert await proxy.stop() == 0
    assert messages(site.log)[-1] == "stopped"


async def test_who_hangs_at_the_first_start_puts_off_no_end(site: Site) -> None:
    site.sections["emailproxy"] = {"state_dir": site.state, "log_file": site.log_file, "workers": 2}
    site.configure()
    hanging(site).touch()
    command = ("serve", "--config", site.config)
    async with running(*command, home=site.folder, through=become(site, NEVER_S), kind=Program) as program:
        await program.printed("one hangs\n")
        assert await program.stop() == 1
    assert re.search(r"cannot go on: worker 1 \(process \d+\) did not start: SIGKILL", program.output)


async def test_without_the_first_process_nobody_keeps_the_ports(site: Site) -> None:
    async with impatient(site, NEVER_S) as proxy:
        hung, _ = await workers(site)
        stop(hung)
        proxy.process.kill()
        try:
            await proxy.end()
            is_free(site.imap)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hung, signal.SIGCONT)
