"""A login that needs its owner's consent: waiting, coming back, many at once, and in a shell."""

from __future__ import annotations

import asyncio
import imaplib
import re
from pathlib import Path

import pytest

from tests.e2e.harness.proxy import Program, emailproxy, running
from tests.e2e.harness.world import PASSWORD, USER, World, imap_login

pytestmark = pytest.mark.system("dovecot")

SUCCESS = f"Email OAuth 2.0 authentication succeeded for {USER}"


def refusal(port: int, user: str = USER, password: str = PASSWORD) -> str:
    """What a login that must fail is told."""
    with imaplib.IMAP4("127.0.0.1", port) as client, pytest.raises(imaplib.IMAP4.error) as caught:
        client.login(user, password)
    return str(caught.value)


def impatient(world: World) -> dict[str, object]:
    return world.globals | {"consent_wait": 0.5}


async def test_a_login_waits_for_the_consent(world: World) -> None:
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
    [asked] = world.provider.authorizations
    assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")


async def test_the_client_is_told_to_come_back_and_the_next_login_succeeds(world: World) -> None:
    async with world.proxy(world.configure(emailproxy=impatient(world))) as proxy:
        answer = await asyncio.to_thread(refusal, world.local.imap)
        assert "[UNAVAILABLE]" in answer
        [link] = re.findall(r"http://\S+/c/[\w-]+", answer)
        assert SUCCESS in (await world.visit(link)).text
        await asyncio.to_thread(imap_login, world.local.imap)
    assert proxy.log.count("Please visit the following URL") == 1
    assert len(world.provider.requests) == 1


async def test_a_pending_consent_outlives_the_server(world: World) -> None:
    config = world.configure(emailproxy=impatient(world))
    async with world.proxy(config) as proxy:
        await asyncio.to_thread(refusal, world.local.imap)
        url = await proxy.consent_url(USER)
    async with world.proxy(config) as proxy:
        again = await asyncio.to_thread(refusal, world.local.imap)
        assert "[UNAVAILABLE]" in again
        assert SUCCESS in (await world.visit(url)).text
        await asyncio.to_thread(imap_login, world.local.imap)


async def test_ten_parallel_logins_cause_one_consent_and_one_token_request(world: World) -> None:
    async with world.proxy() as proxy:
        logins = [asyncio.create_task(asyncio.to_thread(imap_login, world.local.imap)) for _ in range(10)]
        page = await world.visit(await proxy.consent_url(USER))
        assert SUCCESS in page.text
        await asyncio.gather(*logins)
    assert proxy.log.count("Please visit the following URL") == 1
    assert len(world.provider.authorizations) == 1
    assert [request.grant for request in world.provider.requests] == ["authorization_code"]


async def test_another_password_does_not_join_a_pending_consent(world: World) -> None:
    async with world.proxy(world.configure(emailproxy=impatient(world))) as proxy:
        await asyncio.to_thread(refusal, world.local.imap)
        assert "[UNAVAILABLE]" not in await asyncio.to_thread(refusal, world.local.imap, USER, "another")
        assert SUCCESS in (await world.visit(await proxy.consent_url(USER))).text
        await asyncio.to_thread(refusal, world.local.imap, USER, "another")
        await asyncio.to_thread(imap_login, world.local.imap)


async def test_a_login_without_a_password_starts_no_consent(world: World) -> None:
    async with world.proxy() as proxy:
        assert "[AUTHENTICATIONFAILED]" in await asyncio.to_thread(refusal, world.local.imap, USER, "")
        assert "Please visit" not in proxy.output


async def test_an_unknown_account_starts_no_consent(world: World) -> None:
    async with world.proxy() as proxy:
        answer = await asyncio.to_thread(refusal, world.local.imap, "eve@elsewhere.example", PASSWORD)
        assert "[AUTHENTICATIONFAILED]" in answer
        assert "Please visit" not in proxy.output


async def test_a_refused_consent_is_a_readable_page(world: World) -> None:
    world.provider.auto_approve, world.provider.deny = False, True
    async with world.proxy(world.configure(emailproxy=impatient(world))) as proxy:
        await asyncio.to_thread(refusal, world.local.imap)
        page = await world.visit(await proxy.consent_url(USER))
        assert "access_denied" in page.text
        assert "succeeded" not in page.text
    assert world.provider.requests == []


async def test_strangers_and_replays_at_the_redirect_listener_change_nothing(world: World) -> None:
    async with world.proxy(world.configure(emailproxy=impatient(world))) as proxy:
        await asyncio.to_thread(refusal, world.local.imap)
        for query in ("", "?code=x", "?code=x&state=" + "A" * 43, "favicon.ico"):
            page = await world.visit(world.redirect_uri + query)
            assert 400 <= page.status < 500, (query, page)
            assert "<html" in page.text
        done = await world.visit(await proxy.consent_url(USER))
        assert SUCCESS in done.text
        assert (await world.visit(done.url)).status == 400
        await asyncio.to_thread(imap_login, world.local.imap)
    assert [request.grant for request in world.provider.requests] == ["authorization_code"]


async def test_logs_prints_the_consents_that_wait(world: World) -> None:
    config = world.configure(emailproxy=impatient(world))
    async with world.proxy(config) as proxy:
        await asyncio.to_thread(refusal, world.local.imap)
        waiting = await emailproxy("logs", "--consent", "--config", config, home=world.folder)
        assert (waiting.code, waiting.output) == (3, await proxy.consent_url(USER) + "\n")
        await world.visit(waiting.output.strip())
        settled = await emailproxy("logs", "--consent", "--config", config, home=world.folder)
        assert (settled.code, settled.output) == (0, "")


async def authorize(world: World, config: Path) -> None:
    given = f"{PASSWORD}\n".encode()
    command = ("authorize", USER, "--password-file", "-", "--config", config)
    async with running(*command, home=world.folder, stdin=given, kind=Program) as program:
        url = (await program.printed(r"https?://\S+"))[0]
        assert SUCCESS in (await world.visit(url)).text
        assert await program.end() == 0, program.output


async def test_authorize_needs_no_running_server(world: World) -> None:
    config = world.configure()
    await authorize(world, config)
    async with world.proxy(config):
        await asyncio.to_thread(imap_login, world.local.imap)
        assert "[AUTHENTICATIONFAILED]" in await asyncio.to_thread(refusal, world.local.imap, USER, "another")
    assert len(world.provider.authorizations) == 1


async def test_authorize_lets_the_running_server_finish_the_consent(world: World) -> None:
    config = world.configure(emailproxy=impatient(world))
    async with world.proxy(config):
        # Its listener has the port by now.
        await asyncio.to_thread(refusal, world.local.imap)
        await authorize(world, config)
        await asyncio.to_thread(imap_login, world.local.imap)
    assert len(world.provider.authorizations) == 1
