"""`workers = N`: several processes as one server, also where one of them, or the first, dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emailproxy.admin.client import Client, Refused
from emailproxy.cli import workers
from emailproxy.cli.serve import Source
from emailproxy.config import ini
from emailproxy.demo.certificates import Authority
from emailproxy.errors import ConfigError
from tests.cli.records import messages
from tests.cli.site import ADA, PASSWORD, ROBOT, Site, approve
from tests.cli.test_serve import OBSTACLES, open_state, takes_the_port
from tests.cli.test_serve_signals import Streams, command, logged_in, with_a_mail_server
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy

CLIENTS = 20  # of which one of two workers gets none once in half a million times


@contextlib.asynccontextmanager
async def two_workers(site: Site, **settings: object) -> AsyncIterator[Proxy]:
    async with with_a_mail_server(site):
        site.sections["emailproxy"] |= {"workers": 2, **settings}
        site.configure()
        async with site.serving() as proxy:
            yield proxy


async def ask(site: Site, method: str, path: str, **message: str) -> Any:
    return await asyncio.to_thread(Client(site.state).ask, method, path, message)


async def hangs_up(reader: asyncio.StreamReader) -> None:
    """Waits until the server does."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            await reader.read()


def is_there(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_logins_land_in_both_and_the_others_serve_while_one_is_replaced(site: Site) -> None:
    capped, added = free_ports(2)
    local = {"server_address": "localhost", "local_address": "127.0.0.1"}
    async with two_workers(site, login_queue=0) as proxy:
        local["server_port"] = site.upstream
        site.configure(**{f"IMAP-{capped}": local | {"max_connections_per_account": 2}, f"IMAP-{added}": local})
        assert (await ask(site, "POST", "/reload"))["added"] == [f"IMAP-{capped}", f"IMAP-{added}"]
        clients = [await logged_in(port) for port in (site.imap, added) for _ in range(CLIENTS // 2)]
        shown = (await site.run("status")).out
        assert f"process {proxy.pid}, " in shown
        first, other = re.findall(r"worker (\d): process (\d+), has run for 0:\d\d:\d\d, (\d+) sessions", shown)
        assert (first[0], other[0], int(first[2]) + int(other[2])) == ("1", "2", CLIENTS)
        assert "0" not in (first[2], other[2])
        dead, survivor = int(first[1]), int(other[1])

        clients += [await logged_in(capped) for _ in range(2)]
        for _ in range(6):
            refused = await asyncio.open_connection("127.0.0.1", capped)
            assert b"[LIMIT]" in await command(refused, f'LOGIN {ROBOT} "{PASSWORD}"')
            refused[1].close()

        start = len(proxy.output)
        os.kill(dead, signal.SIGKILL)
        await proxy.printed(rf"worker 1 \(process {dead}\) ended \(SIGKILL\)", start=start)
        clients += [await logged_in(site.imap) for _ in range(4)]
        successor = int((await proxy.printed(r"worker 1 is process (\d+)\n", start=start))[1])
        clients += [await logged_in(added) for _ in range(CLIENTS)]
        facts = await ask(site, "GET", "/status")
        assert [line["pid"] for line in facts["workers"]] == [successor, survivor]
        assert all(line["sessions"] for line in facts["workers"])
        assert [line["section"] for line in facts["listeners"]] == [f"IMAP-{n}" for n in (site.imap, capped, added)]

        for _, writer in clients:
            writer.close()
        assert await proxy.stop() == 0
        assert not any(map(is_there, (survivor, successor)))
    assert messages(site.log)[-1] == "stopped"
    assert "Traceback" not in site.log


async def test_a_configuration_that_cannot_be_in_force_changes_nothing_and_who_cannot_be_replaced_ends_all(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    [added] = free_ports(1)
    authority = Authority.create(tmp_path_factory.mktemp("certificates"))
    one, other = authority.issue("localhost"), authority.issue("localhost")
    local = {"server_address": "localhost", "local_address": "127.0.0.1"}
    mixed = {"local_certificate_path": one.certificate_file, "local_key_path": other.key_file}
    async with two_workers(site) as proxy:
        local["server_port"] = site.upstream
        with socket.create_server(("127.0.0.1", added)):
            site.configure(**{f"IMAP-{added}": local})
            with pytest.raises(Refused, match=f"port {added}: the port is in use"):
                await ask(site, "POST", "/reload")
        site.configure(**{f"IMAP-{added}": local | mixed})  # what only workers find out
        with pytest.raises(Refused, match="holds the key of another certificate"):
            await ask(site, "POST", "/reload")
        facts = await ask(site, "GET", "/status")
        assert [line["section"] for line in facts["listeners"]] == [f"IMAP-{site.imap}"]
        site.configure(**{f"IMAP-{added}": local})
        assert (await ask(site, "POST", "/reload"))["added"] == [f"IMAP-{added}"]

        children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        [nursery] = map(int, children)  # its only one
        os.kill(nursery, signal.SIGKILL)
        await proxy.printed(rf"process {nursery}\) ended \(SIGKILL\): all workers serve on")
        (await logged_in(added))[1].close()
        dead = facts["workers"][0]["pid"]
        os.kill(dead, signal.SIGKILL)
        await proxy.printed(rf"worker 1 \(process {dead}\) ended \(nobody knows how\)")
        assert await proxy.end() == 1
        await proxy.printed("cannot go on: the process that starts workers has ended")
    is_free(site.imap)


async def test_a_consent_is_everybodys_also_where_the_one_dies_that_listens_for_it(site: Site) -> None:
    async with two_workers(site) as proxy:
        clients = [await asyncio.open_connection("127.0.0.1", site.imap) for _ in range(CLIENTS)]
        logins = [asyncio.create_task(answer(streams)) for streams in clients]
        url = await proxy.consent_url(ADA)
        listening = "listening for the sign-in of Ada@example.org"
        await proxy.printed(listening)
        start, facts = len(proxy.output), await ask(site, "GET", "/status")
        os.kill(facts["workers"][0]["pid"], signal.SIGKILL)
        await proxy.printed(rf"ended \(SIGKILL\)(?s:.*){listening}", start=start)
        assert "succeeded" in await approve(url)
        answers = await asyncio.gather(*logins)
        assert set(answers) == {b"", b"t OK"}
        for _, writer in clients:
            writer.close()


async def answer(streams: Streams) -> bytes:
    """The beginning of what a login gets; empty where the server hung up."""
    streams[1].write(f't LOGIN {ADA} "{PASSWORD}"\r\n'.encode())
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            while line := await streams[0].readline():
                if line.startswith(b"t "):
                    return line[:4]
    return b""


def is_free(port: int) -> None:
    """The end of a `Proxy` was that of its output, which all of its processes have in common: none is left."""
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("obstacle", [takes_the_port, open_state])
async def test_what_keeps_them_from_starting_is_one_line_as_with_a_single_server(
    site: Site, obstacle: Callable[[Site], Iterator[None]]
) -> None:
    site.sections["emailproxy"] = {"state_dir": site.state, "log_file": site.log_file, "workers": 3}
    site.configure()
    with contextlib.contextmanager(obstacle)(site):
        failed = await site.run("serve")
    assert (failed.code, failed.out) == (1, "")
    [line] = failed.complaints
    for word in dict(OBSTACLES)[obstacle]:
        assert word.format(site=site) in line


async def test_debugging_and_passwords_are_everybodys_and_who_starts_them_takes_them_along(
    site: Site,
) -> None:
    async with two_workers(site) as proxy:
        proxy.process.send_signal(signal.SIGUSR1)
        await proxy.printed("the debug log is on")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.imap)
        writer.write(b"a LOGOUT\r\n")
        await proxy.printed("DEBUG IMAP from 127.0.0.1: closing")
        await hangs_up(reader)
        writer.close()
        reader, writer = await logged_in(site.imap)
        await proxy.printed("is set up")
        added = await ask(site, "POST", "/accounts/passwords", account=ROBOT, name="scanner")  # one worker has the key
        assert added["name"] == "scanner"
        assert await ask(site, "POST", "/accounts/forget", account=ROBOT) == {"account": ROBOT}
        proxy.process.kill()
        await hangs_up(reader)
        writer.close()
    is_free(site.imap)


def test_a_system_without_fork_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    config = ini.load(site.config)
    with pytest.raises(ConfigError, match=r"\[emailproxy\] workers: .* Unix does; remove the line"):
        workers.prepared(Source(site.config, None, None, None), config, debug=False)
