"""Azure's managed identities: whose token, what for, and what is said where there is none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.errors import AccountUnusable, ProviderRefused, ProviderUnavailable
from emailproxy.oauth import microsoft
from emailproxy.oauth.attempts import MAX_ATTEMPTS, Attempts
from emailproxy.oauth.blocking import Blocking
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Flow
from emailproxy.oauth.identity import claims_of
from emailproxy.oauth.replies import Unreadable
from emailproxy.oauth.secrets import Secrets
from tests.fakes.azure import HEADER, KNOWN, FakeAzure
from tests.fakes.provider import Fault, Reply, altered, garbage, html_page, throttled, unavailable
from tests.oauth.world import ADA, Turned

RESOURCE = "https://outlook.office365.com"
VARIABLES = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT")
PLATFORMS = pytest.mark.parametrize("platform", ["app_service", "machine"])
Enter = Callable[[str], None]


@pytest.fixture
def turned() -> Turned:
    return Turned()


@pytest.fixture
async def azure() -> AsyncIterator[FakeAzure]:
    async with FakeAzure(now=time.time) as azure:
        yield azure


@pytest.fixture
def enter(azure: FakeAzure, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Makes this process one of the platform's."""

    def enter(platform: str) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in getattr(azure, platform).items():
            monkeypatch.setenv(name, value)

    return enter


@pytest.fixture
async def flow(turned: Turned) -> AsyncIterator[Flow]:
    blocking = Blocking()
    clock = turned.clock
    flows = microsoft.grants(blocking, Secrets(Commands()), Attempts(clock), clock=clock)
    yield flows[FlowName.CLIENT_CREDENTIALS]
    blocking.close()


def account(identity: str = "system", scope: str = f"{RESOURCE}/.default", **changes: Any) -> Account:
    settings: dict[str, Any] = {
        "name": ADA,
        "section": ADA,
        "flow": FlowName.CLIENT_CREDENTIALS,
        "provider": ProviderName.MICROSOFT,
        "managed_identity": identity,
        "scope": scope,
    }
    return Account(**{**settings, **changes})


@PLATFORMS
@pytest.mark.parametrize("identity", ["system", KNOWN])
async def test_the_platform_gives_a_token(
    azure: FakeAzure, enter: Enter, flow: Flow, turned: Turned, platform: str, identity: str
) -> None:
    enter(platform)
    first = await flow.acquire(account(identity), None)
    second = await flow.refresh(account(identity), first)
    assert claims_of(second.access_token.reveal())["aud"] == RESOURCE
    assert claims_of(second.access_token.reveal())["appid"] == identity
    assert second.expires_at_s == pytest.approx(turned.wall + 86_400, abs=30)
    assert len(azure.wanted) == 2  # msal would serve the first again
    assert azure.wanted[0].query["resource"] == RESOURCE
    assert azure.wanted[0].headers["Metadata"] == "true"


@PLATFORMS
async def test_an_identity_that_is_not_there_is_said(azure: FakeAzure, enter: Enter, flow: Flow, platform: str) -> None:
    enter(platform)
    with pytest.raises(ProviderRefused, match="Identity") as caught:
        await flow.acquire(account("99999999-2222-3333-4444-555555555555"), None)
    assert HEADER not in str(caught.value)


FAULTS: dict[str, tuple[Fault, str, type[ProviderUnavailable], int]] = {
    "503": (unavailable(), "HTTP 503", ProviderUnavailable, MAX_ATTEMPTS),
    "429": (throttled("60"), "HTTP 429", ProviderUnavailable, 1),
    "an HTML page": (html_page(), "sent an answer that cannot be read", Unreadable, 1),
    "garbage": (garbage(), "sent an answer that cannot be read", Unreadable, 1),
    "a list": (Reply(200, "[]"), "sent an answer that cannot be read", Unreadable, 1),
    "a token that is a number": (altered(access_token=1), "sent an access token that is not", Unreadable, 1),
    "a time that is none": (altered(expires_on="x", expires_in="x"), "cannot be read", Unreadable, 1),
    "times long ago": (altered(expires_on="1", expires_in="-1"), "out of bounds", Unreadable, 1),
}


@PLATFORMS
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_one_clear_error(
    azure: FakeAzure, enter: Enter, flow: Flow, turned: Turned, platform: str, name: str
) -> None:
    fault, said, kind, tries = FAULTS[name]
    enter(platform)
    azure.next(*[fault] * tries)
    with pytest.raises(ProviderUnavailable) as caught:
        await flow.acquire(account(), None)
    assert said in str(caught.value)
    assert type(caught.value) is kind
    assert len(azure.wanted) == tries
    turned.turn(60)
    await flow.acquire(account(), None)


async def test_a_header_that_the_provider_repeats_is_not_quoted(azure: FakeAzure, enter: Enter, flow: Flow) -> None:
    enter("app_service")
    azure.next(Reply(400, f'{{"statusCode": 400, "message": "bad {HEADER}"}}'))
    with pytest.raises(ProviderRefused, match=r"bad \*\*\*"):
        await flow.acquire(account(), None)


async def test_elsewhere_it_is_said_that_there_is_none(
    enter: Enter, azure: FakeAzure, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("machine")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    with pytest.raises(ProviderUnavailable, match=r"cannot be reached .* works on Azure and Azure Arc only"):
        await flow.acquire(account(), None)


async def test_a_platform_that_is_set_up_wrongly_is_said(
    enter: Enter, azure: FakeAzure, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("app_service")
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", "no thumbprint")  # Service Fabric
    with pytest.raises(AccountUnusable, match=r"managed_identity of ada@example\.org cannot be used: .*HTTPS"):
        await flow.acquire(account(), None)
    assert azure.wanted == []


async def test_a_scope_is_needed(flow: Flow) -> None:
    with pytest.raises(AccountUnusable, match="has no oauth2_scope; add https"):
        await flow.acquire(account(scope=""), None)


async def test_what_azure_arc_proves_by_a_file_is_said(
    enter: Enter, azure: FakeAzure, flow: Flow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    enter("app_service")
    monkeypatch.delenv("IDENTITY_HEADER")
    monkeypatch.setenv("IMDS_ENDPOINT", "http://127.0.0.1")
    azure.next(Reply(401, "{}", {"WWW-Authenticate": f"Basic realm={tmp_path}/absent.key"}))
    with pytest.raises(AccountUnusable, match=r"absent\.key cannot be read .*; let emailproxy's user into .* himds"):
        await flow.acquire(account(), None)
