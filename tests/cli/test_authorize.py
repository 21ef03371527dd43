"""`emailproxy authorize`: a consent with no mail program involved, beside a server and without one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.cli.screen import terminal
from tests.cli.site import (
    ADA,
    BOB,
    PASSWORD,
    ROBOT,
    ROOT_ONLY,
    SERVICE,
    Ended,
    Site,
    another_user,
    approve,
    ended,
)
from tests.e2e.harness.proxy import CHECKOUT, Program
from tests.fakes.provider import refusal

SUCCESS = f"Email OAuth 2.0 authentication succeeded for {ADA}"
ANOTHER = "canary-another-password"


async def authorized(site: Site, user: str = ADA, password: str = PASSWORD, *arguments: str) -> Ended:
    """The command to its end, where no person is needed or none comes."""
    given = f"{password}\n".encode()
    return await site.run("authorize", user, "--password-file", "-", *arguments, stdin=given)


@contextlib.asynccontextmanager
async def authorizing(site: Site, user: str = ADA, password: str = PASSWORD) -> AsyncIterator[tuple[Program, str]]:
    """The command while it waits, and the URL that it printed."""
    given = f"{password}\n".encode()
    async with site.running("authorize", user, "--password-file", "-", stdin=given) as program:
        found = await program.printed(r"Please visit the following URL to authenticate account (\S+): (\S+)\n")
        await program.printed("Waiting")
        yield program, found[2]


async def test_without_a_server_its_own_listener_takes_the_answer(site: Site) -> None:
    async with authorizing(site) as (program, url):
        assert SUCCESS in await approve(url)
        assert await program.end() == 0
        assert f"{ADA} is signed in" in program.output
    assert await site.log_in(ADA)
    assert await site.log_in(ADA.upper())
    assert not await site.log_in(ADA, ANOTHER)
    assert [request.grant for request in site.provider.requests] == ["authorization_code"]


async def test_beside_a_server_without_a_listener_its_own_takes_it_and_the_server_sees_it(site: Site) -> None:
    async with site.serving() as proxy, authorizing(site) as (program, url):
        assert SUCCESS in await approve(url)
        assert await program.end() == 0
        assert await imap_refusal(site) == "unavailable"  # the mail server is not there; the login was let through
        assert "Please visit" not in proxy.output


async def test_beside_a_servers_listener_that_takes_it_and_the_command_sees_it(site: Site) -> None:
    async with site.serving() as proxy:
        login = asyncio.create_task(imap_refusal(site, BOB))
        await proxy.consent_url(BOB)  # from now on the server has the port
        async with authorizing(site) as (program, url):
            assert f"port {site.redirect} is in use; if that is another emailproxy" in program.output
            assert SUCCESS in await approve(url)
            assert await program.end() == 0
        await proxy.printed(f"account {ADA} is signed in")
        assert await imap_refusal(site) == "unavailable"
        login.cancel()
    assert [request.grant for request in site.provider.requests] == ["authorization_code"]


async def imap_refusal(site: Site, user: str = ADA, password: str = PASSWORD) -> str:
    """Why the running server refuses an IMAP login, in its response code."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.imap)
    try:
        writer.write(f'a LOGIN "{user}" "{password}"\r\n'.encode())
        while not (line := await reader.readline()).startswith(b"a "):
            assert line, "the server hung up"
        code: str = line.decode().split("[")[1].split("]")[0].lower()
        return code
    finally:
        writer.close()


async def test_the_sign_in_can_be_finished_by_a_server_later(site: Site) -> None:
    shown = await authorized(site, ADA, PASSWORD, "--wait", "0")
    url = shown.out.split()[-1]
    async with site.serving() as proxy:
        login = asyncio.create_task(imap_refusal(site))
        assert await proxy.consent_url(ADA) == url
        assert SUCCESS in await approve(url)
        assert await login == "unavailable"


# ---- local passwords


async def test_an_existing_account_needs_its_password(site: Site) -> None:
    await site.sign_in()
    before = site.files()
    shown = await authorized(site, ADA, ANOTHER)
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.complaints
    assert "password" in line
    assert site.files() == before

    async with authorizing(site) as (program, url):
        assert SUCCESS in await approve(url)
        assert await program.end() == 0
    after = site.files()
    assert list(after) == list(before)
    assert after != before
    assert await site.log_in(ADA)
    assert not await site.log_in(ADA, ANOTHER)


async def test_a_sign_in_begun_with_another_password_is_replaced(site: Site) -> None:
    assert not await site.log_in(ADA, ANOTHER)
    async with authorizing(site) as (program, url):
        assert SUCCESS in await approve(url)
        assert await program.end() == 0
    assert await site.log_in(ADA)
    assert not await site.log_in(ADA, ANOTHER)
    assert not [name for name in site.files() if name.startswith("pending")]


async def test_an_application_needs_no_person(site: Site) -> None:
    shown = await authorized(site, ROBOT)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"{ROBOT} is signed in.")
    assert await site.log_in(ROBOT)
    assert not await site.log_in(ROBOT, ANOTHER)
    assert (await authorized(site, ROBOT)).code == 0
    refused = await authorized(site, ROBOT, ANOTHER)
    assert refused.code == 1


PASSWORD_FILES: list[tuple[bytes, str]] = [
    (f"{PASSWORD}\n".encode(), PASSWORD),
    (f"{PASSWORD}\r\nmore\r\n".encode(), PASSWORD),
    (f"\ufeff{PASSWORD}".encode(), PASSWORD),
    (b"  with spaces \n", "  with spaces "),
    ("pässwörd\n".encode(), "pässwörd"),
]


@pytest.mark.parametrize(("octets", "password"), PASSWORD_FILES)
async def test_the_password_is_the_files_first_line(site: Site, octets: bytes, password: str) -> None:
    file = site.folder / "password"
    file.write_bytes(octets)
    assert (await site.run("authorize", ROBOT, "--password-file", file)).code == 0
    assert await site.log_in(ROBOT, password)


@pytest.mark.parametrize(
    ("octets", "words"),
    [(b"", "is empty"), (b"\nx\n", "is empty"), (b"\xff\n", "not UTF-8"), (b"x" * 5000, "more than 4096 characters")],
)
async def test_a_file_without_a_password_is_wrong_usage(site: Site, octets: bytes, words: str) -> None:
    shown = await site.run("authorize", ADA, "--password-file", "-", stdin=octets)
    assert (shown.code, shown.out) == (2, "")
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert not site.state.exists()


async def test_with_nobody_to_ask_the_password_must_be_given(site: Site) -> None:
    shown = await site.run("authorize", ADA)
    assert shown.code == 2
    assert "give --password-file" in shown.err


# ---- nobody signs in


async def test_when_nobody_comes_in_time_it_says_so(site: Site) -> None:
    shown = await authorized(site, ADA, PASSWORD, "--wait", "0")
    assert shown.code == 3
    assert shown.complaints[-1] == f"{ADA} is not signed in yet. The URL stays good for 24 hours."
    [line] = shown.out.splitlines()
    assert line.startswith(f"Please visit the following URL to authenticate account {ADA}: {site.provider.url}")

    waiting = await site.run("logs", "--consent")
    assert (waiting.code, waiting.out) == (3, line.split()[-1] + "\n")
    again = await authorized(site, ADA, PASSWORD, "--wait", "0")
    assert again.out == shown.out  # the same consent still waits


async def test_ctrl_c_leaves_the_sign_in_pending(site: Site) -> None:
    async with authorizing(site) as (program, url):
        assert await program.stop(signal.SIGINT) == 3
        assert "is not signed in yet" in program.output
        assert "Traceback" not in program.output
    shown = await authorized(site, ADA, PASSWORD, "--wait", "0")
    assert shown.out.split()[-1] == url


@pytest.mark.parametrize("answer", ["denied", "refused"])
async def test_a_sign_in_that_fails_is_told(site: Site, answer: str) -> None:
    if answer == "denied":
        site.provider.deny = True
    else:
        site.provider.next(refusal("invalid_client", "the secret expired"))
    async with authorizing(site) as (program, url):
        page = await approve(url)
        assert "succeeded" not in page
        if answer == "denied":
            assert "access_denied" in page
            assert await program.stop(signal.SIGINT) == 3  # the person may think again
        else:
            assert await program.end() == 1
            assert program.output.count("the secret expired") == 1
    assert not [name for name in site.files() if name.startswith("accounts")]


async def test_as_json(site: Site) -> None:
    shown = await authorized(site, ADA, PASSWORD, "--wait", "0", "--json")
    first, second = map(json.loads, shown.out.splitlines())
    assert shown.code == 3
    assert first["account"] == ADA
    assert first["url"].startswith(site.provider.permission_url)
    assert first["link"].startswith(f"http://localhost:{site.redirect}/c/")
    assert second == {"account": ADA, "signed_in": False}
    shown = await authorized(site, ROBOT, PASSWORD, "--json")
    assert (shown.code, json.loads(shown.out)) == (0, {"account": ROBOT, "signed_in": True})


# ---- what stands in the way

OBSTACLES: list[tuple[str, Callable[[Site], object], int, str]] = [
    ("unknown account", lambda site: None, 1, "eve@example.org"),
    ("wrong configuration", lambda site: site.config.write_text("[emailproxy]\nstate_dri = x\n"), 78, "state_dir"),
    ("placeholders", lambda site: site.configure(**{BOB: site.person | {"client_id": "CLIENT_ID"}}), 78, "client_id"),
    ("state open to others", lambda site: site.state.mkdir(0o755), 1, "chmod 700"),
]


@pytest.mark.parametrize(("name", "prepare", "code", "words"), OBSTACLES, ids=[row[0] for row in OBSTACLES])
async def test_what_stands_in_the_way_is_told(
    site: Site, name: str, prepare: Callable[[Site], object], code: int, words: str
) -> None:
    prepare(site)
    shown = await authorized(site, "eve@example.org" if name == "unknown account" else ADA)
    assert (shown.code, shown.out) == (code, "")
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert site.provider.requests == []


# ---- at a terminal


async def test_at_a_terminal_it_asks_and_echoes_nothing(site: Site) -> None:
    async with terminal(site, "authorize", ADA, "--wait", "0") as shown:
        await shown.type("New local password: ", PASSWORD)
        await shown.type("Repeat for confirmation: ", ANOTHER)
        await shown.shows("do not match")
        await shown.type("New local password: ", PASSWORD)
        await shown.type("Repeat for confirmation: ", PASSWORD)
        await shown.shows("is not signed in yet")
        assert await shown.end() == 3
        assert f"{ADA} is new here" in shown.output
        assert PASSWORD not in shown.output
        assert ANOTHER not in shown.output
    assert PASSWORD not in site.log


@pytest.mark.parametrize("flags", [(), ("--password-file", "-")])
async def test_at_a_terminal_a_known_account_is_asked_for_its_password(site: Site, flags: tuple[str, ...]) -> None:
    await site.sign_in()
    async with terminal(site, "authorize", ADA, "--wait", "0", *flags) as shown:
        await shown.type(f"Local password of {ADA}: ", ANOTHER)
        assert await shown.end() == 1
        assert ANOTHER not in shown.output
    async with terminal(site, "authorize", ADA, *flags) as shown:
        await shown.type(f"Local password of {ADA}: ", PASSWORD)
        await shown.shows("Waiting")
        shown.interrupt()
        await shown.shows("is not signed in yet")
        assert await shown.end() == 3
        assert PASSWORD not in shown.output


async def test_ctrl_c_at_the_question_changes_nothing(site: Site) -> None:
    async with terminal(site, "authorize", ADA) as shown:
        await shown.shows("New local password: ")
        assert await shown.interrupted() == 1
        assert "Traceback" not in shown.output
    assert not site.state.exists()


# ---- secrets and owners


async def test_no_secret_is_shown_or_logged(site: Site) -> None:
    async with authorizing(site) as (program, url):
        cmdline = Path(f"/proc/{program.pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{program.pid}/environ").read_bytes()
        await approve(url)
        await program.end()
    [request] = site.provider.requests
    canaries = {PASSWORD, *(request.form[key] for key in ("code", "code_verifier", "client_secret"))}
    seen = program.output + site.log + cmdline.decode() + environ.decode()
    assert f"account {ADA} is signed in" in site.log
    assert [canary for canary in canaries if canary in seen] == []


@ROOT_ONLY
async def test_what_root_authorizes_the_service_can_use(reachable: Path) -> None:
    async with Site.at(reachable) as site:
        for folder in (site.state, site.log_file.parent):
            folder.mkdir(0o700)
            os.chown(folder, SERVICE, SERVICE)
        assert (await authorized(site, ROBOT)).code == 0
        await authorized(site, ADA, PASSWORD, "--wait", "0")
        made = [*site.state.rglob("*"), site.log_file]
        assert {path.stat().st_uid for path in made} == {SERVICE}
        assert site.log_file in made
        os.chown(site.config, SERVICE, SERVICE)
        command = another_user(SERVICE, "accounts", "list", "--json", "--config", site.config)
        shown = await ended(*command, cwd=reachable, env={"PYTHONPATH": str(CHECKOUT)})
        assert shown.err == ""
        assert {line["account"]: line["state"] for line in json.loads(shown.out)} == {
            ADA.casefold(): "consent pending",
            BOB: "absent",
            ROBOT: "live",
        }


async def test_at_a_terminal_the_mailboxes_own_password_is_asked_for_where_it_is_the_grant(site: Site) -> None:
    site.provider.passwords[BOB] = PASSWORD
    site.configure(**{BOB: site.application | {"oauth2_flow": "password"}})
    for typed, code in ((ANOTHER, 1), (PASSWORD, 0)):
        async with terminal(site, "authorize", BOB) as shown:
            await shown.type(f"The mailbox's own password of {BOB}: ", typed)
            assert await shown.end() == code
