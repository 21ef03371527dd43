"""A password for each program: given, limited, changed and taken away while the server runs."""

from __future__ import annotations

import asyncio
import dataclasses
import imaplib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness.clients import Clients
from tests.e2e.harness.proxy import Program, emailproxy, running
from tests.e2e.harness.run import Outcome
from tests.e2e.harness.world import PASSWORD, USER, World, imap_login

pytestmark = pytest.mark.system("dovecot")

RECIPIENT = "bob@example.com"
ELSEWHERE = "127.0.0.9"
"""Another machine's address, for all that the proxy knows."""


def configure(world: World, clients: Clients) -> Path:
    """The control socket's path must be short."""
    return world.configure(emailproxy=world.globals | {"runtime_dir": clients.home})


async def accounts(world: World, command: str, *arguments: str, stdin: str = "") -> Outcome:
    config = world.folder / "emailproxy.ini"
    return await emailproxy(
        "accounts", command, USER, *arguments, "--config", config, home=world.folder, stdin=stdin.encode()
    )


async def added(world: World, name: str, *arguments: str, stdin: str = "") -> str:
    """A new password, which the command made up."""
    made = await accounts(world, "add-password", "--name", name, "--json", *arguments, stdin=stdin)
    assert made.code == 0, made.output
    return str(json.loads(made.output)["password"])


async def listed(world: World) -> dict[str, dict[str, Any]]:
    shown = await accounts(world, "passwords", "--json")
    assert shown.code == 0, shown.output
    return {line["name"]: line for line in json.loads(shown.output)["passwords"]}


async def refusal(world: World, password: str) -> str:
    """What an IMAP login is told that must fail."""
    with pytest.raises(imaplib.IMAP4.error) as caught:
        await asyncio.to_thread(imap_login, world.local.imap, USER, password)
    return str(caught.value)


@pytest.mark.system("swaks")
async def test_a_scanner_has_a_password_of_its_own_and_loses_it_alone(world: World, clients: Clients) -> None:
    async with world.proxy(configure(world, clients)) as proxy:
        await world.sign_in(proxy)
        limits = ("--protocol", "smtp", "--from", "127.0.0.1", "--expires", "90d")
        given = await added(world, "scanner", *limits)  # the running server unlocks the account for root
        scanner = dataclasses.replace(clients, password=given)

        for mechanism in ("PLAIN", "LOGIN"):  # two programs, two passwords, in turns
            sent = await scanner.swaks(world.local.smtp, RECIPIENT, mechanism)
            assert sent.code == 0, sent.output
            assert (await world.sink.next()).sender == USER
            await asyncio.to_thread(imap_login, world.local.imap)
        assert "SMTP only" in await refusal(world, given)
        abroad = await scanner.swaks(world.local.smtp_starttls, RECIPIENT, "PLAIN", source=ELSEWHERE)
        assert "535 5.7.8" in abroad.output
        assert f"from 127.0.0.1/32 only, and this one comes from {ELSEWHERE}" in abroad.output

        async with asyncio.timeout(10):  # the last use is written beside the login
            while (lines := await listed(world))["scanner"]["last_used"] is None:
                await asyncio.sleep(0.05)
        assert list(lines) == ["first", "scanner"]
        assert (lines["scanner"]["protocols"], lines["scanner"]["networks"]) == (["SMTP"], ["127.0.0.1/32"])
        assert lines["scanner"]["expires"] > lines["scanner"]["last_used"]

        held = await asyncio.to_thread(logged_in, world)
        removed = await accounts(world, "remove-password", "scanner")
        assert removed.code == 0, removed.output
        refused = await scanner.swaks(world.local.smtp, RECIPIENT, "PLAIN")
        assert "535 5.7.8" in refused.output, refused.output
        await asyncio.to_thread(imap_login, world.local.imap)
        assert (await asyncio.to_thread(held.noop))[0] == "OK"
        await asyncio.to_thread(held.logout)
        assert list(await listed(world)) == ["first"]
    assert [request.grant for request in world.provider.requests] == ["authorization_code"]
    kept = [path.read_text() for path in world.state.rglob("*") if path.is_file()]
    for place in (proxy.log, proxy.output, json.dumps(lines), removed.output, *kept):
        assert not any(secret in place for secret in (given, PASSWORD))


def logged_in(world: World) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", world.local.imap)
    client.login(USER, PASSWORD)
    return client


async def test_passwords_change_with_no_new_sign_in_and_the_last_goes_by_force(world: World, clients: Clients) -> None:
    changed = "another horse, another battery"
    async with world.proxy(configure(world, clients)) as proxy:
        await world.sign_in(proxy)
        wrong = await accounts(world, "change-password", "--unlock-file", "-", stdin="no such password")
        assert (wrong.code, "Traceback" in wrong.output) == (1, False)
        unlock = world.folder / "old-password"
        unlock.write_text(PASSWORD)
        done = await accounts(
            world, "change-password", "--unlock-file", str(unlock), "--password-file", "-", stdin=changed
        )
        assert done.code == 0, done.output
        assert "[AUTHENTICATIONFAILED]" in await refusal(world, PASSWORD)
        await asyncio.to_thread(imap_login, world.local.imap, USER, changed)
        assert len(world.provider.authorizations) == 1

        brief = await added(world, "for a moment", "--expires", "1 s")
        async with asyncio.timeout(20):
            while "ended on" not in await ended_or_not(world, brief):
                await asyncio.sleep(0.05)
        assert (await listed(world))["for a moment"]["expired"]
        assert (await accounts(world, "remove-password", "for a moment")).code == 0

        kept = await accounts(world, "remove-password", "first")
        assert kept.code == 1
        assert "sign in at its provider again" in kept.output
        await asyncio.to_thread(imap_login, world.local.imap, USER, changed)
        gone = await accounts(world, "remove-password", "first", "--force")
        assert gone.code == 0, gone.output
        assert f"emailproxy authorize {USER}" in gone.output
        await world.sign_in(proxy)  # whoever comes first sets it anew
        assert len(world.provider.authorizations) == 2
    for secret in (PASSWORD, changed, brief):
        assert secret not in proxy.log


async def ended_or_not(world: World, password: str) -> str:
    try:
        await asyncio.to_thread(imap_login, world.local.imap, USER, password)
    except imaplib.IMAP4.error as error:
        return str(error)
    return ""


async def test_a_locked_account_takes_a_password_it_has_or_a_new_sign_in(world: World, clients: Clients) -> None:
    config = configure(world, clients)
    async with world.proxy(config) as proxy:
        await world.sign_in(proxy)
    tablet = await added(world, "tablet", "--unlock-file", "-", stdin=PASSWORD)  # while no server runs
    async with world.proxy(config) as proxy:
        locked = await accounts(world, "add-password", "--name", "phone")
        assert locked.code == 2
        assert "--unlock-file" in locked.output
        assert "log in once with a mail program" in locked.output
        await asyncio.to_thread(imap_login, world.local.imap, USER, tablet)

        consent = ("accounts", "add-password", USER, "--name", "phone", "--consent", "--json", "--config", config)
        unasked = await emailproxy(*consent, home=world.folder)  # nobody is there to say yes
        assert (unasked.code, "ends all its local passwords" in unasked.output) == (1, True)
        async with running(*consent, "--yes", home=world.folder, kind=Program) as asked:
            url = (await asked.printed(r'"url": "([^"]+)"'))[1]
            await asyncio.to_thread(imap_login, world.local.imap, USER, tablet)  # until then nothing changes
            await world.visit(url)
            assert await asked.end(20) == 0, asked.output
        phone = json.loads(asked.output.splitlines()[-1])["password"]
        for password in (PASSWORD, tablet):
            assert "[AUTHENTICATIONFAILED]" in await refusal(world, password)
        await asyncio.to_thread(imap_login, world.local.imap, USER, phone)
        assert list(await listed(world)) == ["phone"]
    assert len(world.provider.authorizations) == 2
    for secret in (PASSWORD, tablet, phone):
        assert secret not in proxy.log
