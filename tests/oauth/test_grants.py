"""What the grants ask, and with which client authentication; the provider is the embedded one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from emailproxy.config.model import Account, FlowName
from emailproxy.config.sources import FromFile
from emailproxy.demo.ledger import Client
from emailproxy.errors import AccountUnusable, ProviderRefused, ProviderUnavailable
from emailproxy.oauth.clientauth import JWT_BEARER
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Approval, Consent, Flow, OwnPassword, TokenSet
from emailproxy.oauth.generic import flows, grants
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.fakes.provider import ABSENT, FakeProvider, Reset, altered, refusal, unavailable
from tests.oauth.certificates import Pair, written
from tests.oauth.world import ADA, CLIENT_SECRET, World

PASSWORD = OwnPassword(Secret("canary-mailbox-password"))
APPROVALS = {
    FlowName.AUTHORIZATION_CODE: Approval.PERSON,
    FlowName.DEVICE: Approval.PERSON,
    FlowName.CLIENT_CREDENTIALS: Approval.NONE,
    FlowName.PASSWORD: Approval.PASSWORD,
    FlowName.TOKEN_COMMAND: Approval.NONE,
}


@pytest.fixture
async def by_name(world: World) -> Any:
    world.provider.passwords[ADA] = PASSWORD.password.reveal()
    commands = Commands()
    return grants((await world.process()).endpoint, Secrets(commands), commands)


def mailbox(world: World, **changes: Any) -> Account:
    return world.account(flow=FlowName.PASSWORD, permission_url=None, **changes)


def assertion_in(provider: FakeProvider) -> str:
    form = provider.requests[-1].form
    assert form["client_assertion_type"] == JWT_BEARER
    assert "client_secret" not in form
    return form["client_assertion"]


async def test_every_flow_says_whose_approval_it_needs(world: World, by_name: dict[FlowName, Flow]) -> None:
    assert {name: flow.approval for name, flow in by_name.items()} == APPROVALS
    chosen = flows((await world.process()).endpoint)
    assert chosen(world.account()).approval is Approval.PERSON


# ---- the password grant (RFC 6749 section 4.3)


async def test_a_password_is_exchanged_and_then_refreshed(world: World, by_name: dict[FlowName, Flow]) -> None:
    account = mailbox(world, scope="openid mail")
    tokens = await by_name[FlowName.PASSWORD].acquire(account, PASSWORD)
    assert world.provider.requests[0].form == {
        "grant_type": "password",
        "client_id": "test-client",
        "client_secret": CLIENT_SECRET,
        "username": ADA,
        "password": PASSWORD.password.reveal(),
        "scope": "openid mail",
    }
    assert tokens.identities == (ADA,)
    await by_name[FlowName.PASSWORD].refresh(account, tokens)
    assert world.grants() == ["password", "refresh_token"]


async def test_a_resource_stands_in_place_of_the_scope(world: World, by_name: dict[FlowName, Flow]) -> None:
    account = mailbox(world, scope="mail", resource="https://partner.outlook.cn/", client_secret=None)
    world.provider.clients["test-client"] = Client("test-client")
    world.provider.next(altered(expires_in="3599", scope=ABSENT))
    tokens = await by_name[FlowName.PASSWORD].acquire(account, PASSWORD)
    (request,) = world.provider.requests
    assert request.form["resource"] == "https://partner.outlook.cn/"
    assert "scope" not in request.form
    assert tokens.expires_at_s == world.turned.wall + 3599
    await by_name[FlowName.PASSWORD].refresh(account, tokens)
    assert world.provider.requests[-1].form["resource"] == "https://partner.outlook.cn/"


async def test_a_shared_mailbox_is_asked_for_by_its_owner(world: World, by_name: dict[FlowName, Flow]) -> None:
    world.provider.passwords["owner@example.org"] = "owned"
    account = mailbox(world, token_owner="owner@example.org")
    await by_name[FlowName.PASSWORD].acquire(account, OwnPassword(Secret("owned")))
    assert world.provider.requests[0].form["username"] == "owner@example.org"


async def test_a_wrong_password_is_refused_and_not_repeated(world: World, by_name: dict[FlowName, Flow]) -> None:
    wrong = OwnPassword(Secret("canary-wrong"))
    world.provider.next(refusal("invalid_grant", "canary-wrong is not the password"))
    with pytest.raises(ProviderRefused) as caught:
        await by_name[FlowName.PASSWORD].acquire(mailbox(world), wrong)
    assert caught.value.code == "invalid_grant"
    assert "canary" not in str(caught.value) + repr(wrong)


@pytest.mark.parametrize("name", [FlowName.PASSWORD, FlowName.AUTHORIZATION_CODE, FlowName.DEVICE])
async def test_without_a_refresh_token_somebody_must_approve_again(
    world: World, by_name: dict[FlowName, Flow], name: FlowName
) -> None:
    with pytest.raises(ProviderRefused, match="no refresh token") as caught:
        await by_name[name].refresh(world.account(), TokenSet(Secret("at"), None))
    assert caught.value.code == "invalid_grant"
    assert world.provider.arrived == 0


@pytest.mark.parametrize("name", [FlowName.PASSWORD, FlowName.AUTHORIZATION_CODE, FlowName.DEVICE])
async def test_a_grant_without_its_approval_is_a_mistake_of_ours(
    world: World, by_name: dict[FlowName, Flow], name: FlowName
) -> None:
    with pytest.raises(TypeError):
        await by_name[name].acquire(world.account(), None)


@pytest.mark.parametrize("rotates", [True, False])
async def test_a_provider_may_rotate_or_not(tmp_path: Path, rotates: bool) -> None:
    async with World.at(tmp_path / "state", rotate=rotates) as world:
        world.provider.passwords[ADA] = PASSWORD.password.reveal()
        flow = flows((await world.process()).endpoint)(mailbox(world))
        first = await flow.acquire(mailbox(world), PASSWORD)
        world.provider.next(altered(scope=ABSENT) if rotates else altered(scope=ABSENT, refresh_token=ABSENT))
        second = await flow.refresh(mailbox(world), first)
        assert (second.refresh_token == first.refresh_token) is not rotates
        assert second.scope == "mail offline_access"


# ---- client authentication (RFC 6749 section 2.3, RFC 7523)


async def test_a_certificate_signs_a_new_assertion_for_every_attempt(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path, pair: Pair
) -> None:
    world.provider.client_keys["test-client"] = pair.key.public_key()
    account = world.application(client_secret=None, **written(tmp_path, pair))
    world.provider.next(Reset(after_grant=True))  # the provider has seen the first one: it is of no more use
    tokens = await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
    world.provider.verify(tokens.access_token.reveal())
    _, (header, claims) = world.provider.assertions
    assert header["alg"] == "RS256"
    assert header["x5t#S256"] == pair.thumbprint("SHA256")
    assert header["x5t"] == pair.thumbprint("SHA1")
    assert claims["aud"] == account.token_url
    assert claims["iss"] == claims["sub"] == account.client_id
    assert claims["exp"] - claims["iat"] == 300
    assert claims["iat"] == int(world.turned.wall)
    await by_name[FlowName.CLIENT_CREDENTIALS].refresh(account, tokens)
    assert len({claims["jti"] for _, claims in world.provider.assertions}) == 3


@pytest.mark.parametrize("name", [FlowName.PASSWORD, FlowName.DEVICE, FlowName.AUTHORIZATION_CODE])
async def test_every_grant_can_authenticate_by_certificate(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path, pair: Pair, name: FlowName
) -> None:
    world.provider.client_keys["test-client"] = pair.key.public_key()
    account = world.account(client_secret=None, flow=name, **written(tmp_path, pair))
    if name is FlowName.PASSWORD:
        await by_name[name].acquire(account, PASSWORD)
    elif name is FlowName.DEVICE:
        account = replace(account, permission_url=world.provider.device_url)
        await by_name[name].begin(account)  # type: ignore[attr-defined]
    else:
        with pytest.raises(ProviderRefused, match="invalid_grant"):
            await by_name[name].acquire(account, Consent(Secret("code"), Secret("v" * 43), account.redirect_uri))
    assert len(world.provider.assertions) == 1


async def test_a_federated_assertion_is_read_anew_at_every_use(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    account = world.application(client_secret=None, client_assertion_file=file)
    for subject in ("first", "second"):
        theirs = jwt.encode({"sub": subject}, "k" * 32, algorithm="HS256")
        world.provider.federated[theirs] = "test-client"
        file.write_text(f"\n {theirs} \n")
        await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
        assert assertion_in(world.provider) == theirs


@pytest.mark.parametrize("content", [None, "", "no token", "a.b", "a.b.c d", "a.b.c\nd.e.f", "a." * 40_000])
async def test_a_federated_assertion_that_is_none_is_named(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "assertion"
    if content is not None:
        file.write_text(content)
    account = world.application(client_secret=None, client_assertion_file=file)
    with pytest.raises(AccountUnusable, match=rf"client_assertion_file of {ADA}.*{file}"):
        await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
    assert world.provider.arrived == 0


async def test_an_assertion_that_the_provider_repeats_is_blotted_out(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path
) -> None:
    theirs = jwt.encode({"sub": "me"}, "k" * 32, algorithm="HS256")
    (tmp_path / "token").write_text(theirs)
    account = world.application(client_secret=None, client_assertion_file=tmp_path / "token")
    world.provider.next(refusal("invalid_client", f"bad assertion {theirs}"))
    with pytest.raises(ProviderRefused) as caught:
        await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
    assert theirs not in str(caught.value)
    assert "***" in str(caught.value)


async def test_a_secret_from_a_file_may_change_at_any_time(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    account = world.application(client_secret=FromFile(file))
    file.write_text("canary-old")
    with pytest.raises(ProviderRefused, match="invalid_client") as caught:
        await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
    assert "canary" not in str(caught.value)
    file.write_text(f"{CLIENT_SECRET}\n")
    await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)


async def test_a_secret_that_cannot_be_read_costs_no_request(world: World, by_name: dict[FlowName, Flow]) -> None:
    account = world.application(client_secret=FromFile(Path("/nowhere/secret")))
    with pytest.raises(AccountUnusable, match="client_secret"):
        await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
    assert world.provider.arrived == 0
    assert world.turned.slept == []


async def test_a_provider_that_is_down_keeps_no_certificate_from_a_later_try(
    world: World, by_name: dict[FlowName, Flow], tmp_path: Path, pair: Pair
) -> None:
    world.provider.client_keys["test-client"] = pair.key.public_key()
    account = world.application(client_secret=None, **written(tmp_path, pair))
    world.provider.next(*[unavailable()] * 4)
    with pytest.raises(ProviderUnavailable):
        await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
    await by_name[FlowName.CLIENT_CREDENTIALS].acquire(account, None)
