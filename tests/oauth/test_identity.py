"""Who signed in: only the sign-in of the mailbox's owner is kept, and another one is refused with the way out."""

from __future__ import annotations

import asyncio
import logging

import jwt
import pytest

from emailproxy.config.model import Account, FlowName
from emailproxy.errors import ConsentRequired
from emailproxy.oauth.identity import expected, identities_of, is_owner, somebody_else
from tests.fakes.provider import altered
from tests.oauth.world import ADA, PASSWORD, World, browse, until

EVE, SHARED = "eve@example.org", "info@example.org"
GUEST = "ada_example.org#EXT#@contoso.onmicrosoft.com"


def token(**claims: object) -> str:
    return jwt.encode(claims, "a key that nobody checks, of 32 octets", algorithm="HS256")


CLAIMS = [
    ({"email": ADA}, (ADA,)),
    ({"preferred_username": ADA}, (ADA,)),
    ({"upn": ADA}, (ADA,)),
    ({"unique_name": ADA}, (ADA,)),
    ({"email": EVE, "preferred_username": ADA, "upn": ADA}, (EVE, ADA)),
    ({"sub": ADA, "name": ADA, "oid": "1"}, ()),
    ({"unique_name": f"live.com#{ADA}", "email": ADA}, (ADA,)),
    ({"upn": GUEST}, (GUEST,)),
    ({"email": "#@x"}, ("#@x",)),
    ({"email": "ada"}, ()),
    ({"email": 7, "upn": None, "unique_name": [ADA]}, ()),
    ({"email": f"{ADA}\r\nA1 LOGOUT"}, ()),
    ({"email": "a" * 300 + "@example.org"}, ()),
]


@pytest.mark.parametrize(("claims", "names"), CLAIMS)
def test_names_are_found_in_any_claim_that_holds_one(claims: dict[str, object], names: tuple[str, ...]) -> None:
    assert identities_of(token(**claims)) == names
    assert identities_of(None, token(**claims), "opaque", token(**claims)) == names


@pytest.mark.parametrize("text", ["", "opaque", "a.b.c", "." * 20_000, "eyJhbGciOiJub25lIn0.W10.", "é.é.é"])
def test_what_is_no_token_names_nobody(text: str) -> None:
    assert identities_of(text) == ()


OWNERS = [
    (ADA, None, (ADA,), True),
    (ADA, None, ("ADA@Example.org",), True),
    (ADA, None, (EVE, ADA), True),
    (ADA, None, (EVE,), False),
    (ADA, None, (), True),
    (SHARED, ADA, (ADA,), True),
    (SHARED, ADA, (SHARED,), False),
    ("printer", None, (EVE,), True),
    (SHARED, "*", (EVE,), True),
    (ADA, None, (ADA, GUEST), False),
    (ADA, GUEST, (ADA, GUEST), True),
    ("Ada.Lovelace@gmail.com", None, ("adalovelace@googlemail.com",), True),
    ("ada+lists@gmail.com", None, ("ada@gmail.com",), True),
    ("ada.lovelace@gmail.com", None, ("ada@gmail.com",), False),
    ("ada.lovelace@example.org", None, ("adalovelace@example.org",), False),
]


@pytest.mark.parametrize(("name", "owner", "identities", "taken"), OWNERS)
def test_any_name_of_the_owner_will_do(name: str, owner: str | None, identities: tuple[str, ...], taken: bool) -> None:
    account = Account(name=name, section=name, flow=FlowName.DEVICE, token_owner=owner)
    assert is_owner(account, identities) is taken


def test_the_refusal_says_who_it_was_and_what_to_do() -> None:
    account = Account(name=SHARED, section="@example.org", flow=FlowName.DEVICE)
    text = str(somebody_else(account, (EVE, "eve@elsewhere.example")))
    assert text.startswith(f"{EVE} signed in, but this is the sign-in of {SHARED}; nothing was stored. ")
    assert f"Sign in as {SHARED} (a private browser window helps)" in text
    assert f"set token_owner = {EVE} in [{SHARED}]" in text
    assert "(* for anybody's)" in text
    owned = Account(name=SHARED, section=SHARED, flow=FlowName.DEVICE, token_owner=ADA)
    assert f"the sign-in of {SHARED}, for which {ADA} signs in" in str(somebody_else(owned, (EVE,)))


def test_a_guest_is_told_of_the_tenant() -> None:
    account = Account(name=ADA, section=ADA, flow=FlowName.DEVICE)
    text = str(somebody_else(account, (ADA, GUEST)))
    assert text.startswith(f"{GUEST} signed in, but")
    assert "set tenant" in text
    assert "token_owner" not in text


def test_the_sign_in_of_anybody_is_begun_as_the_account() -> None:
    assert expected(Account(name=SHARED, section=SHARED, flow=FlowName.DEVICE, token_owner="*")) == SHARED


# ---- the whole way


async def test_another_person_is_refused_everywhere_and_can_try_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider signs in whom the browser knows: without a hint, somebody else."""
    world.account(login_hint="")
    world.provider.account = EVE
    process = await world.process()
    login = asyncio.create_task(process.login())
    await until(lambda: any("Please visit" in message for message in caplog.messages))
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    seen = await browse(waiting.url)
    assert seen.status == 400
    refusal = f"{EVE} signed in, but this is the sign-in of {ADA}"
    assert refusal in seen.text
    assert f"token_owner = {EVE}" in seen.text
    with pytest.raises(ConsentRequired, match=refusal):
        await login
    assert any(message.startswith(f"the sign-in of {ADA} failed: {refusal}") for message in caplog.messages)
    assert world.files() == {}

    again = await process.broker.sign_in(ADA, PASSWORD)
    assert again is not None
    assert again.url != waiting.url
    world.provider.account = ADA.upper()
    assert (await browse(again.url)).status == 200
    assert again.who() == (ADA.upper(),)
    world.provider.verify(await process.login())


async def test_a_record_is_as_it_was_after_another_persons_sign_in(world: World) -> None:
    world.account(login_hint="")
    world.provider.account = ADA
    process = await world.process()
    await world.signed_in(process)
    before = world.files()
    world.provider.account = EVE
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert (await browse(waiting.url)).status == 400
    assert world.files() == before
    world.provider.verify(await process.login())


async def test_the_token_owner_signs_in_for_a_shared_mailbox(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.account(SHARED, token_owner=ADA)
    process = await world.process()
    waiting = await process.broker.sign_in(SHARED, PASSWORD)
    assert waiting is not None
    assert (await browse(waiting.url)).status == 200  # the hint was the owner's
    assert world.provider.authorizations[-1]["login_hint"] == ADA
    assert f"account {SHARED} is signed in as {ADA}" in caplog.messages
    assert world.provider.verify(await process.login(SHARED))["email"] == ADA


async def test_tokens_that_name_nobody_are_left_to_the_mail_server(world: World) -> None:
    world.account()
    process = await world.process()
    world.provider.next(altered(access_token="opaque"))
    await world.signed_in(process)
    assert await process.login() == "opaque"


@pytest.mark.parametrize(("email", "status"), [(ADA, 200), (EVE, 400)])
async def test_an_id_token_counts_where_the_access_token_is_opaque(world: World, email: str, status: int) -> None:
    world.account()
    process = await world.process()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    world.provider.next(altered(access_token="opaque", id_token=token(email=email, aud="test-client")))
    assert (await browse(waiting.url)).status == status
