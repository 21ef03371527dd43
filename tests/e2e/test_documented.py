"""The documented configuration and the documented `register` command, hosts, ports and placeholders changed."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import re
import shlex
import smtplib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from emailproxy.demo.ledger import Client
from tests.config.samples import DOCUMENTED
from tests.e2e.harness.nginx import nginx
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, emailproxy, serve
from tests.e2e.harness.world import CLIENT_ID, CLIENT_SECRET, PASSWORD, USER, World, imap_login
from tests.e2e.harness.world import world as start_world

REGISTER = """\
register --imap-server-address=outlook.office365.com --imap-server-port=993 \
 --smtp-server-address=smtp.office365.com --smtp-server-port=587 --smtp-server-starttls \
 --oauth2-token-url="https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/token " \
 --oauth2-permission-url="https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/authorize " \
 --oauth2-scope=" https://outlook.office365.com/IMAP.AccessAsUser.All https://outlook.office365.com/SMTP.Send \
offline_access " \
 --oauth2-flow="client_credentials" --oauth2-client-id="CLIENT_ID" --oauth2-client-secret="CLIENT_SECRET" --force
"""
PREFIX = "/email-oauth2-proxy-authorize/"
KEPT = "location {prefix} {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $http_host; }}"
STRIPPED = "location {prefix} {{ proxy_pass http://127.0.0.1:{port}/; }}"


def filled_in(text: str, world: World, vault: str) -> str:
    """The text with this test's hosts and ports, and its placeholders replaced."""
    replacements = {
        "2993": str(world.local.imap),
        "2465": str(world.local.smtp_starttls),
        "8801": str(world.local.redirect),
        "<Your_Vault_Address>": vault,
        "login.microsoftonline.com": urlsplit(world.provider.url).netloc,
        "TENANT_ID": "contoso",
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "server_address = outlook.office365.com": "server_address = localhost",
        "server_address = smtp.office365.com": "server_address = localhost",
        "address=outlook.office365.com": "address=localhost",
        "address=smtp.office365.com": "address=localhost",
        "server_port = 993": f"server_port = {world.server.imap.tls}",
        "server_port = 587": f"server_port = {world.server.smtp.starttls}",
        "port=993": f"port={world.server.imap.tls}",
        "port=587": f"port={world.server.smtp.starttls}",
    }
    for documented, ours in replacements.items():
        text = text.replace(documented, ours)
    return text


@contextlib.asynccontextmanager
async def documented_proxy(world: World) -> AsyncIterator[Proxy]:
    """The server as the documentation starts it: no options, its files in the home folder."""
    # The file names no `ca_file`: the private authority is this system's trust store.
    trust = {"SSL_CERT_FILE": str(world.authority.certificate_file)}
    async with serve(log_file=world.log_file, home=world.folder, env=trust) as proxy:
        yield proxy


def use_mail(world: World) -> None:
    """IMAP and SMTP with the password alone: the consent was given."""
    with imaplib.IMAP4("127.0.0.1", world.local.imap) as imap:
        imap.login(USER, PASSWORD)
        assert imap.append("INBOX", "", "", b"Subject: kept\r\n\r\nhello\r\n")[0] == "OK"
        assert imap.select() == ("OK", [b"1"])
    with smtplib.SMTP("127.0.0.1", world.local.smtp_starttls) as smtp:
        smtp.login(USER, PASSWORD)
        smtp.sendmail(USER, ["bob@example.com"], b"Subject: documented\r\n\r\nhello\r\n")


async def first_login(world: World, proxy: Proxy) -> None:
    """It waits for the consent, whose URL a person finds with `logs`."""
    login = asyncio.create_task(asyncio.to_thread(imap_login, world.local.imap))
    url = await proxy.consent_url(USER)
    waiting = await emailproxy("logs", "--consent", home=world.folder)
    assert (waiting.code, waiting.output) == (3, url + "\n")
    page = await world.visit(url)
    assert f"Email OAuth 2.0 authentication succeeded for {USER}" in page.text, page
    await login


@pytest.mark.system("dovecot", "nginx")
@pytest.mark.parametrize("location", [KEPT, STRIPPED], ids=["prefix kept", "prefix stripped"])
async def test_the_documented_file_works_behind_a_reverse_proxy(world: World, location: str) -> None:
    [port] = free_ports(1)
    vault = f"127.0.0.1:{port}"
    world.provider.clients[CLIENT_ID] = Client(CLIENT_ID, CLIENT_SECRET, (f"http://{vault}{PREFIX}",))
    config = world.folder / "emailproxy.ini"
    config.write_text(filled_in(DOCUMENTED, world, vault))
    async with (
        nginx(port, location.format(prefix=PREFIX, port=world.local.redirect)),
        documented_proxy(world) as proxy,
    ):
        await first_login(world, proxy)
        await asyncio.to_thread(use_mail, world)
    assert (await world.sink.next()).sender == USER
    for slip in ("redirect_list_address", "token_url", "SMPT", "client_credentials"):
        assert slip in proxy.output, f"no warning names {slip}"
    [asked] = world.provider.authorizations
    assert "SMTP.Send" in asked["scope"]


@pytest.mark.system("dovecot")
async def test_the_documented_file_uses_client_credentials_with_a_default_scope(tmp_path: Path) -> None:
    async with start_world(tmp_path, application_claims={"email": USER}) as world:
        text = filled_in(DOCUMENTED, world, "127.0.0.1")
        text = re.sub(r"(?m)^oauth2_scope = .*$", "oauth2_scope = https://outlook.office365.com/.default", text)
        (world.folder / "emailproxy.ini").write_text(text)
        async with documented_proxy(world):
            await asyncio.to_thread(use_mail, world)
        assert {request.grant for request in world.provider.requests} == {"client_credentials"}


@pytest.mark.system("dovecot")
async def test_the_documented_registration_works(world: World) -> None:
    command = shlex.split(filled_in(REGISTER, world, ""))
    ours = {
        "imap-local-port": world.local.imap,
        "smtp-local-port": world.local.smtp_starttls,
        "redirect-uri": world.redirect_uri,
    }
    options = [f"--{name}={value}" for name, value in ours.items()]
    config = world.folder / "emailproxy.ini"
    registered = await emailproxy(*command, *options, "--config", config, home=world.folder)
    assert registered.code == 0, registered.output
    assert CLIENT_SECRET not in registered.output
    assert config.stat().st_mode & 0o777 == 0o600
    assert "https://localhost" in config.read_text()
    async with documented_proxy(world) as proxy:
        await first_login(world, proxy)
        await asyncio.to_thread(use_mail, world)
    assert (await world.sink.next()).sender == USER


async def test_placeholders_are_refused_each_by_name(tmp_path: Path) -> None:
    config = tmp_path / "emailproxy.ini"
    config.write_text(DOCUMENTED)
    refused = await emailproxy("serve", "--config", config, home=tmp_path)
    assert refused.code == 78
    assert "Traceback" not in refused.output
    for placeholder in ("<Your_Vault_Address>", "TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        assert placeholder in refused.output
