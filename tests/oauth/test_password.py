"""The password grant: the mailbox's own password is the local one, and the provider says which is right."""

from __future__ import annotations

import asyncio

import pytest

from emailproxy.config.model import DAYS
from emailproxy.errors import ProviderRefused, ProviderUnavailable, TokenRefused, TooManyLogins, WrongPassword
from emailproxy.oauth import keeper, offers
from emailproxy.oauth.flow import Approval
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.lulls import LULL_S
from emailproxy.oauth.throttle import PER_LOGIN
from emailproxy.secret import Secret
from emailproxy.store.base import Record
from emailproxy.wire.events import Login
from tests.oauth.steady import Steady, stored, turned
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, no_space, settled, visit_of

NEW = Secret("canary-new-password")
LIFE_S = 3600


@pytest.fixture
def provider(world: World) -> Steady:
    world.account()
    return Steady(world.turned, life_s=LIFE_S, approval=Approval.PASSWORD)


@pytest.fixture
async def process(world: World, provider: Steady) -> Process:
    return await world.process(keeps=True, listens=False, flow=provider)


# ---- the first one


async def test_the_password_that_provider_and_mail_server_take_becomes_the_slot(
    world: World, process: Process, provider: Steady
) -> None:
    login, visit = Login(ADA, PASSWORD), visit_of()
    credential = await process.broker.token(login, visit)
    assert world.files() == {}
    assert await process.broker.token(login, visit) == credential  # the draft
    await process.broker.accepted(login, visit)
    assert len((await stored(process)).lockbox.slots) == 1
    assert await process.login() == credential.token.reveal()
    assert await (await world.process(listens=False, flow=provider)).login() == credential.token.reveal()
    assert provider.calls == 1


@pytest.mark.parametrize("changed", [False, True])
async def test_a_login_that_another_one_settles_beside_it_offers_nothing_anew(
    process: Process, provider: Steady, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    if changed:
        await process.login()
        provider.password = NEW
    login, visit, asked = Login(ADA, provider.password), visit_of(), provider.calls
    credential = await process.broker.token(login, visit)
    load = process.records.load

    async def overtaken(account: str) -> Record | None:
        monkeypatch.undo()
        record = await load(account)
        await process.broker.accepted(login, visit)
        return record

    monkeypatch.setattr(process.records, "load", overtaken)
    assert await process.broker.token(login, visit_of("s2")) == credential
    assert provider.calls == asked + 1


async def test_one_that_the_provider_refuses_is_wrong_and_nothing_else(
    world: World, process: Process, provider: Steady
) -> None:
    for _ in range(3):
        with pytest.raises(WrongPassword, match=r"the provider does not take this password for .*invalid_grant") as it:
            await process.login(password=WRONG)
    assert "canary" not in str(it.value)
    assert provider.calls == 1  # for a minute it is not offered again
    assert world.files() == {}
    world.turned.turn(offers.AGAIN_S)
    provider.password = WRONG  # it was right after all
    await process.login(password=WRONG)
    assert provider.calls == 2


async def test_a_draft_is_one_passwords_and_no_others(world: World, process: Process, provider: Steady) -> None:
    await process.broker.token(Login(ADA, PASSWORD), visit_of("a"))
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)
    await process.broker.accepted(Login(ADA, WRONG), visit_of("b"))
    assert world.files() == {}


async def test_guesses_are_throttled_before_the_provider_hears_of_them(
    world: World, process: Process, provider: Steady
) -> None:
    guesses = (process.login(password=Secret(f"guess {number}")) for number in range(40))
    kinds = [type(result) for result in await asyncio.gather(*guesses, return_exceptions=True)]
    assert kinds.count(WrongPassword) <= PER_LOGIN.free
    assert kinds.count(TooManyLogins) == 40 - kinds.count(WrongPassword)
    assert provider.calls == kinds.count(WrongPassword)
    with pytest.raises(TooManyLogins):
        await process.login()
    world.turned.turn(PER_LOGIN.longest_s)
    await process.login()


async def test_a_provider_that_is_down_counts_no_password_as_wrong(
    world: World, process: Process, provider: Steady
) -> None:
    for _ in range(PER_LOGIN.free + 5):
        provider.faults = [ProviderUnavailable("busy")]
        with pytest.raises(ProviderUnavailable):
            await process.login()
        world.turned.turn(LULL_S)
    provider.faults = [ProviderRefused("invalid_client: wrong secret", code="invalid_client")]
    with pytest.raises(ProviderRefused, match="invalid_client"):
        await process.login()
    await process.login()


async def test_ten_first_logins_cost_one_request_and_one_slot(process: Process, provider: Steady) -> None:
    tokens = await asyncio.gather(*(process.login(session=f"s{number}") for number in range(10)))
    assert len(set(tokens)) == provider.calls == 1
    assert len((await stored(process)).lockbox.slots) == 1


async def test_a_port_that_is_not_on_loopback_sets_no_first_password(
    world: World, process: Process, provider: Steady
) -> None:
    with pytest.raises(WrongPassword, match=f"emailproxy authorize {ADA}"):
        await process.login(may_set=False)
    assert provider.calls == 0
    await process.broker.token(Login(ADA, PASSWORD), visit_of("here"))  # a draft, by another port
    await process.broker.accepted(Login(ADA, PASSWORD), visit_of("there", may_set=False))
    assert world.files() == {}


async def test_the_command_line_signs_in(world: World, process: Process, provider: Steady) -> None:
    with pytest.raises(WrongPassword):
        await process.broker.sign_in(ADA, WRONG)
    assert await process.broker.sign_in(ADA, PASSWORD) is None
    await process.login(may_set=False)
    provider.password = NEW
    assert await process.broker.sign_in(ADA, NEW) is None
    with pytest.raises(WrongPassword):
        await process.login(may_set=False)
    await process.login(password=NEW, may_set=False)


# ---- one that was changed at the provider


async def test_a_changed_password_replaces_the_record_once_the_mail_server_took_it(
    world: World, process: Process, provider: Steady
) -> None:
    await process.login()
    before = await stored(process)
    provider.password = NEW
    login, visit = Login(ADA, NEW), visit_of()
    await process.broker.token(login, visit)
    assert (await stored(process)) == before
    await process.broker.accepted(login, visit)
    after = await stored(process)
    assert after.lockbox.public_key != before.lockbox.public_key
    assert len(after.lockbox.slots) == 1
    assert after.generation == before.generation + 1
    for each in (process, await world.process(listens=False, flow=provider)):
        assert await each.login(password=NEW) == f"access-{ADA}-2"
        with pytest.raises(WrongPassword):
            await each.login()


async def test_a_wrong_password_of_a_known_account_is_counted_once(process: Process, provider: Steady) -> None:
    await process.login()
    for number in range(PER_LOGIN.free):
        with pytest.raises(WrongPassword):
            await process.login(password=Secret(f"guess {number}"))
    with pytest.raises(TooManyLogins):
        await process.login(password=WRONG)
    assert provider.calls == 1 + PER_LOGIN.free
    await process.login()  # the owner's warm login goes on


async def test_a_new_password_that_cannot_be_stored_leaves_the_old_record(
    process: Process, provider: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.login()
    before = await stored(process)
    provider.password = NEW
    with monkeypatch.context() as patch:
        patch.setattr("emailproxy.store.files.os.replace", no_space)
        with pytest.raises(Exception, match="No space left"):
            await process.login(password=NEW)
    assert await stored(process) == before
    await process.login(password=NEW)
    assert provider.calls == 2


# ---- renewing


async def test_it_is_refreshed_by_its_refresh_token_ahead(world: World, process: Process, provider: Steady) -> None:
    await process.login()
    provider.password = NEW  # nobody asks for it
    await turned(world, process, LIFE_S - MARGIN_S)
    assert await process.login() == f"access-{ADA}-2"


async def test_without_a_refresh_token_the_logins_own_password_renews(
    world: World, process: Process, provider: Steady
) -> None:
    provider.refreshable = False
    await process.login()
    await turned(world, process, LIFE_S - MARGIN_S)
    assert provider.calls == 1  # the keeper has no password
    assert await process.login() == f"access-{ADA}-2"
    world.turned.turn(10 * DAYS)
    assert await process.login() == f"access-{ADA}-3"


@pytest.mark.parametrize("by_keeper", [True, False])
async def test_a_refused_refresh_token_is_replaced_by_the_logins_own_password(
    world: World, process: Process, provider: Steady, by_keeper: bool
) -> None:
    await process.login()
    provider.revoke(ADA)
    world.turned.turn(LIFE_S - MARGIN_S if by_keeper else LIFE_S)
    if by_keeper:
        await process.kept()
        assert "not known any more" in (await stored(process)).last_error
        await turned(world, process, MARGIN_S / 2)
        assert provider.calls == 2  # once, and then it is the login's business
        assert "not known any more" in (await stored(process)).last_error
    tokens = await asyncio.gather(*(process.login(session=f"s{number}") for number in range(3)))
    assert set(tokens) == {f"access-{ADA}-2"}
    assert provider.calls == 3
    record = await stored(process)
    assert not record.needs_sign_in
    assert record.last_error == ""
    await turned(world, process, LIFE_S)
    assert await process.login() == f"access-{ADA}-3"  # and the keeper is back


async def test_a_login_that_joins_a_renewal_without_a_password_tries_its_own(
    world: World, process: Process, provider: Steady
) -> None:
    await process.login()
    provider.revoke(ADA)
    provider.gate = asyncio.Event()
    world.turned.turn(LIFE_S)  # the keeper asks, and the token is dead
    while not provider.busy:
        await asyncio.sleep(0)
    login = asyncio.create_task(process.login())
    await settled()
    provider.gate.set()
    assert await login == f"access-{ADA}-2"
    assert provider.calls == 3


async def test_when_neither_is_taken_the_login_says_so_and_all_is_kept(
    world: World, process: Process, provider: Steady
) -> None:
    await process.login()
    before = await stored(process)
    provider.revoke(ADA)
    provider.password = NEW
    await turned(world, process, LIFE_S - keeper.LOOK_EVERY_S)
    for _ in range(3):
        with pytest.raises(WrongPassword, match="the provider does not take this password for"):
            await process.login()
    assert provider.calls == 3
    after = await stored(process)
    assert after.sealed == before.sealed
    assert not after.needs_sign_in
    assert "does not take this password" in after.last_error
    await process.login(password=NEW)
    assert (await stored(process)).last_error == ""
    with pytest.raises(WrongPassword):
        await process.login()


async def test_a_live_token_is_not_given_to_a_password_that_is_not_taken_any_more(
    world: World, process: Process, provider: Steady
) -> None:
    await process.login()
    login = Login(ADA, PASSWORD)
    await process.broker.token(login, visit_of())
    provider.revoke(ADA)
    provider.password = NEW
    for rejected in ("no", None, None):
        with pytest.raises(WrongPassword):
            await process.broker.token(login, visit_of(), rejected)


async def test_a_mail_server_that_refuses_the_token_gets_one_more(
    world: World, process: Process, provider: Steady
) -> None:
    login = Login(ADA, PASSWORD)
    first = await process.broker.token(login, visit_of())
    second = await process.broker.token(login, visit_of(), "no")
    assert second != first
    with pytest.raises(TokenRefused):
        await process.broker.token(login, visit_of(), "no")
    assert world.files() == {}
