"""Requests to a provider's endpoints in the name of an account's client, which authenticates in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from emailproxy.config.model import Account
from emailproxy.errors import ProviderRefused
from emailproxy.oauth.advice import no_refresh_token
from emailproxy.oauth.clientauth import authentication
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.http import Form, Read, TokenEndpoint
from emailproxy.oauth.replies import tokens_of
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret

Prepare = Callable[[Mapping[str, str]], str]
"""Makes a form of the parameters that authenticate the client, and of what the grant asks."""

T = TypeVar("T")


class Requests:
    """All grants' way to the provider."""

    def __init__(self, endpoint: TokenEndpoint, secrets: Secrets) -> None:
        self._endpoint = endpoint
        self._secrets = secrets

    async def tokens(self, account: Account, prepare: Prepare, *sent: Secret, once: bool = False) -> TokenSet:
        """What the token endpoint grants; as `Flow.acquire`, and `once` as `TokenEndpoint.request` has it."""
        return await self.ask(account, account.token_url, prepare, tokens_of, *sent, once=once)

    async def ask(
        self, account: Account, url: str, prepare: Prepare, read: Read[T], *sent: Secret, once: bool = False
    ) -> T:
        """What `read` makes of the reply of `url`.

        Args:
            sent: the secrets in the form besides those that authenticate the client.
        """

        async def form() -> Form:  # for every attempt: no assertion is sent twice (RFC 7523 section 3, "jti")
            proof = await authentication(account, self._secrets, self._endpoint.clock.now_s())
            return Form(prepare(proof.parameters), (*sent, *proof.sent))

        return await self._endpoint.ask(url, account.client_id, form, read, once=once)


async def refreshed(requests: Requests, account: Account, tokens: TokenSet) -> TokenSet:
    """Fresh tokens (RFC 6749 section 6); the old refresh token is kept where the provider returns none."""
    from oauthlib.oauth2 import WebApplicationClient

    if tokens.refresh_token is None:
        raise ProviderRefused(str(no_refresh_token(account)), code="invalid_grant")
    refresh_token: Secret = tokens.refresh_token
    again = {"resource": account.resource} if account.resource else {}  # RFC 8707 section 2.2

    def prepare(proof: Mapping[str, str]) -> str:
        body: str = WebApplicationClient(account.client_id).prepare_refresh_body(
            refresh_token=refresh_token.reveal(), client_id=account.client_id, **again, **proof
        )
        return body

    fresh = await requests.tokens(account, prepare, refresh_token, tokens.access_token)
    return replace(fresh, refresh_token=fresh.refresh_token or refresh_token, scope=fresh.scope or tokens.scope)
