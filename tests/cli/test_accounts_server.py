"""The accounts' commands beside a running server: what it unlocks for them, and that changes count at once."""

from __future__ import annotations

import re

from tests.cli.screen import terminal
from tests.cli.site import (
    ADA,
    PASSWORD,
    ROBOT,
    ROOT_ONLY,
    SERVICE,
    Ended,
    Site,
    another_user,
    approve,
    reply,
    under_a_manager,
)

NEW = "canary-new-password"


async def added(site: Site, name: str, *arguments: str) -> Ended:
    return await site.run("accounts", "add-password", ROBOT, "--name", name, *arguments)


async def test_an_unlocked_account_needs_no_password_and_changes_count_at_once(site: Site) -> None:
    await site.sign_in(ROBOT)
    async with site.serving() as proxy:
        locked = await added(site, "scanner")
        assert (locked.code, locked.out) == (2, "")
        assert "an existing password of robot@example.org is needed" in locked.err

        assert b"[UNAVAILABLE]" in await reply(site.imap, ROBOT, PASSWORD)
        unlocked = await added(site, "scanner", "--protocol", "imap")
        assert unlocked.code == 0, unlocked.err
        [password] = unlocked.out.splitlines()
        assert "IMAP only" in unlocked.err
        assert b"[UNAVAILABLE]" in await reply(site.imap, ROBOT, password)

        twice = await added(site, "scanner")
        assert (twice.code, twice.out) == (1, "")
        assert "already" in twice.err

        removed = await site.run("accounts", "remove-password", ROBOT, "scanner")
        assert removed.code == 0, removed.err
        assert b"[AUTHENTICATIONFAILED]" in await reply(site.imap, ROBOT, password)

        gone = await site.run("accounts", "remove", ROBOT, "--yes")
        assert "by the running server, too" in gone.out
        again = await added(site, "scanner")
        assert again.code == 1
        assert "has no password here yet" in again.err
        assert not {password, PASSWORD} & set(re.split(r"[\s\"']", proxy.log))


async def test_a_terminal_is_asked_for_what_is_missing(site: Site) -> None:
    await site.sign_in(ROBOT)
    async with terminal(site, "accounts", "add-password", ROBOT, "--name", "phone", "--ask") as shown:
        await shown.type("New local password: ", NEW)
        await shown.type("Repeat for confirmation: ", NEW)
        await shown.type(f"An existing local password of {ROBOT}: ", PASSWORD)
        await shown.shows("is added")
        assert await shown.process.wait() == 0
        assert NEW not in shown.output
    assert await site.log_in(ROBOT, NEW)


async def test_a_fresh_sign_in_replaces_passwords_that_nobody_knows(site: Site) -> None:
    await site.sign_in(ADA)
    asked = await site.run("accounts", "add-password", ADA, "--name", "new", "--consent")
    assert asked.code == 1  # asked, not answered
    assert "ends all its local passwords but the new one" in asked.err
    arguments = ("accounts", "add-password", ADA, "--name", "new", "--consent", "--yes", "--password-file", "-")
    async with site.running(*arguments, stdin=f"{NEW}\n".encode()) as program:
        found = await program.printed(r"Please visit the following URL to authenticate account (\S+): (\S+)\n")
        assert await site.log_in(ADA, PASSWORD)  # until then nothing changes
        assert "succeeded" in await approve(found[2])
        assert await program.end(20) == 0
        assert NEW not in program.output
    assert await site.log_in(ADA, NEW)
    assert not await site.log_in(ADA, PASSWORD)


@ROOT_ONLY
async def test_what_root_does_leaves_the_service_its_files(services_site: Site) -> None:
    """Through the server, and beside it."""
    site = services_site
    await site.sign_in(ROBOT)
    command = another_user(SERVICE, "serve", "--config", site.config)
    async with under_a_manager(site, *command, user=SERVICE) as program:
        assert b"[UNAVAILABLE]" in await reply(site.imap, ROBOT, PASSWORD)
        through = await added(site, "scanner")
        assert through.code == 0, through.err
        beside = await site.run(
            *("accounts", "change-password", ROBOT, "--unlock-file", "-"), stdin=through.out.encode()
        )
        assert beside.code == 0, beside.err
        assert {path.stat().st_uid for path in [site.state, *site.state.rglob("*"), site.log_file]} == {SERVICE}
        assert b"[AUTHENTICATIONFAILED]" in await reply(site.imap, ROBOT, through.out.strip())
        assert b"[UNAVAILABLE]" in await reply(site.imap, ROBOT, beside.out.strip())
        assert await program.stop() == 0
