"""Hooks: what is told, to whom, in which order, how often; and that nobody waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from emailproxy.config.model import Settings
from emailproxy.config.sources import FromFile, HookCommand, HookUrl
from emailproxy.demo.certificates import Authority
from emailproxy.oauth import hooks as module
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.happenings import Event, Happening
from emailproxy.oauth.hooks import MAX_AT_ONCE, MAX_FAILED_ACCOUNTS, MAX_WAITING, Hooks
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.oauth.receiver import Receiver, Told
from tests.oauth.world import Turned, until

ADA, BOB = "ada@example.org", "bob@example.org"
SECRET = "canary-hook-secret"
LINK = "http://localhost:8801/c/abc"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver.open() as receiver:
        yield receiver


@pytest.fixture
def turned() -> Turned:
    return Turned()


@asynccontextmanager
async def hooks_of(turned: Turned, **settings: Any) -> AsyncIterator[Hooks]:
    commands = Commands()
    whole = Settings(state_dir=Path("state"), log_file=Path("log"), **settings)
    hooks = Hooks(whole, commands, Secrets(commands), clock=turned.clock)
    try:
        yield hooks
    finally:
        await hooks.close()


def every(receiver: Receiver, url: str | None = None) -> dict[str, Any]:
    hook = HookUrl(url or receiver.url)
    return {f"on_{event}": hook for event in Event}


def consent(account: str = ADA, link: str = LINK) -> Happening:
    return Happening(
        Event.CONSENT_REQUIRED, account, reason=f"{account} must be signed in", link=link, url="https://login.example/?x",
        user_code="WDJB-MJHT", expires_at_s=1_800_003_600,
    )  # fmt: skip


def failed(account: str = ADA) -> Happening:
    return Happening(Event.LOGIN_FAILED, account, reason="wrong password", protocol="IMAP", address="127.0.0.1")


WHOLE = {
    "event": "consent_required",
    "account": ADA,
    "time": "2027-01-15T08:00:00Z",
    "reason": f"{ADA} must be signed in",
    "link": LINK,
    "url": "https://login.example/?x",
    "user_code": "WDJB-MJHT",
    "expires": "2027-01-15T09:00:00Z",
}


# ---- what is told


async def test_a_program_gets_the_event_on_its_standard_input(receiver: Receiver, turned: Turned) -> None:
    async with hooks_of(turned, on_consent_required=HookCommand(receiver.program)) as hooks:
        hooks.notify(consent())
        (told,) = await receiver.wait_for(1)
    assert told.fields == WHOLE


async def test_a_url_gets_the_same_by_post(receiver: Receiver, turned: Turned) -> None:
    async with hooks_of(turned, on_consent_required=HookUrl(receiver.url)) as hooks:
        hooks.notify(consent())
        (told,) = await receiver.wait_for(1)
    assert told.fields == WHOLE
    assert told.headers["Content-Type"] == "application/json"
    assert "X-Emailproxy-Signature" not in told.headers


async def test_what_is_empty_is_left_out(receiver: Receiver, turned: Turned) -> None:
    async with hooks_of(turned, **every(receiver)) as hooks:
        hooks.notify(Happening(Event.TOKEN_REFRESHED, ADA, expires_at_s=10**12))
        hooks.notify(failed(BOB))
        await receiver.wait_for(2)
    fields = {told.fields["account"]: told.fields for told in receiver.told}
    assert fields[ADA] == {
        "event": "token_refreshed", "account": ADA, "time": WHOLE["time"], "expires": "9999-12-31T00:00:00Z",
    }  # fmt: skip
    assert fields[BOB] == {
        "event": "login_failed", "account": BOB, "time": WHOLE["time"], "reason": "wrong password",
        "protocol": "IMAP", "address": "127.0.0.1",
    }  # fmt: skip


async def test_events_without_a_hook_are_nobodys_business(receiver: Receiver, turned: Turned) -> None:
    async with hooks_of(turned, on_sign_in_needed=HookUrl(receiver.url)) as hooks:
        hooks.notify(consent())
        hooks.notify(Happening(Event.SIGN_IN_NEEDED, ADA))
        await receiver.wait_for(1)
    assert [told.fields["event"] for told in receiver.told] == ["sign_in_needed"]


# ---- over the network


def signed(told: Told, secret: str) -> bool:
    return (
        told.headers["X-Emailproxy-Signature"]
        == "sha256=" + hmac.digest(secret.encode(), told.body, hashlib.sha256).hex()
    )


async def test_a_post_is_signed_over_verified_tls(tmp_path: Path, turned: Turned) -> None:
    authority = Authority.create(tmp_path)
    async with Receiver.open(authority.issue("localhost").server_context()) as receiver:
        settings = every(receiver) | {"hook_secret": Secret(SECRET), "ca_file": authority.certificate_file}
        async with hooks_of(turned, **settings) as hooks:
            hooks.notify(consent())
            (told,) = await receiver.wait_for(1)
    assert signed(told, SECRET)


async def test_the_secret_is_read_anew_for_every_event(tmp_path: Path, receiver: Receiver, turned: Turned) -> None:
    file = tmp_path / "secret"
    async with hooks_of(turned, **every(receiver), hook_secret=FromFile(file)) as hooks:
        for secret in ("first", "second"):
            file.write_text(f"{secret}\n")
            file.chmod(0o600)
            hooks.notify(consent(link=secret))
            told = (await receiver.wait_for(1))[-1]
            assert signed(told, secret)
            receiver.told.clear()


async def test_without_its_secret_nothing_is_sent(
    tmp_path: Path, receiver: Receiver, turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    async with hooks_of(turned, **every(receiver), hook_secret=FromFile(tmp_path / "none")) as hooks:
        hooks.notify(consent())
    assert receiver.told == []
    (record,) = caplog.records
    assert "hook_secret" in record.getMessage()


async def test_a_receiver_that_cannot_be_trusted_hears_nothing(
    tmp_path: Path, turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = Authority.create(tmp_path).issue("localhost")
    async with Receiver.open(certificate.server_context()) as receiver, hooks_of(turned, **every(receiver)) as hooks:
        hooks.notify(consent())
        await until(lambda: bool(caplog.records))
        assert receiver.told == []
    (record,) = caplog.records
    assert "cannot be trusted: unable to get local issuer certificate" in record.getMessage()
    assert turned.slept == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_receiver_that_is_busy_is_asked_again(receiver: Receiver, turned: Turned, status: int) -> None:
    receiver.answers.extend([status, status])
    async with hooks_of(turned, **every(receiver)) as hooks:
        hooks.notify(consent())
        await receiver.wait_for(3)
    assert [told.fields for told in receiver.told] == [WHOLE] * 3
    assert turned.slept == [1, 5]


@pytest.mark.parametrize(
    ("answers", "tries", "reason"),
    [
        ([503, 503, 503], 3, "answered HTTP 503 (3 tries)"),
        ([400], 1, "answered HTTP 400"),
        ([404], 1, "answered HTTP 404"),
        ([307], 1, "answered HTTP 307; give the URL that it leads to"),
    ],
)
async def test_a_failure_is_one_line_of_the_log_without_the_event(
    receiver: Receiver, turned: Turned, caplog: pytest.LogCaptureFixture, answers: list[int], tries: int, reason: str
) -> None:
    receiver.answers.extend(answers)
    async with hooks_of(turned, **every(receiver), hook_secret=Secret(SECRET)) as hooks:
        hooks.notify(consent())
        await until(lambda: bool(caplog.records))
    assert len(receiver.told) == tries
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"the hook on_consent_required of {ADA}: localhost:{receiver.port} {reason}"


async def test_a_receiver_that_is_not_there_is_tried_three_times(
    receiver: Receiver, turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    reserved = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = reserved.sockets[0].getsockname()[1]
    async with reserved, hooks_of(turned, **every(receiver, f"http://user:secret@127.0.0.1:{port}/x")) as hooks:
        hooks.notify(consent())
        await until(lambda: bool(caplog.records))
    assert turned.slept == [1, 5]
    (record,) = caplog.records
    assert f": 127.0.0.1:{port} cannot be reached (" in record.getMessage()


async def test_a_receiver_that_does_not_answer_is_given_up(
    receiver: Receiver, turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.gate.clear()
    async with hooks_of(turned, **every(receiver), hook_timeout=0.05) as hooks:
        hooks.notify(consent())
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert "did not answer within 0.05 s (3 tries)" in record.getMessage()


async def test_a_program_that_is_not_there_is_one_line_of_the_log(
    turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    async with hooks_of(turned, on_login_failed=HookCommand(("/nonexistent/notify",))) as hooks:
        hooks.notify(failed())
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert f"the hook on_login_failed of {ADA} cannot be run: /nonexistent/notify" in record.getMessage()


# ---- order, and how many


async def test_events_of_one_account_arrive_one_after_another(receiver: Receiver, turned: Turned) -> None:
    receiver.gate.clear()
    async with hooks_of(turned, **every(receiver)) as hooks:
        for number in range(5):
            hooks.notify(consent(ADA.upper() if number % 2 else ADA, link=str(number)))
        await receiver.wait_for(1)
        receiver.gate.set()
        await receiver.wait_for(5)
    assert [told.fields["link"] for told in receiver.told] == list("01234")
    assert receiver.most_at_once == 1


async def test_those_of_four_accounts_are_delivered_at_once(receiver: Receiver, turned: Turned) -> None:
    receiver.gate.clear()
    async with hooks_of(turned, **every(receiver)) as hooks:
        for number in range(10):
            hooks.notify(consent(f"u{number}@example.org"))
        await receiver.wait_for(MAX_AT_ONCE)
        receiver.gate.set()
        await receiver.wait_for(10)
    assert receiver.most_at_once == MAX_AT_ONCE
    assert sorted(receiver.accounts) == [f"u{number}@example.org" for number in range(10)]


async def test_too_many_drop_the_oldest_and_failed_logins_first(
    receiver: Receiver, turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.gate.clear()
    async with hooks_of(turned, **every(receiver)) as hooks:
        hooks.notify(consent(link="under way"))
        await receiver.wait_for(1)
        hooks.notify(consent(link="the oldest"))
        hooks.notify(failed(ADA))
        for number in range(MAX_WAITING):
            hooks.notify(consent(link=str(number)))
        receiver.gate.set()
        await receiver.wait_for(1 + MAX_WAITING)
    assert [told.fields.get("link") for told in receiver.told] == ["under way", *map(str, range(MAX_WAITING))]
    events = ["login_failed", "consent_required"]
    assert [record.getMessage() for record in caplog.records] == [
        f"too many events wait for hooks: the hook on_{event} of {ADA} was dropped" for event in events
    ]


async def test_the_same_sign_in_is_told_once_an_hour(receiver: Receiver, turned: Turned) -> None:
    async with hooks_of(turned, **every(receiver)) as hooks:
        for _ in range(3):
            hooks.notify(consent())
        hooks.notify(consent(BOB))
        turned.turn(3599)
        hooks.notify(consent())
        turned.turn(1)
        hooks.notify(consent())
        hooks.notify(consent(link="another"))
        await receiver.wait_for(4)
    assert sorted(receiver.accounts) == [ADA] * 3 + [BOB]


async def test_a_flood_of_failed_logins_is_told_once_a_minute_with_its_number(
    receiver: Receiver, turned: Turned
) -> None:
    async with hooks_of(turned, **every(receiver)) as hooks:
        for _ in range(50):
            hooks.notify(failed())
        turned.turn(60)
        hooks.notify(failed())
        turned.turn(60)
        hooks.notify(failed())
        await receiver.wait_for(3)
    assert [told.fields.get("count") for told in receiver.told] == [None, 50, None]


async def test_made_up_names_do_not_run_programs_without_end(receiver: Receiver, turned: Turned) -> None:
    async with hooks_of(turned, **every(receiver)) as hooks:
        for number in range(3000):
            hooks.notify(failed(f"u{number}@example.org"))
        await receiver.wait_for(MAX_FAILED_ACCOUNTS)
        turned.turn(60)
        hooks.notify(failed("late@example.org"))
        await receiver.wait_for(MAX_FAILED_ACCOUNTS + 1)
    assert len(receiver.told) == MAX_FAILED_ACCOUNTS + 1


# ---- nobody waits for it


async def test_to_take_note_is_quick_and_never_fails(
    receiver: Receiver, turned: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    async with hooks_of(turned, **every(receiver)) as hooks:
        await asyncio.to_thread(hooks.notify, consent())  # where no loop runs
        assert "fault of emailproxy's own" in caplog.text
        assert receiver.told == []


async def test_at_the_end_what_waits_is_delivered_still(receiver: Receiver, turned: Turned) -> None:
    receiver.gate.clear()
    async with hooks_of(turned, **every(receiver)) as hooks:
        for number in range(3):
            hooks.notify(consent(link=str(number)))
        await receiver.wait_for(1)
        closing = asyncio.ensure_future(hooks.close())
        receiver.gate.set()
        await closing
        hooks.notify(consent(link="too late"))
    assert [told.fields["link"] for told in receiver.told] == list("012")


async def test_at_the_end_what_takes_too_long_is_stopped(
    receiver: Receiver, turned: Turned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LAST_S", 0.05)
    receiver.gate.clear()
    async with hooks_of(turned, on_consent_required=HookCommand(receiver.program)) as hooks:
        hooks.notify(consent())
        hooks.notify(consent(link="waits"))
        await receiver.wait_for(1)
        await hooks.close()
        assert hooks._under_way == {}
    assert "2 hooks did not end in time" in caplog.text
    assert len(receiver.told) == 1
