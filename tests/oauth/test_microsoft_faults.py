"""What Microsoft's faults cost: one clear error each, nothing lost, and nothing said that is secret."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from emailproxy.config.model import FlowName
from emailproxy.errors import ProviderRefused, ProviderUnavailable
from emailproxy.oauth.attempts import MAX_ATTEMPTS
from emailproxy.oauth.flow import DeviceAuthorization, TokenSet
from emailproxy.oauth.microsoft import DeviceCode
from emailproxy.oauth.replies import Unreadable
from emailproxy.secret import Secret
from tests.fakes.microsoft import DEVICE, DISCOVERY
from tests.fakes.provider import (
    Fault,
    Hang,
    Reply,
    Reset,
    altered,
    deep_json,
    garbage,
    html_page,
    huge,
    refusal,
    split_token,
    throttled,
    unavailable,
)
from tests.oauth.tenancy import PUBLIC_APP, Tenancy
from tests.oauth.world import ADA, CLIENT_SECRET

BUSY: dict[str, tuple[Fault, str]] = {
    "503": (unavailable(), "is busy or down (HTTP 503)"),
    "an HTML error page": (html_page(502), "is busy or down (HTTP 502)"),
    "a reset connection": (Reset(), "cannot be reached"),
}
UNREADABLE: dict[str, tuple[Fault, str]] = {
    "an HTML page": (html_page(), "HTTP 200"),
    "garbage": (garbage(), "HTTP 200"),
    "10 MiB": (huge(), "more than 64 KiB"),
    "deep JSON": (deep_json(), "HTTP 200"),
    "no JSON object": (Reply(200, "[]"), "HTTP 200"),
    "an empty reply": (Reply(200), "HTTP 200"),
    "a redirect": (Reply(302, "", {"Location": "https://login.microsoftonline.com/"}), "HTTP 302"),
    "an error that is no text": (Reply(400, '{"error": {"code": 1}}'), "HTTP 400"),
}
FAULTY_TOKENS: dict[str, Fault] = {
    "expires_in of x": altered(expires_in="x"),
    "expires_in of -1": altered(expires_in=-1),
    "a number as access token": altered(access_token=12345),
    "CR and LF in the access token": split_token(),
    "another kind of token": altered(token_type="mac"),
}


@pytest.fixture
async def tenancy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tenancy]:
    async with Tenancy.at(tmp_path, monkeypatch) as tenancy:
        yield tenancy


def tries(tenancy: Tenancy, endpoint: str = "token") -> int:
    return tenancy.microsoft.endpoints().count(endpoint)


# ---- at the token endpoint


@pytest.mark.parametrize("name", BUSY)
async def test_a_busy_provider_is_asked_again(tenancy: Tenancy, name: str) -> None:
    fault, said = BUSY[name]
    tenancy.microsoft.next(*[fault] * MAX_ATTEMPTS)
    with pytest.raises(ProviderUnavailable) as caught:
        await tenancy.acquire(tenancy.application())
    assert said in str(caught.value)
    assert tries(tenancy) == MAX_ATTEMPTS
    tenancy.microsoft.next(fault)
    await tenancy.acquire(tenancy.application())


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_answer_without_sense_is_one_clear_error(tenancy: Tenancy, name: str) -> None:
    fault, said = UNREADABLE[name]
    tenancy.microsoft.next(fault)
    with pytest.raises(Unreadable) as caught:
        await tenancy.acquire(tenancy.application())
    for words in (said, "the provider at login.microsoftonline.com sent", "tokens are kept"):
        assert words in str(caught.value)
    assert tries(tenancy) == 1
    await tenancy.acquire(tenancy.application())


@pytest.mark.parametrize("name", FAULTY_TOKENS)
async def test_tokens_are_checked(tenancy: Tenancy, name: str) -> None:
    tenancy.microsoft.next(FAULTY_TOKENS[name])
    with pytest.raises(Unreadable):
        await tenancy.acquire(tenancy.application())


async def test_the_21vianet_cloud_says_times_as_text(tenancy: Tenancy) -> None:
    tenancy.microsoft.next(altered(expires_in="3600"))
    assert (await tenancy.acquire(tenancy.application())).expires_at_s == tenancy.turned.wall + 3600


async def test_a_damaged_id_token_costs_nobody_the_tokens_beside_it(tenancy: Tenancy) -> None:
    tenancy.microsoft.next(altered(id_token="no.jwt", client_info="?"))
    account = tenancy.account(FlowName.AUTHORIZATION_CODE)
    tokens = await tenancy.acquire(account, tenancy.consent(PUBLIC_APP))
    assert tokens.refresh_token
    assert tokens.identities == (ADA,)


async def test_retry_after_is_heeded_by_every_account_of_the_client(tenancy: Tenancy) -> None:
    tenancy.microsoft.next(throttled("60"))
    for said in ("HTTP 429", "asked us to wait", "asked us to wait"):
        with pytest.raises(ProviderUnavailable, match=said) as caught:
            await tenancy.acquire(tenancy.application())
        assert caught.value.retry_after_s == 60
    assert tries(tenancy) == 1
    tenancy.turned.turn(60)
    await tenancy.acquire(tenancy.application())


async def test_what_is_mended_works_at_once(tenancy: Tenancy) -> None:
    """msal by itself would repeat an error for a minute, with no request sent."""
    account = tenancy.account(FlowName.AUTHORIZATION_CODE)
    tokens = await tenancy.acquire(account, tenancy.consent(PUBLIC_APP))
    tenancy.microsoft.next(refusal("invalid_grant", "AADSTS50076: Due to a configuration change, use MFA."))
    with pytest.raises(ProviderRefused, match="AADSTS50076"):
        await tenancy.refresh(account, tokens)
    await tenancy.refresh(account, tokens)


@pytest.mark.parametrize("fault", [unavailable(), Reset(), throttled("1"), garbage()], ids=repr)
async def test_a_code_is_never_sent_twice(tenancy: Tenancy, fault: Fault) -> None:
    tenancy.microsoft.next(*[fault] * 4)
    with pytest.raises(ProviderUnavailable):
        await tenancy.acquire(tenancy.account(FlowName.AUTHORIZATION_CODE), tenancy.consent(PUBLIC_APP))
    assert tries(tenancy) == 1


async def test_a_waiter_that_leaves_leaves_the_next_alone(tenancy: Tenancy) -> None:
    hang = Hang()
    tenancy.microsoft.next(hang)
    leaving = asyncio.create_task(tenancy.acquire(tenancy.application()))
    await hang.reached.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await tenancy.acquire(tenancy.application())
    hang.release()


# ---- at the other endpoints


@pytest.mark.parametrize("name", UNREADABLE)
async def test_no_list_of_endpoints_is_an_error_that_passes(tenancy: Tenancy, name: str) -> None:
    """msal by itself would keep a captive portal's page for a day."""
    tenancy.microsoft.next(UNREADABLE[name][0], at=DISCOVERY)
    with pytest.raises(Unreadable):
        await tenancy.acquire(tenancy.application())
    assert tries(tenancy) == 0
    await tenancy.acquire(tenancy.application())


@pytest.mark.parametrize(
    "endpoints",
    [
        {"token_endpoint": "http://login.microsoftonline.com/t/token"},
        {"token_endpoint": "https:///token"},
        {"authorization_endpoint": None},
    ],
    ids=str,
)
async def test_endpoints_that_no_secret_may_go_to(tenancy: Tenancy, endpoints: dict[str, Any]) -> None:
    tenancy.microsoft.next(altered(**endpoints), at=DISCOVERY)
    with pytest.raises(Unreadable):
        await tenancy.acquire(tenancy.application())
    assert tries(tenancy) == 0


async def test_a_busy_discovery_is_tried_again(tenancy: Tenancy) -> None:
    tenancy.microsoft.next(unavailable(), at=DISCOVERY)
    await tenancy.acquire(tenancy.application())


@pytest.mark.parametrize(
    "changes",
    [{"user_code": "A\r\nB"}, {"device_code": 1}, {"verification_uri": "http://x/"}, {"interval": "x"}],
    ids=str,
)
async def test_a_device_code_that_cannot_be_used(tenancy: Tenancy, changes: dict[str, Any]) -> None:
    flow = tenancy.flows[FlowName.DEVICE]
    assert isinstance(flow, DeviceCode)
    tenancy.microsoft.next(altered(**changes), at=DEVICE)
    with pytest.raises(Unreadable):
        await flow.begin(tenancy.account(FlowName.DEVICE))
    assert isinstance(await flow.begin(tenancy.account(FlowName.DEVICE)), DeviceAuthorization)


# ---- what is said of it


async def test_no_secret_is_in_errors_or_logs(tenancy: Tenancy, caplog: pytest.LogCaptureFixture) -> None:
    """The provider repeats all that was sent; and every logger says all that it can."""
    caplog.set_level(logging.DEBUG, logger="")
    account = tenancy.account(FlowName.AUTHORIZATION_CODE, "secret-client")
    tokens = await tenancy.acquire(account, tenancy.consent(tenancy.microsoft.apps["secret-client"]))
    assert tokens.refresh_token
    said = f"AADSTS9002313: you sent {CLIENT_SECRET} and {tokens.refresh_token.reveal()}"
    body = json.dumps({"error": "invalid_request", "error_description": said})
    tenancy.microsoft.next(Reply(400, body), Reply(200, f"<html>{said}"))
    with pytest.raises(ProviderRefused) as refused:
        await tenancy.refresh(account, tokens)
    with pytest.raises(Unreadable) as unreadable:
        await tenancy.refresh(account, tokens)
    spoken = f"{refused.value}{unreadable.value}{caplog.text}"
    assert "AADSTS9002313: you sent ***" in spoken
    for secret in (Secret(CLIENT_SECRET), tokens.access_token, tokens.refresh_token):
        assert secret.reveal() not in spoken


async def test_a_temporary_code_keeps_the_tokens(tenancy: Tenancy) -> None:
    busy = refusal("temporarily_unavailable", "AADSTS90033: A transient error has occurred. Please try again.")
    tenancy.microsoft.next(*[busy] * MAX_ATTEMPTS)
    with pytest.raises(ProviderUnavailable):
        await tenancy.refresh(
            tenancy.account(FlowName.AUTHORIZATION_CODE), TokenSet(Secret("a"), None, Secret("canary-refresh"))
        )
