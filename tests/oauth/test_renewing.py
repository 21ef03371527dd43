"""Renewals that a login begins: near the end, at it, while the provider is down, and on a mail server's refusal."""

from __future__ import annotations

import asyncio

import pytest

from emailproxy.errors import ProviderRefused, ProviderUnavailable, TokenRefused, WrongPassword
from emailproxy.oauth import holdings, wallet
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.records import sealed
from emailproxy.secret import Secret
from emailproxy.store.base import Record
from emailproxy.wire.events import Login
from tests.fakes.provider import ABSENT, Hang, altered, refusal, throttled
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, no_space, until, visit_of, with_password


@pytest.fixture
async def process(world: World) -> Process:
    """A process, and a signed-in account whose token lives an hour."""
    world.account()
    process = await world.process(wait_s=0)
    await world.signed_in(process)
    world.provider.requests.clear()
    world.provider.arrived = 0
    return process


def tokens_in(world: World) -> list[bytes]:
    """What the state files say, but for why the last renewal failed, and when a password was last used."""
    lines = [line for data in world.files().values() for line in data.splitlines()]
    return [line for line in lines if not line.startswith((b"last_error", b"last_used_s"))]


# ---- renewing


async def test_a_token_near_its_end_is_renewed_and_durable_before_used(world: World, process: Process) -> None:
    first = await process.login()
    world.turned.turn(3600 - MARGIN_S - 1)
    assert await process.login() == first
    world.turned.turn(1)
    second = await process.login()
    assert second != first
    assert world.grants() == ["refresh_token"]
    assert await (await world.process()).login() == second
    assert await process.login() == second
    assert len(world.grants()) == 1


async def test_no_login_uses_a_token_that_is_not_on_disk_yet(world: World, process: Process) -> None:
    first = await process.login()
    world.turned.turn(3600 - MARGIN_S)
    saving, go = asyncio.Event(), asyncio.Event()
    save = process.records.save

    async def slow(record: Record) -> Record:
        saving.set()
        await go.wait()
        return await save(record)

    process.records.save = slow  # type: ignore[method-assign]
    renewing = asyncio.create_task(process.login("ada@example.org"))
    await saving.wait()
    meanwhile = asyncio.create_task(process.login(session="s2"))
    done, _ = await asyncio.wait({meanwhile}, timeout=0.05)
    assert all(task.result() == first for task in done)
    go.set()
    assert await renewing == await meanwhile != first
    assert world.grants() == ["refresh_token"]


async def test_a_process_that_ends_leaves_no_renewal_behind(world: World, process: Process) -> None:
    """A login that was only about to ask for a token asks for none any more."""
    world.turned.turn(3600)
    world.provider.next(Hang())
    go = asyncio.Event()
    load = process.records.load

    async def slow(account: str) -> Record | None:
        await go.wait()
        return await load(account)

    process.records.load = slow  # type: ignore[method-assign]
    login = asyncio.create_task(process.login())
    await until(lambda: len(process.broker._logins._under_way._tasks) == 1)
    closing = asyncio.create_task(process.broker.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert process.broker._wallet._renewals._tasks == {}
    with pytest.raises(asyncio.CancelledError):
        await login


async def test_short_tokens_are_renewed_at_half_their_life(world: World, process: Process) -> None:
    world.provider.expires_in = 100
    world.turned.turn(3600)
    first = await process.login()
    world.turned.turn(49)
    assert await process.login() == first
    world.turned.turn(2)
    assert await process.login() != first


async def test_a_token_without_an_end_is_used_until_refused(world: World, process: Process) -> None:
    world.provider.next(altered(expires_in=None))
    world.turned.turn(3600)
    token = await process.login()
    world.turned.turn(10**8)
    assert await process.login() == token
    assert await process.login(rejected="no") != token


@pytest.mark.parametrize("count", [10, 20])
async def test_parallel_logins_cost_one_request(world: World, process: Process, count: int) -> None:
    world.turned.turn(3600)
    tokens = await asyncio.gather(*(process.login(session=f"s{number}") for number in range(count)))
    assert len(set(tokens)) == 1
    assert world.grants() == ["refresh_token"]


async def test_a_client_that_leaves_cancels_nothing_for_the_others(world: World, process: Process) -> None:
    world.turned.turn(3600)
    slow = Hang()
    world.provider.next(slow)
    logins = [asyncio.create_task(process.login(session=f"s{number}")) for number in range(20)]
    await world.provider.wait_for_requests(1)
    for login in logins[:19]:
        login.cancel()
    await asyncio.wait(logins[:19])
    slow.release()
    world.provider.verify(await logins[19])
    assert all(login.cancelled() for login in logins[:19])
    assert world.grants() == ["refresh_token"]


async def test_when_all_clients_leave_the_renewal_is_kept_all_the_same(world: World, process: Process) -> None:
    world.turned.turn(3600)
    slow = Hang()
    world.provider.next(slow)
    login = asyncio.create_task(process.login())
    await world.provider.wait_for_requests(1)
    login.cancel()
    await asyncio.wait([login])
    slow.release()
    await process.broker.close()
    world.provider.verify(await (await world.process()).login())
    assert world.grants() == ["refresh_token"]


async def test_another_process_may_have_renewed(world: World, process: Process) -> None:
    await process.login()
    other = await world.process()
    world.turned.turn(3600)
    tokens = await asyncio.gather(process.login(), other.login())
    assert len(set(tokens)) == 1
    assert world.grants() == ["refresh_token"]
    assert world.provider.revoked_families == 0


async def test_a_provider_that_is_down_does_not_matter_while_the_token_lives(
    world: World, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    first = await process.login()
    world.turned.turn(3600 - MARGIN_S)
    world.provider.next(throttled("60"))
    for _ in range(5):
        assert await process.login() == first
    assert world.provider.arrived == 1
    assert sum("still works" in message for message in caplog.messages) == 1
    world.turned.turn(60)
    assert await process.login() != first


async def test_a_slow_renewal_does_not_hold_up_a_token_that_lives(
    world: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wallet, "PATIENCE_S", 0.01)
    first = await process.login()
    world.turned.turn(3600 - MARGIN_S)
    slow = Hang()
    world.provider.next(slow)
    assert await process.login() == first
    slow.release()
    await until(lambda: process.broker._wallet._renewals.join(ADA) is None)
    assert await process.login() != first
    assert world.grants() == ["refresh_token"]


async def test_throttled_logins_fail_at_once_and_cost_one_request_a_window(world: World, process: Process) -> None:
    before = tokens_in(world)
    world.turned.turn(3600)
    world.provider.next(throttled("60"))
    for _ in range(100):
        with pytest.raises(ProviderUnavailable):
            await process.login()
    assert world.provider.arrived == 1
    assert tokens_in(world) == before
    world.turned.turn(60)
    world.provider.verify(await process.login())


async def test_a_wrong_configuration_is_said_in_the_providers_words(world: World, process: Process) -> None:
    before = tokens_in(world)
    world.turned.turn(3600)
    world.provider.next(refusal("invalid_client", "AADSTS7000222: the secret expired"))
    with pytest.raises(ProviderRefused, match="AADSTS7000222"):
        await process.login()
    assert tokens_in(world) == before
    record = await process.records.load(ADA)
    assert record is not None
    assert "AADSTS7000222" in record.last_error
    world.provider.verify(await process.login())
    record = await process.records.load(ADA)
    assert record is not None
    assert record.last_error == ""


async def test_a_full_disk_does_not_lose_a_rotated_token(
    world: World, process: Process, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await process.login()
    world.turned.turn(3600)
    accounts = world.folder / "accounts"
    with monkeypatch.context() as patch:
        patch.setattr("emailproxy.store.files.os.replace", no_space)
        second = await process.login()
        assert second != first
        assert await process.login() == second
        world.turned.turn(holdings.SAVE_AGAIN_S)
        assert await process.login() == second
        assert sum("memory only" in message for message in caplog.messages) == 2
    assert len(list(accounts.glob("*.ini"))) == 1
    world.turned.turn(holdings.SAVE_AGAIN_S)
    assert await process.login() == second
    assert await (await world.process()).login() == second
    assert len(world.grants()) == 1


async def unsaved(world: World, process: Process, monkeypatch: pytest.MonkeyPatch) -> str:
    """A renewed token that is in memory only, as the disk was full."""
    world.turned.turn(3600)
    with monkeypatch.context() as patch:
        patch.setattr("emailproxy.store.files.os.replace", no_space)
        return await process.login()


async def test_tokens_saved_late_bring_no_old_password_back(
    world: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await unsaved(world, process, monkeypatch)
    other = await world.process()
    async with other.records.locked(ADA):
        await other.records.save(await with_password(other, WRONG))
    world.turned.turn(holdings.SAVE_AGAIN_S)
    assert await process.login(password=WRONG) == token
    assert await (await world.process()).login(password=WRONG) == token  # saved by now
    with pytest.raises(WrongPassword):
        await process.login()


async def test_of_tokens_that_were_never_saved_and_others_in_the_file_the_file_counts(
    world: World, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await unsaved(world, process, monkeypatch)
    record = await process.records.load(ADA)
    assert record is not None
    theirs = TokenSet(Secret("theirs"), int(world.turned.wall) + 3600, Secret("refresh"))
    await process.records.save(sealed(record, theirs, now_s=int(world.turned.wall)))
    assert await process.login() == "theirs" != mine
    world.turned.turn(holdings.SAVE_AGAIN_S)
    assert await (await world.process()).login() == "theirs"


# ---- a mail server that refuses tokens


async def test_a_refused_token_is_renewed_once_a_minute(world: World, process: Process) -> None:
    first = await process.login()
    await process.broker.token(Login(ADA, PASSWORD), visit_of())
    second = await process.login(rejected="AUTHENTICATE failed")
    assert second != first
    await process.broker.token(Login(ADA, PASSWORD), visit_of())
    with pytest.raises(TokenRefused, match=r"AUTHENTICATE failed twice"):
        await process.login(rejected="AUTHENTICATE\r\nfailed twice")
    assert world.grants() == ["refresh_token"]
    world.turned.turn(60)
    assert await process.login(rejected="AUTHENTICATE failed") != second


async def test_who_was_refused_an_older_token_gets_the_newer_one(world: World, process: Process) -> None:
    login = Login(ADA, PASSWORD)
    for session in ("a", "b", "c"):
        await process.broker.token(login, visit_of(session))
    together = [process.broker.token(login, visit_of(session), "no") for session in ("a", "b")]
    a, b = await asyncio.gather(*together)
    c = await process.broker.token(login, visit_of("c"), "no")
    assert a == b == c
    assert world.grants() == ["refresh_token"]
    with pytest.raises(TokenRefused):
        await process.broker.token(login, visit_of("c"), "no")


async def test_a_refused_token_of_another_process_may_be_renewed_already(world: World, process: Process) -> None:
    other = await world.process()
    login = Login(ADA, PASSWORD)
    await process.broker.token(login, visit_of())
    await other.broker.token(login, visit_of())
    fresh = await other.broker.token(login, visit_of(), "no")
    assert await process.broker.token(login, visit_of(), "no") == fresh
    assert world.grants() == ["refresh_token"]


async def test_a_refused_token_that_cannot_be_renewed_now_is_a_temporary_failure(
    world: World, process: Process
) -> None:
    await process.broker.token(Login(ADA, PASSWORD), visit_of())
    world.provider.next(throttled("60"))
    with pytest.raises(ProviderUnavailable):
        await process.login(rejected="no")


async def test_a_refused_token_without_a_refresh_token_names_the_command(world: World) -> None:
    world.account()
    world.provider.next(altered(refresh_token=ABSENT))
    process = await world.process(wait_s=0)
    await world.signed_in(process)
    token = await process.login()
    with pytest.raises(TokenRefused, match=f"emailproxy authorize {ADA}"):
        await process.login(rejected="no")
    world.turned.turn(3600 - 1)
    assert await process.login() == token  # to its very end: there is nothing to renew it with


async def test_what_is_known_of_a_refusal_is_told(world: World, process: Process) -> None:
    login, text = Login(ADA, PASSWORD), "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"
    for rejected in (None, text):
        await process.broker.token(login, visit_of(), rejected)
    with pytest.raises(TokenRefused, match=r"SmtpClientAuthentication is disabled\); .*administrator"):
        await process.broker.token(login, visit_of(), text)
