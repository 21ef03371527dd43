"""Signing in with a device code (RFC 8628), against a small honest provider, on a clock that the tests turn."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator

import pytest

from emailproxy.config.model import FlowName
from emailproxy.errors import AccountUnusable, ConsentRequired, ProviderRefused, ProviderUnavailable, WrongPassword
from emailproxy.oauth.happenings import Event
from emailproxy.secret import Secret
from tests.fakes.device import Desk
from tests.oauth.world import ADA, PASSWORD, WRONG, Process, World, no_space, until

GRANTED = ["authorization_pending", "granted"]


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    """The provider that Ada's account is configured for."""
    async with Desk(lambda: world.turned.wall, world.provider.access_token) as desk:
        configured(world, desk)
        yield desk


def configured(world: World, desk: Desk, **changes: object) -> None:
    settings = {
        "flow": FlowName.DEVICE,
        "token_url": f"{desk.url}/token",
        "permission_url": f"{desk.url}/device",
        "client_secret": None,
    }
    world.account(**{**settings, **changes})


async def begun(*processes: Process) -> None:
    """Until each of them asks for a code."""
    await until(lambda: all(len(process.consents._poller._loops) == 1 for process in processes))


async def settled(world: World, *processes: Process) -> None:
    """Until every loop waits for the clock."""

    def waits() -> bool:
        loops = sum(len(process.consents._poller._loops) for process in processes)
        return not any(event.is_set() for event in world.turned.alarms) and len(world.turned.alarms) == loops

    await until(waits)


async def passes(world: World, seconds: int, *processes: Process) -> None:
    for _ in range(seconds):
        await settled(world, *processes)
        world.turned.turn(1)
        await settled(world, *processes)


async def needs_code(process: Process, password: Secret = PASSWORD) -> ConsentRequired:
    with pytest.raises(ConsentRequired) as caught:
        await process.login(password=password)
    return caught.value


def since(world: World, desk: Desk) -> list[float]:
    """Seconds from the code to each poll."""
    begun_s = desk.code.expires_at_s - desk.life_s
    return [at_s - begun_s for at_s, _ in desk.polls]


async def test_a_login_waits_for_the_person_and_goes_on(
    world: World, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    process = await world.process()
    login = asyncio.create_task(process.login())
    await begun(process)
    page, code = f"{desk.url}/activate", desk.code.user_code
    assert caplog.messages[-2:] == [
        f"Please visit the following URL to authenticate account {ADA}: {page}?user_code={code}",
        f"Visit {page} and use code {code} to authenticate account {ADA}",
    ]
    await passes(world, 5, process)
    assert not login.done()
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    world.provider.verify(await login)
    assert desk.answers == GRANTED
    assert f"account {ADA} is signed in as {ADA}" in caplog.messages
    assert [name for name in world.files() if name.startswith("pending/")] == []
    record = await process.records.load(ADA)
    assert record is not None
    assert record.sealed.keys() == {"access_token", "refresh_token"}
    assert process.listener._listening == {}  # nothing redirects here


async def test_who_does_not_wait_long_enough_is_told_what_to_do(world: World, desk: Desk) -> None:
    process = await world.process(wait_s=0)
    required = await needs_code(process)
    assert f"open {desk.url}/activate and enter the code {desk.code.user_code}" in str(required)
    assert (required.link, required.url) == (
        f"{desk.url}/activate",
        f"{desk.url}/activate?user_code={desk.code.user_code}",
    )
    again = await needs_code(process)
    assert str(again) == str(required)
    assert len(desk.codes) == 1
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    world.provider.verify(await process.login())
    assert desk.answers == ["granted"]


async def test_a_code_without_a_complete_page_leads_to_the_plain_one(world: World, desk: Desk) -> None:
    desk.complete = False
    required = await needs_code(await world.process(wait_s=0))
    assert required.url == required.link == f"{desk.url}/activate"


async def test_hooks_are_told_once(world: World, desk: Desk) -> None:
    process = await world.process(wait_s=0)
    await needs_code(process)
    await needs_code(process)
    [told] = [one for one in process.told if one.event is Event.CONSENT_REQUIRED]
    assert (told.account, told.link, told.user_code) == (ADA, f"{desk.url}/activate", desk.code.user_code)
    assert told.url == f"{desk.url}/activate?user_code={desk.code.user_code}"
    assert told.expires_at_s == desk.code.expires_at_s
    assert f"enter the code {desk.code.user_code}" in told.reason


# ---- when it asks (RFC 8628 section 3.5)

TIMES: dict[str, tuple[list[str], list[float]]] = {
    "pending": ([], [5, 10, 15, 20]),
    "slow_down counts for good": (["slow_down"], [5, 15, 25, 35]),
    "and each of them": (["slow_down", "authorization_pending", "slow_down"], [5, 15, 25, 40]),
    "no answer": (["reset", "503", "reset"], [5, 15, 35, 75]),
    "no answer for long": (["reset"] * 5, [5, 15, 35, 75, 135, 195]),
    "an answer again": (["reset", "503"], [5, 15, 35, 40, 45]),
    "no answer after slow_down": (["slow_down", "reset", "authorization_pending"], [5, 15, 35, 45]),
    "Retry-After": (["429"], [5, 125, 130]),
}


@pytest.mark.parametrize("name", TIMES)
async def test_it_asks_no_more_often_than_it_may(world: World, desk: Desk, name: str) -> None:
    faults, times = TIMES[name]
    desk.faults.extend(faults)
    process = await world.process(wait_s=0)
    await needs_code(process)
    await passes(world, int(times[-1]), process)
    assert since(world, desk) == times
    desk.code.approved_by = ADA
    await passes(world, 60, process)
    world.provider.verify(await process.login())


# ---- how it ends


async def test_a_code_that_nobody_enters_ends_and_the_next_login_gets_a_new_one(world: World, desk: Desk) -> None:
    desk.life_s = 30
    process = await world.process()
    login = asyncio.create_task(process.login())
    await begun(process)
    await passes(world, 30, process)
    with pytest.raises(ConsentRequired, match=f"nobody signed {ADA} in before the code ended"):
        await login
    assert since(world, desk) == [5, 10, 15, 20, 25]
    assert process.consents._poller._loops == {}
    again = asyncio.create_task(process.login())
    await begun(process)
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    world.provider.verify(await again)


ENDS = [
    ("access_denied", ConsentRequired, "was declined"),
    ("authorization_declined", ConsentRequired, "was declined"),
    ("expired_token", ConsentRequired, "before the code ended"),
    ("code_expired", ConsentRequired, "before the code ended"),
    ("invalid_client", ProviderRefused, "invalid_client"),
]


@pytest.mark.parametrize(("answer", "kind", "words"), ENDS)
async def test_a_refusal_ends_it_with_its_reason(
    world: World, desk: Desk, answer: str, kind: type[Exception], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = await world.process()
    login = asyncio.create_task(process.login())
    await begun(process)
    desk.faults.append(answer)
    await passes(world, 5, process)
    with pytest.raises(kind, match=words):
        await login
    assert any(message.startswith(f"the sign-in of {ADA} failed: ") for message in caplog.messages)
    assert process.consents._poller._loops == {}
    assert world.files() == {}
    again = asyncio.create_task(process.login())
    await begun(process)
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    world.provider.verify(await again)


async def test_where_there_are_no_codes_nothing_begins(world: World, desk: Desk) -> None:
    world.turned.turn(1)
    configured(world, desk, permission_url=f"{desk.url}/nowhere")
    process = await world.process(wait_s=0)
    with pytest.raises(ProviderUnavailable):
        await process.login()
    configured(world, desk, client_id="")
    with pytest.raises(ProviderRefused, match="invalid_client"):
        await process.login()
    assert world.files() == {}
    assert process.told == []


async def test_tokens_that_cannot_be_stored_are_told(world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await world.process()
    login = asyncio.create_task(process.login())
    await begun(process)
    desk.code.approved_by = ADA
    with monkeypatch.context() as patch:
        patch.setattr("emailproxy.store.files.os.replace", no_space)
        await passes(world, 5, process)
        with pytest.raises(AccountUnusable, match="No space left"):
            await login
    assert [name for name in world.files() if name.startswith("accounts/")] == []
    await needs_code(await world.process(wait_s=0))


# ---- several processes


async def test_a_restart_takes_the_code_up_again(world: World, desk: Desk) -> None:
    before = await world.process(wait_s=0)
    first = await needs_code(before)
    await before.broker.close()
    assert before.consents._poller._loops == {}
    after = await world.process(wait_s=0)
    await after.broker.resume()
    with pytest.raises(WrongPassword):
        await after.login(password=WRONG)
    assert after.consents._poller._loops == {}  # nobody has given the password yet
    assert str(await needs_code(after)) == str(first)
    desk.code.approved_by = ADA
    await passes(world, 5, after)
    world.provider.verify(await after.login())
    assert len(desk.codes) == 1
    assert [one.event for one in after.told if one.event is Event.CONSENT_REQUIRED] == []


async def test_of_two_processes_that_ask_for_one_code_one_gets_the_tokens(
    world: World, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    processes = [await world.process(), await world.process()]
    logins = [asyncio.create_task(process.login()) for process in processes]
    await begun(*processes)
    await passes(world, 20, *processes)
    desk.code.approved_by = ADA
    await passes(world, 20, *processes)
    tokens = await asyncio.gather(*logins)
    assert len(set(tokens)) == 1
    assert desk.answers.count("granted") == 1
    assert "invalid_grant" not in desk.answers
    assert len(desk.codes) == 1
    assert [message for message in caplog.messages if "failed" in message] == []
    record = await processes[0].records.load(ADA)
    assert record is not None
    assert record.generation == 1


async def test_a_grant_on_its_way_to_one_process_is_not_taken_for_a_refusal_by_the_other(
    world: World, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await world.process(wait_s=0), await world.process(wait_s=0)
    await needs_code(first)
    await passes(world, 3, first)
    await needs_code(second)
    desk.code.approved_by = ADA
    desk.hold = asyncio.Event()
    await settled(world, first, second)
    world.turned.turn(2)
    await until(lambda: desk.answers == ["granted"])
    world.turned.turn(3)  # the second's turn; it comes when the first has stored what it was granted
    await until(lambda: any(lock.locked() for lock in second.records._locks._tasks.values()))
    assert len(await first.pending.waiting()) == 1
    desk.hold.set()
    await settled(world, first, second)
    assert desk.answers == ["granted"]
    assert (first.consents._poller._loops, second.consents._poller._loops) == ({}, {})
    world.provider.verify(await second.login())
    assert [message for message in caplog.messages if "failed" in message] == []


async def test_an_account_that_is_removed_meanwhile_stays_removed(world: World, desk: Desk) -> None:
    process = await world.process(wait_s=0)
    await needs_code(process)
    await process.pending.discard(ADA)
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    assert (desk.polls, world.files()) == ([], {})
    assert process.consents._poller._loops == {}


async def test_a_changed_configuration_asks_anew(world: World, desk: Desk) -> None:
    process = await world.process(wait_s=0)
    await needs_code(process)
    configured(world, desk, scope="mail more")
    await needs_code(process)
    assert len(desk.codes) == 2
    assert len(await process.pending.waiting()) == 1
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    world.provider.verify(await process.login())
    assert desk.answers == ["granted"]  # nobody asks for the first code any more
    world.account()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert waiting.user_code == ""


async def test_a_code_is_for_a_browser_anywhere_but_for_no_redirect(world: World, desk: Desk) -> None:
    process = await world.process()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert await process.consents.finish(waiting.state, Secret("a-code")) is None
    assert not await waiting.wait(0)
    desk.code.approved_by = ADA
    await passes(world, 5, process)
    assert await waiting.wait()
    assert waiting.who() == (ADA,)


async def test_a_process_that_ends_waits_for_no_person(world: World, desk: Desk) -> None:
    process = await world.process(wait_s=0)
    await needs_code(process)
    async with asyncio.timeout(10):
        await process.broker.close()
    assert [task for task in asyncio.all_tasks() if "_follow" in repr(task)] == []


async def test_the_device_code_is_nowhere_in_the_clear(
    world: World, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    await needs_code(await world.process(wait_s=0))
    [device_code] = desk.codes
    [name] = [name for name in world.files() if name.startswith("pending/")]
    data = world.files()[name]
    assert device_code.encode() not in data
    assert base64.b64encode(device_code.encode())[:20] not in data
    assert device_code not in caplog.text
    assert (world.folder / name).stat().st_mode & 0o777 == 0o600
