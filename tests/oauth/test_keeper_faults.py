"""Renewals ahead that fail: for a while, for good, or as the account was changed elsewhere."""

from __future__ import annotations

from itertools import pairwise

import pytest

from emailproxy.config.model import DAYS, MINUTES
from emailproxy.errors import AccountUnusable, ConsentRequired, ProviderRefused, ProviderUnavailable
from emailproxy.oauth import holdings, keeper, wallet
from emailproxy.oauth.happenings import Event
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.wire.lines import MAX_REPLY, fit
from tests.oauth.steady import Steady, stored, turned, unlocked
from tests.oauth.world import ADA, World, no_space


@pytest.fixture
def provider(world: World) -> Steady:
    return Steady(world.turned)


# ---- when it fails


async def test_a_fault_is_noted_and_waited_out_longer_each_time(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider, refresh_margin_s=30 * MINUTES)
    provider.faults = [ProviderUnavailable(f"the provider is down (number {number})") for number in range(4)]
    asked_at_s: list[float] = []
    while len(asked_at_s) < 5:
        before = provider.calls
        await turned(world, process, 1)
        if provider.calls > before:
            asked_at_s.append(world.turned.monotonic)
            error = (await stored(process)).last_error
            assert error == (f"the provider is down (number {provider.calls - 1})" if provider.calls < 5 else "")
            assert (await process.login()).endswith("-1" if provider.calls < 5 else "-2")
    pauses = [later - earlier for earlier, later in pairwise(asked_at_s)]
    for number, pause_s in enumerate(pauses):
        doubled_s = wallet.FIRST_PAUSE_S * 2**number
        assert 0.75 * doubled_s <= pause_s <= 1.25 * (1 + keeper.LATER) * doubled_s + 1


def test_pauses_end_at_a_quarter_of_an_hour_or_of_the_tokens_life() -> None:
    assert wallet.pause_s(10**6, 0) <= wallet.LONGEST_PAUSE_S * 1.25
    assert wallet.pause_s(10**6, -5) >= wallet.LONGEST_PAUSE_S * 0.75
    assert wallet.pause_s(10**6, 40) <= 12.5
    assert wallet.pause_s(1, 0.1) >= 0.75 * wallet.SHORTEST_PAUSE_S


async def test_what_the_provider_asks_for_is_heeded(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.faults = [ProviderUnavailable("busy", retry_after_s=500)]
    await turned(world, process, 3600 - MARGIN_S)
    assert provider.calls == 1
    await turned(world, process, 499)
    assert provider.calls == 1
    assert await process.login() == f"access-{ADA}-1"
    await turned(world, process, 500 * keeper.LATER + 1)
    assert provider.calls == 2


async def test_a_dead_token_is_asked_for_by_a_login_whatever_the_keepers_pause(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.faults = [ProviderUnavailable("busy")] * 100
    await turned(world, process, 3600 - MARGIN_S)
    for _ in range(100):
        await turned(world, process, 60)
    provider.faults.clear()
    assert await process.login() == f"access-{ADA}-2"


async def test_a_fault_of_ours_ends_nothing(world: World, provider: Steady, caplog: pytest.LogCaptureFixture) -> None:
    process = await unlocked(world, provider)
    provider.faults = [ZeroDivisionError("a fault")]  # type: ignore[list-item]
    await turned(world, process, 3600 - MARGIN_S)
    assert "a fault of emailproxy" in caplog.text
    await turned(world, process, wallet.FIRST_PAUSE_S / 2)
    assert provider.calls == 1
    await turned(world, process, wallet.FIRST_PAUSE_S)
    assert await process.login() == f"access-{ADA}-2"


async def test_a_secret_that_cannot_be_read_is_noted_and_tried_again(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.faults = [AccountUnusable("client_secret_file /run/secret cannot be read")]
    await turned(world, process, 3600 - MARGIN_S)
    assert (await stored(process)).last_error == "client_secret_file /run/secret cannot be read"
    assert await process.login() == f"access-{ADA}-1"
    await turned(world, process, wallet.FIRST_PAUSE_S * 1.5)
    assert await process.login() == f"access-{ADA}-2"


async def test_a_full_disk_is_tried_again_with_no_login(
    world: World, provider: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await unlocked(world, provider)
    with monkeypatch.context() as patch:
        patch.setattr("emailproxy.store.files.os.replace", no_space)
        await turned(world, process, 3600 - MARGIN_S)
        assert provider.calls == 1
        await turned(world, process, holdings.SAVE_AGAIN_S)
    assert (await stored(process)).generation == 1
    await turned(world, process, holdings.SAVE_AGAIN_S)
    assert (await stored(process)).generation == 2
    assert provider.calls == 1
    assert await (await world.process(listens=False, flow=provider)).login() == f"access-{ADA}-2"


async def test_who_must_sign_in_is_told_once_and_loses_nothing(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    before = await stored(process)
    provider.revoke(ADA)
    await turned(world, process, 3600 - MARGIN_S)
    for _ in range(3):
        await turned(world, process, 1 * DAYS)
    assert provider.calls == 1
    after = await stored(process)
    assert after.needs_sign_in
    assert after.sealed == before.sealed
    assert "not known any more" in after.last_error
    assert [(told.event, told.account) for told in process.told] == [(Event.SIGN_IN_NEEDED, ADA)]
    assert "not known any more" in process.told[0].reason
    with pytest.raises(ConsentRequired, match=r"/c/\S+ in a browser, then try again \(invalid_grant: not known any"):
        await process.login()
    assert [told.event for told in process.told] == [Event.SIGN_IN_NEEDED, Event.CONSENT_REQUIRED]


async def test_the_reason_is_cut_so_that_the_link_fits(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.faults = [ProviderRefused("AADSTS50173: " + "é" * 1000, code="invalid_grant")]
    await turned(world, process, 3600 - MARGIN_S)
    with pytest.raises(ConsentRequired, match=r"then try again \(AADSTS50173: é+") as caught:
        await process.login()
    assert len(fit(b"a" * 64 + b" NO [UNAVAILABLE] ", str(caught.value))) < MAX_REPLY
    assert caught.value.link in str(caught.value)


# ---- accounts that change elsewhere


@pytest.mark.parametrize("change", ["removed", "set up anew", "not configured"])
async def test_an_account_that_is_not_ours_any_more_is_dropped(world: World, provider: Steady, change: str) -> None:
    process = await unlocked(world, provider)
    other = await world.process(listens=False, flow=provider)
    if change == "not configured":
        del world.accounts[ADA]
    else:
        await other.records.remove(ADA)
    if change == "set up anew":
        await provider.set_up(world, other, ADA)
    before = world.files()
    await turned(world, process, 1 * DAYS)
    assert provider.calls == 0
    assert process.broker._keeper._kept == {}
    assert process.broker._holdings.get(ADA) is None
    assert world.files() == before


async def test_a_sign_in_elsewhere_brings_the_account_back(world: World, provider: Steady) -> None:
    process = await unlocked(world, provider)
    provider.revoke(ADA)
    await turned(world, process, 3600 - MARGIN_S)
    await provider.signed_in_again(await world.process(listens=False, flow=provider), ADA)
    assert await process.login() == f"access-{ADA}-2"
    await turned(world, process, 3600 - MARGIN_S)
    assert await process.login() == f"access-{ADA}-3"
