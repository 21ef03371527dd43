"""What a configuration's settings come to in a whole server, where no part of it can tell alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from emailproxy.demo.certificates import Authority
from emailproxy.demo.mailbox import Mailboxes
from emailproxy.demo.smtp import SmtpServer
from tests.admin.serving import serving
from tests.cli.site import PASSWORD, ROBOT, Site
from tests.e2e.harness.ports import free_ports


async def test_a_device_that_cannot_log_in_is_logged_in_as_its_section_says_also_after_a_reload(
    tmp_path: Path, short: Path
) -> None:
    authority, [port] = Authority.create(short), free_ports(1)
    tls = authority.issue("localhost").server_context()
    async with (
        Site.at(tmp_path) as site,
        SmtpServer(Mailboxes(), lambda user, token: user == ROBOT, tls=tls) as upstream,
    ):
        device: dict[str, object] = {
            "server_address": "localhost",
            "server_port": upstream.port,
            "local_address": "127.0.0.1",
            "ca_file": authority.certificate_file,
        }
        site.configure(**{f"SMTP-{port}": device})
        as_robot = {"login_as": ROBOT, "login_as_password": PASSWORD, "allow_from": "127.0.0.1"}
        await site.sign_in(ROBOT)
        async with serving(site, short) as server:
            assert (await answered(port, "MAIL FROM:<a@example.org>")).startswith(b"530")
            site.configure(**{f"SMTP-{port}": device | as_robot})
            await server.ask("POST", "/reload")
            assert (await answered(port, "MAIL FROM:<a@example.org>")).startswith(b"250")
            site.configure(**{f"SMTP-{port}": device | as_robot | {"login_as_password": "canary-wrong"}})
            await server.ask("POST", "/reload")
            assert (await answered(port, "MAIL FROM:<a@example.org>"))[:1] in b"45"
            assert (await server.ask("GET", "/status"))["refused"] == {"wrong login": 1}


async def answered(port: int, command: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        await reader.readline()
        writer.write(b"EHLO scanner\r\n")
        while (await reader.readline()).startswith(b"250-"):
            pass
        writer.write(f"{command}\r\n".encode())
        reply = await reader.readline()
    writer.close()
    return reply
