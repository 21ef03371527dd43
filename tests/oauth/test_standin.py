"""Clients that cannot log in: the account of `login_as` gets its local password from where the configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from emailproxy.config.model import MailServer
from emailproxy.config.sources import FromFile
from emailproxy.errors import AccountUnusable, WrongPassword
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.happenings import Event
from emailproxy.oauth.secrets import Secrets
from emailproxy.oauth.standin import StandIn
from emailproxy.secret import Secret
from emailproxy.wire.events import Login
from tests.oauth.world import ADA, PASSWORD, WRONG, World, visit_of

NONE = Secret("")


async def test_a_login_without_a_password_has_the_one_that_is_named(world: World, tmp_path: Path) -> None:
    world.application(smtp_server=MailServer("smtp.example.org", 465), max_connections=3)
    process, file = await world.process(), tmp_path / "password"
    source = StandIn(process.broker, ADA, Secrets(Commands()), FromFile(file))
    visit = visit_of(protocol="SMTP")
    route = source.route(Login(ADA, NONE), visit)
    assert (route.account, route.server, route.max_connections) == (ADA, MailServer("smtp.example.org", 465), 3)
    with pytest.raises(AccountUnusable, match=f"the login_as_password of {ADA} cannot be read"):
        await source.token(Login(ADA, NONE), visit)
    file.write_text(PASSWORD.reveal() + "\n")
    credential = await source.token(Login(ADA, NONE), visit)
    await source.accepted(Login(ADA, NONE), visit)
    assert await process.login() == credential.token.reveal()  # it became the account's
    file.write_text(WRONG.reveal())
    with pytest.raises(WrongPassword, match=r"^login_as_password: the password is not the one"):
        await source.token(Login(ADA, NONE), visit)


async def test_only_the_account_itself_is_stood_in_for(world: World) -> None:
    """Not the other mailboxes that its password opens, nor an account that nobody has claimed yet."""
    world.application()
    world.application("sales@example.org", token_owner=ADA)
    world.application("new@example.org")
    process = await world.process()
    await process.login()
    source = StandIn(process.broker, ADA, Secrets(Commands()), PASSWORD)
    for name in ("sales@example.org", "new@example.org"):
        with pytest.raises(WrongPassword, match="no password was sent"):
            await source.token(Login(name, NONE), visit_of(protocol="SMTP"))


async def test_all_other_logins_pass_through(world: World) -> None:
    world.application()
    process = await world.process()
    source = StandIn(process.broker, ADA, Secrets(Commands()), PASSWORD)
    await process.login()
    with pytest.raises(WrongPassword, match=r"^the password is not the one") as caught:
        await source.token(Login(ADA, WRONG), visit_of())
    source.refused(Login(ADA, WRONG), visit_of(), caught.value)
    assert process.told[-1].event is Event.LOGIN_FAILED
    assert (await source.token(Login(ADA, PASSWORD), visit_of())).user == ADA
    assert source.advise("550 5.7.60 SMTP; Client does not have permissions to send as this sender") is not None
    with pytest.raises(WrongPassword, match="no password was sent"):
        await process.broker.token(Login(ADA, NONE), visit_of())
