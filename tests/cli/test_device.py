"""Signing in with a device code at the command line: code, QR code, progress, and `logs --consent`."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.screen import terminal
from tests.cli.site import PASSWORD, Ended, Site, approve
from tests.fakes.device import Desk

DEV = "dev@example.org"


@pytest.fixture
async def desk(site: Site) -> AsyncIterator[Desk]:
    async with Desk(time.time, site.provider.access_token, interval_s=1) as desk:
        keys = {"oauth2_flow": "device", "permission_url": f"{desk.url}/device", "token_url": f"{desk.url}/token"}
        site.sections[DEV] = {"oauth2_scope": "mail", "client_id": "test-client", **keys}
        site.configure()
        yield desk


async def authorized(site: Site, *arguments: str) -> Ended:
    given = f"{PASSWORD}\n".encode()
    return await site.run("authorize", DEV, "--password-file", "-", *arguments, stdin=given)


async def test_it_waits_until_the_code_was_entered(site: Site, desk: Desk) -> None:
    given = f"{PASSWORD}\n".encode()
    async with site.running("authorize", DEV, "--password-file", "-", stdin=given) as program:
        await program.printed(rf"authenticate account {DEV}: {desk.url}/activate\?user_code=(\S+)\n")
        await program.printed(f"Visit {desk.url}/activate and use code {desk.code.user_code}\n")
        await program.printed("Waiting")
        desk.code.approved_by = DEV
        assert await program.end(timeout=20) == 0
        assert f"{DEV} is signed in as {DEV}." in program.output
        assert "█" not in program.output
        assert program.output.count(desk.code.user_code) == 2  # warnings for the log are not said again
    assert await site.log_in(DEV)


async def test_a_declined_code_needs_a_person_again(site: Site, desk: Desk) -> None:
    desk.faults.append("access_denied")
    shown = await authorized(site)
    assert shown.code == 3
    assert "was declined" in shown.complaints[-1]
    assert "try again for a new code" in shown.complaints[-1]


async def test_the_logs_show_the_code_that_waits(site: Site, desk: Desk) -> None:
    shown = await authorized(site, "--wait", "0")
    assert shown.code == 3
    assert re.search(r"The code stays good until \d\d:\d\d; the next login of a mail program", shown.complaints[-1])
    page = f"{desk.url}/activate?user_code={desk.code.user_code}"
    waiting = await site.run("logs", "--consent")
    assert (waiting.code, waiting.out) == (3, f"{page} (use code {desk.code.user_code})\n")
    waiting = await site.run("logs", "--consent", "--json")
    assert json.loads(waiting.out) == {"account": DEV, "url": page, "user_code": desk.code.user_code}
    assert f"Visit {desk.url}/activate and use code {desk.code.user_code} to authenticate account {DEV}" in site.log
    site.log_file.unlink()  # the state folder knows, too
    assert (await site.run("logs", "--consent")).code == 3


async def test_a_code_that_has_ended_waits_for_nobody(site: Site, desk: Desk) -> None:
    desk.life_s = 1
    shown = await authorized(site, "--json")
    first, last = map(json.loads, shown.out.splitlines())
    assert shown.code == 3
    assert first["user_code"] == desk.code.user_code
    assert (last["account"], last["signed_in"]) == (DEV, False)
    assert (await site.run("logs", "--consent")).code == 0


@pytest.mark.parametrize("ended", [False, True], ids=["signed in", "Ctrl-C"])
async def test_at_a_terminal_there_are_a_qr_code_and_a_clock(site: Site, desk: Desk, ended: bool) -> None:
    async with terminal(site, "authorize", DEV, env={"COLUMNS": "100", "SSH_TTY": "/dev/pts/0"}) as shown:
        await shown.type("New local password: ", PASSWORD)
        await shown.type("Repeat for confirmation: ", PASSWORD)
        await shown.shows(" left")
        assert re.search(rf"Waiting for the sign-in of {DEV}: 0:\d\d gone, 14:\d\d left|15:00 left", shown.output)
        assert "█" * 20 in shown.output
        assert "ssh -L" not in shown.output  # any browser will do
        if ended:
            shown.interrupt()
            await shown.shows("is not signed in yet")
        else:
            desk.code.approved_by = DEV
            await shown.shows(f"{DEV} is signed in")
        assert await shown.end() == (3 if ended else 0)
        assert "Traceback" not in shown.output


async def test_a_login_after_a_restart_takes_the_code_up_again(site: Site, desk: Desk) -> None:
    await authorized(site, "--wait", "0")
    async with site.serving():
        login = asyncio.create_task(imap(site))
        desk.code.approved_by = DEV
        assert "UNAVAILABLE" in await login  # the mail server is not there; the login was let through
    assert len(desk.codes) == 1
    assert desk.answers[-1] == "granted"


async def imap(site: Site) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.imap)
    try:
        writer.write(f'a LOGIN "{DEV}" "{PASSWORD}"\r\n'.encode())
        while not (line := await reader.readline()).startswith(b"a "):
            assert line, "the server hung up"
        return line.decode()
    finally:
        writer.close()


# ---- where the browser is


@pytest.fixture
def browser(tmp_path: Path) -> dict[str, str]:
    """Variables of a desktop whose browser notes the URL."""
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > "{tmp_path}/url"\n')
    script.chmod(0o755)
    return {"DISPLAY": ":99", "BROWSER": str(script)}


OPENS = [({}, (), True), ({}, ("--no-browser",), False), ({}, ("--json",), False), ({"SSH_TTY": "/x"}, (), False)]


@pytest.mark.parametrize(("more", "arguments", "opens"), OPENS)
async def test_a_browser_is_opened_where_there_is_one(
    site: Site, browser: dict[str, str], more: dict[str, str], arguments: tuple[str, ...], opens: bool
) -> None:
    given = f"{PASSWORD}\n".encode()
    command = ("authorize", "bob@example.org", "--password-file", "-", *arguments)
    async with site.running(*command, stdin=given, env=browser | more) as program:
        await program.printed('"link"' if "--json" in arguments else r"Waiting \.\.\.\n")
        noted = site.folder / "url"
        assert noted.exists() is opens
        assert ("Your browser opens." in program.output) is opens
        assert ("ssh -L" in program.output) is bool(more)
        if opens:
            assert "succeeded" in await approve(noted.read_text())
            assert await program.end() == 0
