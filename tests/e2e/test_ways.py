"""The network around us: proxies on the way out, sockets from systemd, one port for all providers."""

from __future__ import annotations

import asyncio
import imaplib
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.e2e.harness import wayout
from tests.e2e.harness.dovecot import dovecot
from tests.e2e.harness.proxy import Proxy, environment, notifications
from tests.e2e.harness.wayout import WayOut
from tests.e2e.harness.world import PASSWORD, USER, World, imap_login, pop_login, smtp_login

pytestmark = pytest.mark.system("dovecot")


@pytest.mark.system("tinyproxy", "microsocks")
@pytest.mark.parametrize("start", [wayout.tinyproxy, wayout.microsocks], ids=["CONNECT", "SOCKS5"])
async def test_mail_and_oauth_take_the_proxy_on_the_way_out(
    world: World, start: Callable[[], AbstractAsyncContextManager[WayOut]]
) -> None:
    async with start() as out:
        config = world.configure(emailproxy=world.globals | {"upstream_proxy": out.url})
        async with world.proxy(config) as proxy:
            await world.sign_in(proxy)
            await asyncio.to_thread(pop_login, world.local.pop_starttls)
            await asyncio.to_thread(smtp_login, world.local.smtp)
        for port in (world.server.imap.tls, world.server.pop.starttls, world.server.smtp.tls):
            assert out.met("localhost", port)
        assert out.met("localhost", int(world.provider.url.rpartition(":")[2]))
        assert wayout.PASSWORD not in proxy.log


@pytest.mark.system("systemd-socket-activate")
async def test_sockets_come_from_systemd(world: World) -> None:
    config = world.configure()
    section = f"IMAP-{world.local.imap}"
    with notifications() as notified:
        process = await asyncio.create_subprocess_exec(
            "systemd-socket-activate", f"--listen=127.0.0.1:{world.local.imap}", f"--fdname={section}",
            "--setenv=PYTHONPATH", "--setenv=HOME", f"--setenv=NOTIFY_SOCKET={notified.getsockname()}",
            sys.executable, "-m", "emailproxy", "serve", "--config", config,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=environment(world.folder), cwd=world.folder,
        )  # fmt: skip
        proxy = Proxy(process)
        proxy.log_file = world.log_file
        listening = proxy.begin_to_listen()
        try:
            await proxy.printed("Listening on")
            await world.sign_in(proxy)  # its connection is what starts the server
            assert await asyncio.to_thread(imap_login, world.local.imap)
        finally:
            await proxy.stop()
            await listening


async def test_one_port_serves_accounts_at_different_providers(world: World) -> None:
    other_user = "zoe@example.com"
    async with dovecot(
        public_key_pem=world.provider.public_key_pem,
        certificate=world.folder / "server-1.pem",
        key=world.folder / "server-1.key",
        relay_port=world.sink.port,
    ) as other:
        world.server.deliver(USER, [b"Subject: ann's\n\n"])
        other.deliver(other_user, [b"Subject: zoe's\n\n", b"Subject: zoe's too\n\n"])
        routed: dict[str, object] = {"local_address": "127.0.0.1"}
        sections: dict[str, dict[str, object]] = {
            f"IMAP-{world.local.imap}": routed,
            f"POP-{world.local.pop}": routed,
            f"SMTP-{world.local.smtp}": routed,
            USER: world.account
            | {
                "imap_server": f"localhost:{world.server.imap.tls}",
                "pop_server": f"localhost:{world.server.pop.starttls}/starttls",
                "smtp_server": f"localhost:{world.server.smtp.starttls}/starttls",
            },
            other_user: world.account
            | {
                "imap_server": f"localhost:{other.imap.starttls}/starttls",
                "pop_server": f"localhost:{other.pop.tls}",
                "smtp_server": f"localhost:{other.smtp.tls}",
            },
        }
        async with world.proxy(world.configure(**sections)) as proxy:
            for user in (USER, other_user):
                await world.sign_in(proxy, user)
            for user, count in ((USER, 1), (other_user, 2), (USER, 1)):
                assert await asyncio.to_thread(messages, world.local.imap, user) == count
                assert await asyncio.to_thread(pop_login, world.local.pop, user) == count
                await asyncio.to_thread(smtp_login, world.local.smtp, user)


def messages(port: int, user: str) -> int:
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login(user, PASSWORD)
        _, found = client.select("INBOX")
        assert found[0] is not None
        return int(found[0])
