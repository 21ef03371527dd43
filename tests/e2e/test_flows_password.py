"""The password grant (RFC 6749 section 4.3) through a mail login: the local password is the mailbox's own."""

from __future__ import annotations

import imaplib
import json
from pathlib import Path

import pytest

from tests.e2e.harness.realm import SCOPE, Realm, Settings, realm
from tests.e2e.harness.world import PASSWORD, USER
from tests.fakes.provider import altered

pytestmark = pytest.mark.system("dovecot")

CHANGED = "a canary of a new password"
SEVERAL = 9
"""Requests: on a busy machine a token that ends soon ends before its first login is done with."""


def account(ours: Realm, **asked_for: object) -> Settings:
    """For a scope, or what else is asked for."""
    ours.provider.passwords[USER] = PASSWORD
    ours.canaries.add(CHANGED)
    section = ours.application | {"oauth2_flow": "password"}
    del section["oauth2_scope"]
    return section | (asked_for or {"oauth2_scope": SCOPE})


def grants(ours: Realm) -> list[tuple[str, int]]:
    return [(request.grant, request.status) for request in ours.provider.requests]


@pytest.mark.parametrize(
    ("key", "parameter", "value"),
    [("oauth2_scope", "scope", SCOPE), ("oauth2_resource", "resource", "https://partner.outlook.cn/")],
)
async def test_the_provider_is_given_the_password(tmp_path: Path, key: str, parameter: str, value: str) -> None:
    async with realm(tmp_path) as ours:
        async with ours.proxy(account(ours, **{key: value})):
            await ours.log_in()
            await ours.log_in()
        [asked] = ours.provider.requests
        said = {name: asked.form.get(name) for name in ("username", "password", "scope", "resource")}
        assert said == {"username": USER, "password": PASSWORD, "scope": None, "resource": None} | {parameter: value}


async def test_a_wrong_password_is_refused_and_becomes_no_slot(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        async with ours.proxy(account(ours)) as proxy:
            ours.canaries.add("canary of a guess")
            told = await ours.refusal(password="canary of a guess")
            assert "[AUTHENTICATIONFAILED]" in told
            assert "invalid_grant" in told
            [listed] = json.loads((await ours.run("accounts", "list", "--json")).output)
            assert (listed["state"], listed["passwords"]) == ("absent", 0)
            await ours.log_in()
            await proxy.printed(f"account {USER} is set up")
            assert "[AUTHENTICATIONFAILED]" in await ours.refusal(password="canary of a guess")
            [listed] = json.loads((await ours.run("accounts", "list", "--json")).output)
            assert (listed["state"], listed["passwords"]) == ("live", 1)
        assert grants(ours) == [("password", 400), ("password", 200)], "the same guess is offered once a minute"


async def test_a_password_that_was_changed_at_the_provider(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        async with ours.proxy(account(ours)) as proxy:
            await ours.log_in()
            await proxy.printed(f"account {USER} is set up: the password of its first login")
            ours.provider.passwords[USER] = CHANGED
            await ours.log_in(password=CHANGED)
            await proxy.printed(f"account {USER} is set up: the password of its last login")
            assert "[AUTHENTICATIONFAILED]" in await ours.refusal()
            await ours.log_in(password=CHANGED)
        assert grants(ours) == [("password", 200), ("password", 200), ("password", 400)]
        async with ours.proxy(account(ours)):
            await ours.log_in(password=CHANGED)


async def test_an_old_password_ends_with_its_tokens(tmp_path: Path) -> None:
    """The provider has revoked what it was given for the old password, and nobody has told us the new one yet."""
    async with realm(tmp_path) as ours:
        ours.provider.next(*[altered(expires_in=2)] * SEVERAL)
        async with ours.proxy(account(ours)) as proxy:
            await ours.log_in_until(lambda: bool(grants(ours)))
            await proxy.printed(f"account {USER} is set up")
            ours.provider.passwords[USER] = CHANGED
            ours.provider.revoke_refresh_tokens()
            with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
                await ours.log_in_until(lambda: False)
            await ours.log_in(password=CHANGED)
        offered = [request.form["password"] for request in ours.provider.requests if request.grant == "password"]
        assert offered[-2:] == [PASSWORD, CHANGED]
        assert ("refresh_token", 400) in grants(ours)


async def test_a_lifetime_in_quotes(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        ours.provider.next(*[altered(expires_in="2")] * SEVERAL)
        async with ours.proxy(account(ours)):
            await ours.log_in_until(lambda: ("refresh_token", 200) in grants(ours))
            await ours.log_in()
        assert grants(ours)[0] == ("password", 200)
