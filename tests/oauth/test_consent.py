"""Logins that need a person: started once, shared, resumed, completed anywhere, and never by a wrong password."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from emailproxy.errors import ConsentRequired, ProviderRefused, TooManyLogins, WrongPassword
from emailproxy.oauth import throttle
from emailproxy.oauth.consent import LIFE_S, REPEAT_S
from emailproxy.oauth.waiting import POLL_S
from emailproxy.secret import Secret
from emailproxy.wire.events import Login
from tests.fakes.provider import Hang, refusal
from tests.oauth.world import ADA, PASSWORD, Process, World, browse, until, visit_of

OTHER = Secret("canary-other-password")
LINE = f"Please visit the following URL to authenticate account {ADA}: "


def urls(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What `logs --consent` would see."""
    return [message.removeprefix(LINE) for message in caplog.messages if message.startswith(LINE)]


async def visited(caplog: pytest.LogCaptureFixture, count: int = 1) -> str:
    await until(lambda: len(urls(caplog)) >= count)
    seen = await browse(urls(caplog)[-1])
    assert seen.status == 200, seen.text
    return seen.text


async def needs_consent(process: Process, password: Secret = PASSWORD, **visit: object) -> ConsentRequired:
    with pytest.raises(ConsentRequired) as caught:
        await process.login(password=password, **visit)
    return caught.value


async def test_a_login_waits_for_the_person_and_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    process = await world.process()
    login = asyncio.create_task(process.login())
    await visited(caplog)
    world.provider.verify(await login)
    assert [request.grant for request in world.provider.requests] == ["authorization_code"]
    assert urls(caplog) == urls(caplog)[:1]


async def test_who_does_not_wait_long_enough_comes_back(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    process = await world.process(wait_s=0)
    required = await needs_consent(process)
    assert required.url == urls(caplog)[0]
    assert required.link in str(required)
    assert required.link.startswith(f"http://127.0.0.1:{world.port}/c/")
    assert len(str(required)) < 250
    await browse(required.link)
    world.provider.verify(await process.login())


async def test_ten_logins_are_one_consent_and_one_request(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    process = await world.process()
    logins = [asyncio.create_task(process.login(session=f"s{number}")) for number in range(20)]
    await until(lambda: len(urls(caplog)) >= 1)
    for login in logins[10:]:
        login.cancel()
    await visited(caplog)
    assert len(set(await asyncio.gather(*logins[:10]))) == 1
    assert len(world.provider.requests) == 1
    assert len(world.provider.authorizations) == 1
    assert len(urls(caplog)) == 1


async def test_the_password_of_the_login_becomes_the_first_slot(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    await browse((await needs_consent(process)).url)
    await process.login()
    with pytest.raises(WrongPassword):
        await process.login(password=OTHER)
    with pytest.raises(WrongPassword):
        await (await world.process()).login(password=OTHER)


async def test_another_password_meanwhile_is_refused_with_the_way_out(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    required = await needs_consent(process)
    before = world.files()
    for one in (process, await world.process(wait_s=0)):
        with pytest.raises(WrongPassword, match=f"emailproxy authorize {ADA}"):
            await one.login(password=OTHER)
        assert world.files() == before
    await browse(required.url)
    world.provider.verify(await process.login())


async def test_of_parallel_first_logins_with_two_passwords_one_begins(world: World) -> None:
    world.account()
    processes = [await world.process(wait_s=0), await world.process(wait_s=0)]
    passwords = [PASSWORD, OTHER]
    results = await asyncio.gather(
        *(process.login(password=password) for process in processes for password in passwords),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    assert kinds in ([ConsentRequired, WrongPassword] * 2, [WrongPassword, ConsentRequired] * 2)
    assert len([name for name in world.files() if name.startswith("pending/")]) == 1


async def test_a_restart_keeps_the_open_browser_tab_valid(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    before = await world.process(wait_s=0)
    await needs_consent(before)
    await before.listener.close()
    await before.broker.close()
    after = await world.process(wait_s=0)
    await needs_consent(after)
    assert urls(caplog) == urls(caplog)[:1] * 2  # the same URL is logged again
    await visited(caplog)
    world.provider.verify(await after.login())


async def test_the_url_is_repeated_once_a_minute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    process = await world.process(wait_s=0)
    for _ in range(5):
        await needs_consent(process)
    assert len(urls(caplog)) == 1
    world.turned.turn(REPEAT_S)
    await needs_consent(process)
    assert len(urls(caplog)) == 2
    assert len(set(urls(caplog))) == 1


async def test_a_consent_ends_after_a_day(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    process = await world.process(wait_s=0)
    old = await needs_consent(process)
    world.turned.turn(LIFE_S)
    assert (await browse(old.link, follow=False)).status == 400
    assert (await browse(old.url)).status == 400
    assert world.provider.requests == []
    new = await needs_consent(process, password=OTHER)
    assert new.url != old.url
    await browse(new.url)
    world.provider.verify(await process.login(password=OTHER))


async def test_a_changed_configuration_asks_anew(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    old = await needs_consent(process)
    world.account(scope="mail offline_access more")
    seen = await browse(old.url)
    assert seen.status == 400
    assert "changed" in seen.text
    new = await needs_consent(process)
    assert "more" in new.url
    await browse(new.url)
    world.provider.verify(await process.login())


async def test_a_failed_exchange_is_told_to_who_waits_and_then_begun_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.account()
    process = await world.process()
    login = asyncio.create_task(process.login())
    await until(lambda: len(urls(caplog)) == 1)
    world.provider.next(refusal("invalid_client", "AADSTS7000215: wrong secret"))
    await browse(urls(caplog)[0])
    with pytest.raises(ProviderRefused, match="AADSTS7000215"):
        await login
    assert world.files() == {}
    again = asyncio.create_task(process.login())
    await visited(caplog, 2)
    world.provider.verify(await again)


async def test_a_closed_browser_stops_nothing(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    required = await needs_consent(process)
    async with process.records.locked(ADA):
        tab = asyncio.create_task(browse(required.url))
        await until(lambda: len(world.provider.authorizations) == 1)
        await until(lambda: len(process.consents._finishing._tasks) == 1)
        tab.cancel()
        await asyncio.wait([tab])
    await until(lambda: not process.consents._finishing._tasks)
    world.provider.verify(await process.login())


# ---- when the provider wants the person back


@pytest.fixture
async def expired(world: World) -> Process:
    """A signed-in account whose refresh token was revoked, and whose access token has ended."""
    world.account()
    process = await world.process(wait_s=0)
    await world.signed_in(process)
    await process.login()
    world.provider.revoke_refresh_tokens()
    world.turned.turn(3600)
    world.provider.requests.clear()
    return process


async def test_a_revoked_grant_starts_a_consent_and_keeps_what_there_was(world: World, expired: Process) -> None:
    before = await expired.records.load(ADA)
    required = await needs_consent(expired)
    for _ in range(5):
        await needs_consent(expired)
    assert [request.grant for request in world.provider.requests] == ["refresh_token"]  # believed once
    after = await expired.records.load(ADA)
    assert before is not None
    assert after is not None
    assert after.sealed == before.sealed
    assert after.needs_sign_in
    assert "invalid_grant" in after.last_error
    with pytest.raises(WrongPassword):
        await expired.login(password=OTHER)
    await browse(required.url)
    world.provider.verify(await expired.login())
    healed = await expired.records.load(ADA)
    assert healed is not None
    assert not healed.needs_sign_in
    assert healed.lockbox == before.lockbox


async def test_the_consent_of_a_known_account_may_be_begun_anywhere(world: World, expired: Process) -> None:
    await needs_consent(expired, may_set=False)  # its password is set already


async def test_an_invalid_grant_is_not_believed_when_somebody_else_renewed(world: World, expired: Process) -> None:
    """A writer that does not share our lock put fresh tokens there while we asked."""
    other = await world.process(wait_s=0)
    with pytest.raises(ConsentRequired) as caught:
        await other.login()
    await browse(caught.value.url)
    fresh = await other.records.load(ADA)
    assert fresh is not None
    load = expired.records.load

    async def late(account: str):  # type: ignore[no-untyped-def]
        record = await load(account)
        return stale if len(world.provider.requests) == asked else record

    key = expired.broker._keyring.find(world.accounts[ADA], fresh.lockbox, PASSWORD)
    assert key is not None
    held = expired.broker._holdings.get(ADA)
    assert held is not None
    stale, asked = held.record, len(world.provider.requests)
    expired.broker._keyring._uses.note = lambda *_: None  # type: ignore[method-assign]
    expired.records.load = late  # type: ignore[method-assign]
    world.provider.verify(await expired.login())
    assert world.provider.requests[-1].status == 400


# ---- several processes


async def test_a_consent_is_completed_by_another_process(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    server = await world.process()
    waiter = await world.process(listens=False)
    await server.listener.ensure(world.accounts[ADA])
    login = asyncio.create_task(waiter.login())
    await visited(caplog)
    world.provider.verify(await login)


async def test_a_renewal_does_not_pass_for_a_consent(world: World) -> None:
    """`authorize` on an account that works is not over because the server refreshed its token meanwhile."""
    world.account()
    server = await world.process()
    await world.signed_in(server)
    waiting = await server.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    world.turned.turn(3600)
    await server.login()
    assert not await waiting.wait(0)
    await browse(waiting.url)
    assert await waiting.wait(0)


async def test_who_waits_learns_that_another_process_failed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    server = await world.process()
    shell = await world.process(listens=False)
    await server.listener.ensure(world.accounts[ADA])
    login = asyncio.create_task(shell.login())
    await until(lambda: len(urls(caplog)) == 1)
    slow = Hang()
    world.provider.next(slow)
    tab = asyncio.create_task(browse(urls(caplog)[0]))
    await world.provider.wait_for_requests(1)
    assert await shell.pending.by_account(ADA) is None  # used up, and still nobody knows what comes of it
    done, _ = await asyncio.wait({login}, timeout=2 * POLL_S)
    assert not done
    world.provider.clients.clear()  # the exchange is refused
    slow.release()
    assert (await tab).status == 400
    with pytest.raises(ConsentRequired, match="try again for a new link"):
        await login


async def test_who_waits_learns_that_the_consent_was_replaced(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.account()
    server = await world.process()
    login = asyncio.create_task(server.login())
    await until(lambda: len(urls(caplog)) == 1)
    await (await world.process()).broker.sign_in(ADA, OTHER)
    with pytest.raises(ConsentRequired, match="another one took its place"):
        await login


async def test_a_server_that_starts_listens_for_what_waits(world: World) -> None:
    world.account()
    world.account("gone@example.org")
    before = await world.process(wait_s=0)
    required = await needs_consent(before)
    await needs_consent(before, user="gone@example.org")
    del world.accounts["gone@example.org"]
    await before.listener.close()
    after = await world.process()
    await after.broker.resume()
    assert (await browse(required.url)).status == 200
    world.provider.verify(await after.login())


async def test_made_up_names_do_not_flood_what_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "NEW_ACCOUNTS", replace(throttle.NEW_ACCOUNTS, burst=2))
    process = await world.process(wait_s=0)
    for number in range(4):
        world.account(f"u{number}@example.org")
    for number in range(2):
        await needs_consent(process, user=f"u{number}@example.org")
    with pytest.raises(TooManyLogins, match="new accounts"):
        await process.login("u2@example.org")
    await needs_consent(process, user="u0@example.org")  # begun already
    await needs_consent(process, user="u3@example.org", address="127.0.0.2")
    assert len(await process.pending.waiting()) == 3
    world.turned.turn(throttle.NEW_ACCOUNTS.refill_s)
    await needs_consent(process, user="u2@example.org")


# ---- secrets


async def test_a_login_without_a_password_never_starts_a_consent(world: World) -> None:
    world.account()
    process = await world.process(wait_s=0)
    with pytest.raises(WrongPassword, match="no password was sent"):
        await process.broker.token(Login(ADA, Secret("")), visit_of())
    assert world.files() == {}
