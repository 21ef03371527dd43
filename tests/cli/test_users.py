"""`emailproxy serve` as root, as the service's own user, and among files of others."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.cli.records import messages
from tests.cli.site import ADA, PASSWORD, ROOT_ONLY, SERVICE, Ended, Site, another_user, ended, under_a_manager

pytestmark = ROOT_ONLY


async def as_the_service(site: Site, *arguments: str) -> Ended:
    return await ended(*another_user(SERVICE, *arguments, "--config", site.config), cwd=site.folder)


async def test_a_server_that_root_runs_leaves_the_files_to_their_user(services_site: Site) -> None:
    site = services_site
    async with site.serving() as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", site.imap)
        writer.write(f'a LOGIN {ADA} "{PASSWORD}"\r\n'.encode())
        await proxy.consent_url(ADA)
        writer.close()
    made = [*site.state.rglob("*"), site.log_file]
    assert len([path for path in made if path.parent.name == "pending"]) == 1
    assert {path.stat().st_uid for path in made} == {SERVICE}
    waiting = await as_the_service(site, "logs", "--consent")
    assert (waiting.code, waiting.err) == (3, "")
    assert waiting.out.startswith(site.provider.permission_url)


async def test_the_service_runs_without_privileges_and_root_reads_its_log(services_site: Site) -> None:
    site = services_site
    command = another_user(SERVICE, "serve", "--config", site.config)
    async with under_a_manager(site, *command, user=SERVICE) as program:
        shown = await site.run("logs", "-n", "1")
        assert (shown.code, messages(shown.out)) == (0, ["ready"])
        lines = json.loads((await site.run("accounts", "list", "--json")).out)
        assert {line["state"] for line in lines} == {"absent"}
        assert await program.stop() == 0


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("log", "cannot be written: Permission denied; set log_file"),
        ("state", "belongs to another user"),
        ("emailproxy.ini", "cannot be read: Permission denied"),
    ],
)
async def test_what_belongs_to_another_user_is_one_clear_line(services_site: Site, what: str, words: str) -> None:
    os.chown(services_site.folder / what, 0, 0)
    failed = await as_the_service(services_site, "serve")
    assert failed.code == (78 if what == "emailproxy.ini" else 1)
    [line] = failed.complaints
    assert words in line


async def test_a_privileged_port_is_one_clear_line(services_site: Site) -> None:
    unprivileged = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if int(unprivileged.read_text()) < 144:
        pytest.skip("this machine lets everybody listen there")
    local = {"server_address": "localhost", "server_port": 993, "local_address": "127.0.0.1"}
    services_site.configure(**{"IMAP-143": local})
    failed = await as_the_service(services_site, "serve")
    assert failed.code == 1
    [line] = failed.complaints
    assert "not permitted below port 1024" in line
