"""The device grant at the provider: what is asked, what is taken, and what a poll may answer (RFC 8628)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emailproxy.config.model import Account, FlowName
from emailproxy.errors import AccountUnusable, AuthorizationPending, ProviderRefused, ProviderUnavailable
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.devicecode import MAX_INTERVAL_S, MAX_LIFE_S, DeviceCode, authorization_of
from emailproxy.oauth.flow import DeviceAuthorization
from emailproxy.oauth.replies import Reply, Unreadable
from emailproxy.oauth.secrets import Secrets
from emailproxy.oauth.tokenrequests import Requests
from emailproxy.secret import Secret
from tests.fakes.provider import UNUSABLE, refusal, throttled, unavailable
from tests.oauth.world import CLIENT_SECRET, World

NOW = 1_800_000_000
GOOD = {
    "device_code": "dev-code",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://login.example/device",
    "expires_in": 900,
}


@pytest.fixture
async def device(world: World) -> DeviceCode:
    return DeviceCode(Requests((await world.process()).endpoint, Secrets(Commands())))


def account_of(world: World, **changes: Any) -> Account:
    return world.account(flow=FlowName.DEVICE, permission_url=world.provider.device_url, **changes)


def read(changes: Any = None, *, status: int = 200) -> DeviceAuthorization:
    answer = {**GOOD, **(changes or {})}
    answer = {name: value for name, value in answer.items() if value is not ...}
    return authorization_of(Reply("login.example", status, None, json.dumps(answer).encode()), now_s=NOW)


async def test_a_code_is_asked_for_shown_and_redeemed(world: World, device: DeviceCode) -> None:
    account = account_of(world, scope="openid mail")
    begun = await device.begin(account)
    assert world.provider.device_requests == [
        {"client_id": "test-client", "client_secret": CLIENT_SECRET, "scope": "openid mail"}
    ]
    assert begun.verification_uri == f"{world.provider.url}/activate"
    assert begun.verification_uri_complete == f"{world.provider.url}/activate?user_code={begun.user_code}"
    assert begun.expires_at_s == NOW + 600
    assert begun.interval_s == 5
    with pytest.raises(AuthorizationPending) as pending:
        await device.acquire(account, begun)
    assert not pending.value.slow_down
    with pytest.raises(AuthorizationPending) as hasty:
        await device.acquire(account, begun)
    assert hasty.value.slow_down
    world.provider.decide(begun.user_code)
    world.turned.turn(10)
    tokens = await device.acquire(account, begun)
    world.provider.verify(tokens.access_token.reveal())
    assert tokens.identities == ("demo@example.test",)
    fresh = await device.refresh(account, tokens)
    assert fresh.refresh_token not in (None, tokens.refresh_token)
    assert world.provider.requests[-2].form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "test-client",
        "client_secret": CLIENT_SECRET,
        "device_code": begun.device_code.reveal(),
    }


async def test_a_declined_and_an_ended_code_are_told_apart(world: World, device: DeviceCode) -> None:
    account = account_of(world)
    begun = await device.begin(account)
    world.provider.decide(begun.user_code, "declined")
    with pytest.raises(ProviderRefused, match="declined") as declined:
        await device.acquire(account, begun)
    assert declined.value.code == "access_denied"
    begun = await device.begin(account)
    world.turned.turn(600)
    with pytest.raises(ProviderRefused, match="in time") as ended:
        await device.acquire(account, begun)
    assert ended.value.code == "expired_token"


@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_poll_is_asked_once_whatever_the_answer(world: World, device: DeviceCode, name: str) -> None:
    account = account_of(world)
    begun = await device.begin(account)
    world.provider.decide(begun.user_code)
    world.provider.next(UNUSABLE[name])
    with pytest.raises(ProviderUnavailable) as caught:
        await device.acquire(account, begun)
    assert world.provider.arrived == 1
    assert begun.device_code.reveal() not in str(caught.value)


async def test_a_pending_poll_ends_the_throttling(world: World, device: DeviceCode) -> None:
    account = account_of(world)
    begun = await device.begin(account)
    world.provider.next(throttled("60"), refusal("authorization_pending"), unavailable())
    for error in (ProviderUnavailable, AuthorizationPending, ProviderUnavailable):
        with pytest.raises(error):
            await device.acquire(account, begun)
        world.turned.turn(60)
    assert world.provider.arrived == 3


async def test_without_its_endpoint_there_is_no_code(world: World, device: DeviceCode) -> None:
    with pytest.raises(AccountUnusable, match="no permission_url"):
        await device.begin(world.account(flow=FlowName.DEVICE, permission_url=None))


async def test_an_unknown_client_is_refused(world: World, device: DeviceCode) -> None:
    with pytest.raises(ProviderRefused, match="invalid_client") as caught:
        await device.begin(account_of(world, client_id="other"))
    assert caught.value.code == "invalid_client"


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"interval": 7}, "interval_s", 7),
        ({"interval": "7"}, "interval_s", 7),
        ({"interval": 0}, "interval_s", 5),
        ({"interval": None}, "interval_s", 5),
        ({"interval": 86_400}, "interval_s", MAX_INTERVAL_S),
        ({"expires_in": "900"}, "expires_at_s", NOW + 900),
        ({"expires_in": 10**8}, "expires_at_s", NOW + MAX_LIFE_S),
        (
            {"verification_uri": ..., "verification_url": "https://www.google.com/device"},
            "verification_uri",
            "https://www.google.com/device",
        ),
        ({"verification_uri": "http://127.0.0.1:8080/d"}, "verification_uri", "http://127.0.0.1:8080/d"),
        ({"verification_uri": "https://[2001:db8::1]/d"}, "verification_uri", "https://[2001:db8::1]/d"),
        (
            {"verification_uri_complete": "https://login.example/device?user_code=W%20D"},
            "verification_uri_complete",
            "https://login.example/device?user_code=W%20D",
        ),
        ({"user_code": "WDJB MJHT"}, "user_code", "WDJB MJHT"),
        ({"message": "To sign in, use a web browser"}, "device_code", Secret("dev-code")),
    ],
)
def test_what_providers_vary_is_taken(changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(read(changes), field) == value


@pytest.mark.parametrize(
    "changes",
    [
        {"device_code": ...},
        {"device_code": ""},
        {"device_code": 7},
        {"device_code": "a\r\nb"},
        {"device_code": "a" * 16_385},
        {"user_code": ...},
        {"user_code": ""},
        {"user_code": 123456},
        {"user_code": " AB"},
        {"user_code": "A\x1b[2JB"},
        {"user_code": "A\nB"},
        {"user_code": "Ä"},
        {"user_code": "A" * 41},
        {"verification_uri": ...},
        {"verification_uri": ["https://login.example/"]},
        {"verification_uri": "http://login.example/device"},
        {"verification_uri": "http://127.0.0.1.evil.example/"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https:///device"},
        {"verification_uri": "https://login.example@evil.example/"},
        {"verification_uri": "https://login.example/\r\nX: y"},
        {"verification_uri": "https://login.example/ x"},
        {"verification_uri": "https://login.example/\u202e"},
        {"verification_uri": "https://login.example:99999/"},
        {"verification_uri": "https://[::1/"},
        {"verification_uri": "https://login.example/" + "a" * 2048},
        {"verification_uri_complete": "http://evil.example/"},
        {"verification_uri_complete": 7},
        {"expires_in": ...},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": "x"},
        {"expires_in": True},
        {"expires_in": 1e99},
        {"interval": -5},
        {"interval": "soon"},
        {"interval": [5]},
        {"interval": 1e99},
        {"error": {"code": 1}},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_an_odd_answer_is_a_temporary_failure(changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match=r"login\.example"):
        read(changes)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"{", b'{"a":' * 50_000, b"\xff{", None], ids=repr)
@pytest.mark.parametrize("status", [200, 302, 400])
def test_no_answer_of_oauth_is_a_temporary_failure(body: bytes | None, status: int) -> None:
    with pytest.raises(Unreadable):
        authorization_of(Reply("login.example", status, None, body), now_s=NOW)


def test_a_good_answer_under_another_status_is_none() -> None:
    with pytest.raises(Unreadable):
        read(status=404)


def test_a_busy_provider_is_one_to_come_back_to() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        authorization_of(Reply("login.example", 429, "17", b""), now_s=NOW)
    assert caught.value.retry_after_s == 17
