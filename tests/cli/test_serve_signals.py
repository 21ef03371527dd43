"""Signals to `emailproxy serve`: the configuration again, the debug log, the end; with sessions under way."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.demo.imap import ImapServer
from emailproxy.demo.mailbox import Mailboxes
from tests.cli.records import messages
from tests.cli.site import ADA, PASSWORD, ROBOT, Site
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Program, notifications
from tests.net.stubs import accept_login, upstream_server

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def with_a_mail_server(site: Site) -> AsyncIterator[None]:
    """The site's IMAP section leads to one that takes every token."""
    authority = Authority.create(site.folder)
    tls = authority.issue("localhost").server_context()
    async with ImapServer(Mailboxes(), lambda user, token: True, tls=tls) as server:
        site.upstream = server.port
        site.sections["emailproxy"] = {
            "state_dir": site.state,
            "log_file": site.log_file,
            "ca_file": authority.certificate_file,
        }
        site.configure()
        yield


async def command(streams: Streams, line: str) -> bytes:
    """The tagged reply."""
    streams[1].write(f"t {line}\r\n".encode())
    async with asyncio.timeout(20):
        while not (reply := await streams[0].readline()).startswith(b"t "):
            assert reply, "the server hung up"
    return reply


async def logged_in(port: int) -> Streams:
    streams = await asyncio.open_connection("127.0.0.1", port)
    assert (await command(streams, f'LOGIN {ROBOT} "{PASSWORD}"')).startswith(b"t OK")
    return streams


async def next_state(notified: socket.socket) -> list[str]:
    async with asyncio.timeout(20):
        return (await asyncio.get_running_loop().sock_recv(notified, 1000)).decode().split("\n")


async def reloaded(program: Program, notified: socket.socket, told: str = r"in force now.*\n") -> str:
    """What the log says to a SIGHUP, once the service manager has heard that it is over, up to what it has to tell."""
    start = len(program.output)
    program.process.send_signal(signal.SIGHUP)
    reloading, since = await next_state(notified)
    assert reloading == "RELOADING=1"
    assert re.fullmatch(r"MONOTONIC_USEC=\d{6,}", since)
    assert await next_state(notified) == ["READY=1"]
    await program.printed(told, start=start)
    return program.output[start:]


async def test_hangup_changes_listeners_and_sessions_live_on(site: Site) -> None:
    [moved] = free_ports(1)
    with notifications() as notified:
        env = {"NOTIFY_SOCKET": notified.getsockname()}
        async with with_a_mail_server(site), site.running("serve", env=env) as program:
            assert await next_state(notified) == ["READY=1"]
            relaying = await logged_in(site.imap)
            text = site.config.read_text()

            site.config.write_text(text.replace("consent_wait", "consent_weight") + "[IMAP-0]\n")
            said = await reloaded(program, notified, rf"ERROR {re.escape(str(site.config))}:\d+.*IMAP-0.*\n")
            assert "ERROR the configuration is wrong, and the one before stays in force" in said
            assert "[IMAP-0]" in said
            assert (await command(relaying, "NOOP")).startswith(b"t OK")

            site.config.write_text(text.replace(f"[IMAP-{site.imap}]", f"[IMAP-{moved}]"))
            said = await reloaded(program, notified)
            assert f"in force now: added IMAP-{moved}; removed IMAP-{site.imap}" in said
            assert f"Starting IMAP server at 127.0.0.1:{moved} (unsecured) proxying localhost:{site.upstream}" in said
            assert (await command(relaying, "NOOP")).startswith(b"t OK")
            (await logged_in(moved))[1].close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", site.imap)

            relaying[1].close()
            assert await program.stop(signal.SIGQUIT) == 0
    assert messages(site.log)[-1] == "stopped"
    assert "Traceback" not in site.log


async def test_the_debug_log_is_turned_on_and_off(site: Site) -> None:
    async with site.serving() as proxy:
        for state in ("on; the same signal turns it off", "off", "on; the same signal turns it off"):
            start = len(proxy.output)
            proxy.process.send_signal(signal.SIGUSR1)
            await proxy.printed(f"the debug log is {state}", start=start)


async def test_a_flood_of_hangups_is_taken_one_by_one_and_ends_with_the_server(site: Site) -> None:
    async with site.serving() as proxy:
        for _ in range(50):
            proxy.process.send_signal(signal.SIGHUP)
        await proxy.printed("in force now: no listening section has changed")
        assert await proxy.stop() == 0
    assert "Traceback" not in site.log
    assert ADA not in site.log


async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A mail server whose message is larger than all buffers on the way."""
    await accept_login(reader, writer)
    await reader.readline()
    writer.write(bytes(32 << 20))
    await reader.read()


@pytest.mark.parametrize("drain_timeout", ["0.2 s", "1 h"], ids=["time is over", "a second signal"])
async def test_a_stop_waits_for_a_transfer_until(site: Site, drain_timeout: str) -> None:
    authority = Authority.create(site.folder)
    async with upstream_server(large, authority.issue("localhost").server_context()) as site.upstream:
        site.sections["emailproxy"] = {
            "state_dir": site.state,
            "log_file": site.log_file,
            "ca_file": authority.certificate_file,
            "drain_timeout": drain_timeout,
        }
        site.configure()
        async with site.serving() as proxy:
            transfer, idle = await logged_in(site.imap), await logged_in(site.imap)
            transfer[1].write(b"t FETCH\r\n")
            await transfer[0].readexactly(1_000_000)
            proxy.process.send_signal(signal.SIGTERM)
            await proxy.printed(r"INFO sessions end as soon as they are idle, within \S+ s \(drain_timeout\): 2")
            with pytest.raises(ConnectionRefusedError):
                await logged_in(site.imap)
            if drain_timeout == "1 h":
                assert await idle[0].read() == b""  # two seconds after it logged in
                await transfer[0].readexactly(1_000_000)
                proxy.process.send_signal(signal.SIGTERM)
            assert await proxy.end() == 0
            for _, writer in (transfer, idle):
                writer.close()
    assert re.search(r"WARNING sessions that were not idle yet were cut: [12]\n", site.log)
    assert messages(site.log)[-1] == "stopped"
