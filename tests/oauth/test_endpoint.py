"""The token endpoint: what is asked, how often, and what a fault costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from emailproxy.config.model import FlowName
from emailproxy.demo.certificates import Authority
from emailproxy.errors import ProviderRefused, ProviderUnavailable
from emailproxy.oauth.attempts import MAX_ATTEMPTS, TOTAL_S
from emailproxy.oauth.breaker import Breaker, Refrain
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Consent, Flow, TokenSet
from emailproxy.oauth.generic import grants
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.fakes.provider import UNUSABLE, FakeProvider, Fault, Hang, Reset, garbage, refusal, throttled, unavailable
from tests.oauth.world import CLIENT_SECRET, World

CONSENT = Consent(Secret("canary-code"), Secret("v" * 43), "http://127.0.0.1:1/")
RETRIED = {"503", "429", "an HTML error page", "a reset connection"}


@pytest.fixture
async def endpoint(world: World) -> TokenEndpoint:
    return (await world.process()).endpoint


def application(endpoint: TokenEndpoint) -> Flow:
    return flow(endpoint, FlowName.CLIENT_CREDENTIALS)


def code_of(endpoint: TokenEndpoint) -> Flow:
    return flow(endpoint, FlowName.AUTHORIZATION_CODE)


def flow(endpoint: TokenEndpoint, name: FlowName) -> Flow:
    return grants(endpoint, Secrets(Commands()), Commands())[name]


async def test_client_credentials_are_one_request(world: World, endpoint: TokenEndpoint) -> None:
    tokens = await application(endpoint).acquire(world.application(), None)
    world.provider.verify(tokens.access_token.reveal())
    assert tokens.expires_at_s == world.turned.wall + 3600
    assert tokens.refresh_token is None
    (request,) = world.provider.requests
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": "test-client",
        "client_secret": CLIENT_SECRET,
        "scope": "mail offline_access",
    }


async def test_a_refresh_names_no_scope_and_keeps_the_old_refresh_token(world: World, endpoint: TokenEndpoint) -> None:
    world.provider.next(refusal("invalid_grant", "canary-refresh is unknown"))
    old = TokenSet(Secret("canary-access"), None, Secret("canary-refresh"))
    with pytest.raises(ProviderRefused) as caught:
        await code_of(endpoint).refresh(world.account(), old)
    assert caught.value.code == "invalid_grant"
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", UNUSABLE)
async def test_an_unusable_reply_is_temporary_and_only_a_busy_one_is_asked_again(
    world: World, endpoint: TokenEndpoint, name: str
) -> None:
    world.provider.next(*[UNUSABLE[name]] * MAX_ATTEMPTS)
    with pytest.raises(ProviderUnavailable) as caught:
        await application(endpoint).acquire(world.application(), None)
    assert CLIENT_SECRET not in str(caught.value)
    once = name == "429"  # its Retry-After is longer than a login waits
    assert world.provider.arrived == (MAX_ATTEMPTS if name in RETRIED and not once else 1)
    assert sum(world.turned.slept) < TOTAL_S
    assert len(set(world.turned.slept)) == len(world.turned.slept)  # jitter


async def test_a_provider_that_recovers_costs_nobody_a_login(world: World, endpoint: TokenEndpoint) -> None:
    world.provider.next(unavailable(), Reset(), throttled("2"))
    await application(endpoint).acquire(world.application(), None)
    assert world.turned.slept[-1] == 2


@pytest.mark.parametrize("fault", [unavailable(), Reset(), throttled("1"), garbage()], ids=repr)
async def test_a_code_is_never_sent_twice(world: World, endpoint: TokenEndpoint, fault: Fault) -> None:
    world.provider.next(*[fault] * 4)
    with pytest.raises(ProviderUnavailable):
        await code_of(endpoint).acquire(world.account(), CONSENT)
    assert world.provider.arrived == 1


async def test_retry_after_holds_everybody_back_and_then_one_asks(world: World, endpoint: TokenEndpoint) -> None:
    accounts = [world.application(f"u{number}@example.org") for number in range(100)]
    world.provider.next(throttled("60"))

    async def everybody() -> list[TokenSet | BaseException]:
        asking = (application(endpoint).acquire(account, None) for account in accounts)
        return await asyncio.gather(*asking, return_exceptions=True)

    with pytest.raises(ProviderUnavailable) as caught:
        await application(endpoint).acquire(accounts[0], None)
    assert caught.value.retry_after_s == 60
    assert all(isinstance(one, ProviderUnavailable) for one in await everybody())
    assert world.provider.arrived == 1

    world.turned.turn(60)
    world.provider.next(throttled("60"))
    assert all(isinstance(one, ProviderUnavailable) for one in await everybody())
    assert world.provider.arrived == 2  # one request a window

    world.turned.turn(60)
    assert all(isinstance(one, TokenSet) for one in await everybody())


async def test_a_refusal_ends_the_throttling_too(world: World, endpoint: TokenEndpoint) -> None:
    world.provider.next(throttled("60"), refusal("invalid_scope"))
    for expected in (ProviderUnavailable, ProviderRefused):
        with pytest.raises(expected):
            await application(endpoint).acquire(world.application(), None)
        world.turned.turn(60)
    slow = [Hang(), Hang()]
    world.provider.next(*slow)
    both = [asyncio.create_task(application(endpoint).acquire(world.application(), None)) for _ in slow]
    await world.provider.wait_for_requests(4)  # side by side
    for one in slow:
        one.release()
    await asyncio.gather(*both)


async def test_once_the_provider_answers_again_nobody_queues(world: World, endpoint: TokenEndpoint) -> None:
    world.provider.next(throttled("60"))
    with pytest.raises(ProviderUnavailable):
        await application(endpoint).acquire(world.application(), None)
    world.turned.turn(60)
    slow = [Hang(), Hang(), Hang()]
    world.provider.next(*slow)
    asking = [asyncio.create_task(application(endpoint).acquire(world.application(), None)) for _ in slow]
    await world.provider.wait_for_requests(2)
    slow[0].release()
    await world.provider.wait_for_requests(4)  # the others together
    for one in slow:
        one.release()
    await asyncio.gather(*asking)


async def test_nobody_waits_for_ever_for_who_asks_first(world: World) -> None:
    breaker = Breaker(lambda: world.turned.monotonic)
    breaker.opened("client", 0)
    async with breaker.permit("client", 30):
        with pytest.raises(Refrain, match="does not answer"):
            async with breaker.permit("client", 0.01):
                pytest.fail("two ask at once")
    async with breaker.permit("client", 30):
        pass


async def test_a_timer_that_ends_a_little_early_is_no_refusal(world: World) -> None:
    breaker = Breaker(lambda: world.turned.monotonic)
    breaker.opened("client", 2)
    world.turned.turn(1.999)
    async with breaker.permit("client", 30):
        pass


async def test_no_time_left_is_no_time_without_end(world: World, endpoint: TokenEndpoint) -> None:
    world.provider.next(Hang())
    with pytest.raises(ProviderUnavailable, match="in time"):
        await endpoint._post(world.provider.token_url, "", 0.0)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(world: World, tmp_path: Path, content: str | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    endpoint = TokenEndpoint(ca_file=ca_file, clock=world.turned.clock)
    with pytest.raises(ProviderUnavailable, match=r"ca\.pem cannot be used"):
        await application(endpoint).acquire(world.application(), None)
    assert world.turned.slept == []


@pytest.mark.parametrize(
    ("off_s", "said"), [(3600, "3600 s ahead of that of 127.0.0.1"), (-3600, "3600 s behind that of 127.0.0.1")]
)
async def test_a_wrong_clock_is_in_the_log_once(
    world: World, endpoint: TokenEndpoint, off_s: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    right, wrong = world.turned.wall, world.turned.wall + off_s
    world.provider._now = lambda: right
    for wall, lines in ((right, 0), (wrong, 1), (wrong, 1), (right, 1), (wrong, 2)):
        world.turned.wall = wall
        await application(endpoint).acquire(world.application(), None)
        assert sum(said in message for message in caplog.messages) == lines


async def test_another_client_is_not_held_back(world: World, endpoint: TokenEndpoint) -> None:
    world.provider.next(throttled("60"))
    with pytest.raises(ProviderUnavailable):
        await application(endpoint).acquire(world.application(), None)
    with pytest.raises(ProviderRefused, match="invalid_client"):
        await application(endpoint).acquire(world.application(client_id="other"), None)


async def test_a_silent_provider_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emailproxy.oauth.attempts.TOTAL_S", 0.05)
    silence = Hang()
    world.provider.next(silence)
    endpoint = (await world.process()).endpoint
    with pytest.raises(ProviderUnavailable, match="in time"):
        await application(endpoint).acquire(world.application(), None)
    silence.release()


async def test_a_public_client_sends_no_secret(world: World, endpoint: TokenEndpoint) -> None:
    with pytest.raises(ProviderRefused):
        await code_of(endpoint).acquire(world.account(client_secret=None), CONSENT)
    (request,) = world.provider.requests
    assert request.form["client_id"] == "test-client"
    assert "client_secret" not in request.form
    assert "state" not in request.form
    assert "scope" not in request.form


async def test_only_a_trusted_certificate_gets_the_secret(world: World, tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    context = authority.issue("localhost", "127.0.0.1").server_context()
    async with FakeProvider(world.provider.clients.values(), tls=context) as provider:
        account = world.application(token_url=provider.token_url)
        stranger = (await world.process()).endpoint
        with pytest.raises(ProviderUnavailable, match="ca_file"):
            await application(stranger).acquire(account, None)
        assert provider.arrived == 0
        friend = TokenEndpoint(ca_file=authority.certificate_file)
        assert await application(friend).acquire(account, None)
        await friend.close()
