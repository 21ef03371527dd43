"""A user of another proxy changes over: the same file, the same command line, the same password, no new sign-in."""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.harness import otherproxy
from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.world import (
    CLIENT_SECRET,
    USER,
    World,
    imap_login,
    pop_login,
    smtp_login,
    write_config,
)

pytestmark = pytest.mark.system("dovecot", otherproxy.NAME)

AS_BEFORE = ("--no-gui", "--local-server-auth", "--config-file")


@contextlib.asynccontextmanager
async def changed_over(world: World, config: Path, *arguments: str | Path) -> AsyncIterator[Proxy]:
    """Ours, started with the command line that they have."""
    everything = (config, "--log-file", world.log_file, *arguments)
    trust = {"SSL_CERT_FILE": str(world.authority.certificate_file)}
    async with serve(*everything, log_file=world.log_file, home=world.folder, env=trust, command=AS_BEFORE) as proxy:
        yield proxy


def mended(world: World) -> list[str]:
    """What our state folder holds: the accounts' files."""
    return sorted(path.name for path in world.folder.glob(".local/state/emailproxy/state/accounts/*.ini"))


@pytest.mark.parametrize("apart", [False, True], ids=["in the configuration", "in a cache store"])
async def test_the_old_password_opens_what_another_proxy_kept(world: World, apart: bool) -> None:
    store = world.folder / "cache.config"
    arguments = ("--cache-store", store) if apart else ()
    config = await otherproxy.signed_in(world, *arguments)
    kept = [(path, path.read_bytes()) for path in (config, store) if path.exists()]
    authorizations = len(world.provider.authorizations)
    async with changed_over(world, config, *arguments) as proxy:
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            await asyncio.to_thread(imap_login, world.local.imap, USER, "not the password")
        assert mended(world) == []
        await asyncio.to_thread(imap_login, world.local.imap)
        await asyncio.to_thread(pop_login, world.local.pop)
        for port in (world.local.smtp, world.local.smtp_starttls):
            await asyncio.to_thread(smtp_login, port)
        assert mended(world) == [f"{USER}.ini"]
        for line in (
            rf"Starting IMAP server at 127\.0\.0\.1:{world.local.imap} \(unsecured\) "
            rf"proxying localhost:{world.server.imap.tls} \(SSL/TLS\)",
            r"Initialised .* - listening for authentication requests\. Connect your email client to begin",
            rf"IMAP \(.*; {USER}\) \[ Successfully authenticated IMAP connection - releasing session \]",
            rf"POP \(.*; {USER}\) \[ Successfully authenticated POP connection - releasing session \]",
            rf"SMTP \(.*; {USER}\) \[ Successfully authenticated SMTP connection - releasing session \]",
            rf"Invalid password to decrypt credentials for account {USER} - aborting login:",
        ):
            await proxy.printed(line)
    assert len(world.provider.authorizations) == authorizations, "nobody had to sign in again"
    assert [(path, path.read_bytes()) for path, _ in kept] == kept


async def test_what_was_moved_lives_on_without_the_old_file(world: World) -> None:
    """The tokens are ours now: renewed and rotated, and the old values are not looked at again."""
    world.provider.expires_in = 1
    config = await otherproxy.signed_in(world)
    world.provider.expires_in = 3600
    async with changed_over(world, config):
        await asyncio.to_thread(imap_login, world.local.imap)
    assert world.provider.requests[-1].form["grant_type"] == "refresh_token"
    renewed = len(world.provider.requests)
    write_config(config, otherproxy.sections(world))
    async with changed_over(world, config):
        await asyncio.to_thread(imap_login, world.local.imap)
    assert len(world.provider.requests) == renewed


async def test_an_encrypted_client_secret_moves_along(world: World) -> None:
    world.provider.expires_in = 1
    config = await otherproxy.signed_in(world, encrypt_client_secret_on_first_use="True")
    world.provider.expires_in = 3600
    cached = config.read_text()
    assert "client_secret_encrypted = " in cached
    config.write_text(re.sub(r"(?m)^client_secret = .*\n", "", cached))
    async with changed_over(world, config) as proxy:
        await asyncio.to_thread(imap_login, world.local.imap)
        assert CLIENT_SECRET not in proxy.log
    request = world.provider.requests[-1]
    assert (request.form["grant_type"], request.status) == ("refresh_token", 200)


async def test_an_unknown_account_is_told_in_the_words_that_scripts_look_for(world: World) -> None:
    config = write_config(world.folder / "emailproxy.config", otherproxy.sections(world))
    async with changed_over(world, config) as proxy:
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            await asyncio.to_thread(imap_login, world.local.imap, "eve@example.com", "anything")
        await proxy.printed("Proxy config file entry missing for account eve@example.com - aborting login")
        login = asyncio.create_task(asyncio.to_thread(imap_login, world.local.imap))
        url = await proxy.consent_url(USER)
        await proxy.printed(rf"Authorisation request received for {USER} \(local server auth mode\)")
        await world.visit(url)
        await login
