"""What another proxy kept of an account: opened with its password, taken over with no new consent, or left alone."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from emailproxy.config.model import Cached, FlowName
from emailproxy.errors import AccountUnusable, ConsentRequired, TooManyLogins, WrongPassword
from emailproxy.oauth import fernet
from emailproxy.oauth.flow import TokenSet
from emailproxy.secret import Secret
from tests.oauth.world import ADA, CLIENT_SECRET, PASSWORD, WRONG, Process, World, browse, no_space

SALT = b"sixteen octets.."
STORED = 1000
"""A `token_iterations` that costs a test nothing."""


def under(password: Secret, text: str | bytes, iterations: int = STORED) -> str:
    """A value as another proxy writes it."""
    key = PBKDF2HMAC(algorithm=SHA256(), length=32, salt=SALT, iterations=iterations).derive(password.reveal().encode())
    data = text if isinstance(text, bytes) else text.encode()
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(data).decode()


def cached(tokens: TokenSet, **changes: Any) -> Cached:
    assert tokens.refresh_token is not None
    values = {
        "salt": SALT,
        "iterations": STORED,
        "access_token": under(PASSWORD, tokens.access_token.reveal()),
        "access_token_expiry_s": tokens.expires_at_s,
        "refresh_token": under(PASSWORD, tokens.refresh_token.reveal()),
    }
    return Cached(**{**values, **changes})


@pytest.fixture
async def tokens(world: World, monkeypatch: pytest.MonkeyPatch) -> TokenSet:
    """Tokens that the provider knows, of an account that has no record."""
    monkeypatch.setattr(fernet, "TODAYS_ITERATIONS", 2000)
    monkeypatch.setattr(fernet, "FORMER_ITERATIONS", 3000)
    world.account()
    process = await world.process()
    await world.signed_in(process)
    await process.login()
    held = process.broker._holdings.get(ADA)
    assert held is not None
    assert held.tokens is not None
    await process.broker.close()
    assert await process.records.remove(ADA)
    assert world.files() == {}
    return held.tokens


async def serving(world: World, kept: Cached | None, **options: Any) -> Process:
    return await world.process(wait_s=0, cached=lambda account: kept if account.key == ADA else None, **options)


async def test_the_old_password_opens_them_and_no_one_signs_in(
    world: World, tokens: TokenSet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emailproxy.oauth")
    asked = len(world.grants())
    process = await serving(world, cached(tokens))
    assert await process.login(may_set=False) == tokens.access_token.reveal()
    assert f"what another proxy kept for {ADA} is taken over" in caplog.text
    assert len(world.grants()) == asked
    world.turned.turn(3600)
    world.provider.verify(await process.login())
    assert world.grants()[asked:] == ["refresh_token"]
    # from now on the record counts, whatever the other proxy's file says
    later = await serving(world, cached(tokens, access_token=under(WRONG, "another")))
    world.provider.verify(await later.login())
    with pytest.raises(WrongPassword, match="set up with here"):
        await later.login(password=WRONG)
    record = await process.records.load(ADA)
    assert record is not None
    assert [slot.name for slot in record.lockbox.slots] == ["first"]


async def test_a_wrong_password_is_refused_counted_and_changes_nothing(world: World, tokens: TokenSet) -> None:
    process = await serving(world, cached(tokens))
    with pytest.raises(WrongPassword, match=f"does not open the tokens that another proxy kept for {ADA}"):
        await process.login(password=WRONG)
    assert world.files() == {}
    await process.login()  # the right one in between
    assert await process.records.remove(ADA)
    again = await serving(world, cached(tokens))
    for number in range(100):
        with pytest.raises((WrongPassword, TooManyLogins)) as caught:
            await again.login(password=Secret(f"guess {number}"), address="192.0.2.1")
    assert caught.type is TooManyLogins
    assert world.files() == {}
    world.provider.verify(await again.login(address="192.0.2.2"))


async def test_ten_first_logins_open_them_once(world: World, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], fernet.opened
    monkeypatch.setattr(fernet, "opened", lambda *given: opened.append(given) or real(*given))
    process = await serving(world, cached(tokens))
    logins = [process.login(session=f"s{number}") for number in range(10)]
    assert len(set(await asyncio.gather(*logins))) == 1
    assert len(opened) == 1


async def test_of_two_processes_that_open_them_one_makes_the_record(
    world: World, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await serving(world, cached(tokens)), await serving(world, cached(tokens))
    new_lockbox = first.broker._keyring.new_lockbox

    async def overtaken(*given: Any, **named: Any) -> Any:
        await second.login()
        return await new_lockbox(*given, **named)

    monkeypatch.setattr(first.broker._keyring, "new_lockbox", overtaken)
    assert await first.login() == tokens.access_token.reveal()
    assert second.broker._holdings.get(ADA).key.public_key == first.broker._holdings.get(ADA).key.public_key  # type: ignore[union-attr]


@pytest.mark.parametrize("iterations", [None, STORED, 2000, 3000, 7])
async def test_a_value_may_be_under_any_of_the_counts(world: World, tokens: TokenSet, iterations: int | None) -> None:
    """Stored, today's or the former one, whatever is stored."""
    assert tokens.refresh_token is not None
    refresh = under(PASSWORD, tokens.refresh_token.reveal(), 3000)
    access = under(PASSWORD, tokens.access_token.reveal(), iterations or 2000)
    process = await serving(world, cached(tokens, iterations=iterations, refresh_token=refresh, access_token=access))
    assert await process.login() == tokens.access_token.reveal()
    world.turned.turn(3600)
    world.provider.verify(await process.login())


def test_the_figures_are_those_that_are_in_use() -> None:
    for iterations in (1_200_000, 100_000):
        kept = Cached(salt=SALT, access_token=under(PASSWORD, "token", iterations))
        found = fernet.opened(kept, ADA, PASSWORD)
        assert found.tokens is not None
        assert found.tokens.access_token == Secret("token")


def test_a_forged_count_is_not_paid() -> None:
    kept = Cached(salt=SALT, iterations=4_000_000_000, access_token=under(PASSWORD, "token", 100_000))
    assert fernet.opened(kept, ADA, PASSWORD).tokens is not None


async def test_the_refresh_token_alone_will_do(world: World, tokens: TokenSet) -> None:
    process = await serving(world, cached(tokens, access_token=None))
    asked = len(world.grants())
    world.provider.verify(await process.login())
    assert world.grants()[asked:] == ["refresh_token"]


async def test_a_token_whose_end_is_not_known_is_renewed(world: World, tokens: TokenSet) -> None:
    process = await serving(world, cached(tokens, access_token_expiry_s=None))
    assert await process.login() != tokens.access_token.reveal()


DAMAGED = [
    ({"refresh_token": "no token at all", "access_token": None}, "refresh_token"),
    ({"refresh_token": "gAAAA", "access_token": "é"}, "access_token and refresh_token"),
    ({"refresh_token": under(PASSWORD, b"\xff"), "access_token": under(PASSWORD, "a\r\nb")},
     "access_token and refresh_token"),
    ({"refresh_token": under(WRONG, "x"), "access_token": under(PASSWORD, "")}, "access_token and refresh_token"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "named"), DAMAGED)
async def test_damaged_values_are_as_if_absent_and_said_once(
    world: World, tokens: TokenSet, changes: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = await serving(world, cached(tokens, **changes))
    for _ in range(2):
        with pytest.raises(ConsentRequired) as caught:
            await process.login()
    said = [text for text in caplog.messages if "is damaged" in text]
    assert said == [f"the {named} that another proxy kept for {ADA} cannot be read and counts as absent: it is damaged"]
    assert (await browse(caught.value.url)).status == 200
    world.provider.verify(await process.login())


async def test_a_damaged_access_token_costs_a_refresh(world: World, tokens: TokenSet) -> None:
    process = await serving(world, cached(tokens, access_token="gone"))
    world.provider.verify(await process.login())
    assert world.grants()[-1] == "refresh_token"


async def test_what_cannot_be_stored_is_said_and_tried_again(
    world: World, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await serving(world, cached(tokens))
    with monkeypatch.context() as full:
        full.setattr("os.replace", no_space)
        with pytest.raises(AccountUnusable, match="No space left"):
            await process.login()
    assert await process.login() == tokens.access_token.reveal()


async def test_the_command_line_takes_them_over_or_starts_over(world: World, tokens: TokenSet) -> None:
    process = await serving(world, cached(tokens))
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert await process.login() == tokens.access_token.reveal()  # taken over, and the sign-in goes on beside it
    assert await process.records.remove(ADA)
    await process.consents.discard(ADA)
    fresh = await serving(world, cached(tokens))
    other = Secret("a new password")
    waiting = await fresh.broker.sign_in(ADA, other)
    assert waiting is not None
    with pytest.raises(WrongPassword, match="begun with another password"):
        await fresh.login()
    with pytest.raises(ConsentRequired):
        await fresh.login(password=other)
    assert (await browse(waiting.url)).status == 200
    world.provider.verify(await fresh.login(password=other))


async def test_where_the_provider_knows_the_password_it_says_which_is_right(world: World, tokens: TokenSet) -> None:
    """The mailbox's password was changed since: the old one opens the cache, the provider takes the new one."""
    world.account(flow=FlowName.PASSWORD, permission_url=None)
    new = Secret("the new password")
    world.provider.passwords = {ADA: new.reveal()}
    process = await serving(world, cached(tokens))
    world.provider.verify(await process.login(password=new))
    assert world.grants()[-1] == "password"
    record = await process.records.load(ADA)
    assert record is not None
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)


async def test_a_client_secret_is_taken_over_with_them(world: World, tokens: TokenSet) -> None:
    kept = cached(tokens, client_secret=under(PASSWORD, CLIENT_SECRET))
    world.account(client_secret=None)
    process = await serving(world, kept, keeps=True)
    await process.login()
    world.turned.turn(3600)
    await process.kept()
    assert world.grants()[-1] == "refresh_token"
    assert world.provider.requests[-1].status == 200
    world.provider.verify(await process.login())


async def test_a_client_secret_alone_proves_the_password(world: World, tokens: TokenSet) -> None:
    world.account(client_secret=None)
    process = await serving(world, Cached(salt=SALT, client_secret=under(PASSWORD, CLIENT_SECRET, 2000)))
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)
    with pytest.raises(ConsentRequired) as caught:
        await process.login(may_set=False)
    assert (await browse(caught.value.url)).status == 200
    world.provider.verify(await process.login())


async def test_nothing_kept_is_nothing(world: World, tokens: TokenSet, caplog: pytest.LogCaptureFixture) -> None:
    process = await serving(world, Cached(salt=SALT))
    with pytest.raises(ConsentRequired):
        await process.login()
    assert "damaged" not in caplog.text


def test_no_value_is_shown() -> None:
    found = fernet.opened(Cached(salt=SALT, iterations=STORED, access_token=under(PASSWORD, "canary")), ADA, PASSWORD)
    assert "canary" not in repr(found)
