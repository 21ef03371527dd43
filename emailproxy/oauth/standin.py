"""A token source for clients that cannot log in: their account's local password is given for them (`login_as`).

For that account, under that very name: an empty password opens neither its other mailboxes nor anybody else's."""

from __future__ import annotations

from dataclasses import replace

from emailproxy.config.model import Route
from emailproxy.config.sources import SecretSource
from emailproxy.errors import LoginRefused, WrongPassword
from emailproxy.oauth.broker import TokenBroker
from emailproxy.oauth.secrets import Secrets
from emailproxy.wire.events import Advice, Credential, Login, Visit


class StandIn:
    """The broker, but a login of this account without a password has the one that `login_as_password` names."""

    def __init__(self, broker: TokenBroker, account: str, secrets: Secrets, source: SecretSource) -> None:
        """`account` is what `login_as` says."""
        self._broker = broker
        self._account = account
        self._secrets = secrets
        self._source = source

    async def _whole(self, login: Login) -> Login:
        """Raises: AccountUnusable: the password cannot be read."""
        if login.password or login.user != self._account:
            return login
        password = await self._secrets.read(self._source, owner=login.user, key="login_as_password")
        return replace(login, password=password)

    def route(self, login: Login, visit: Visit) -> Route:
        return self._broker.route(login, visit)

    def at_once(self, login: Login, visit: Visit) -> Credential | None:
        return self._broker.at_once(login, visit) if login.password else None

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        whole = await self._whole(login)
        try:
            return await self._broker.token(whole, visit, rejected)
        except WrongPassword as error:
            raise error if whole is login else type(error)(f"login_as_password: {error}") from None

    def is_settled(self, login: Login, visit: Visit) -> bool:
        return bool(login.password) and self._broker.is_settled(login, visit)

    async def accepted(self, login: Login, visit: Visit) -> None:
        await self._broker.accepted(await self._whole(login), visit)

    def refused(self, login: Login, visit: Visit, error: LoginRefused) -> None:
        self._broker.refused(login, visit, error)

    def advise(self, text: str) -> Advice | None:
        return self._broker.advise(text)
