"""The grants of RFC 6749, with PKCE (RFC 7636), on oauthlib's request and response helpers.

The client authenticates in the form (`client_secret_post`, RFC 6749 section 2.3.1), which every provider of mail
takes. Neither the code exchange nor a refresh names a scope: what was granted is asked for again (section 6).
"""

from __future__ import annotations

from dataclasses import replace

from oauthlib.oauth2 import BackendApplicationClient, WebApplicationClient

from emailproxy.config.model import Account, FlowName
from emailproxy.errors import ProviderRefused
from emailproxy.oauth.flow import Consent, Flow, TokenSet
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.secret import Secret


class AuthorizationCode:
    """RFC 6749 section 4.1, with PKCE always; refreshed by section 6."""

    needs_consent = True

    def __init__(self, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint

    async def acquire(self, account: Account, consent: Consent | None) -> TokenSet:
        """Exchanges the code (section 4.1.3). It is sent once, whatever happens."""
        if consent is None:
            raise ValueError("the authorization code grant needs a consent")
        form = WebApplicationClient(account.client_id).prepare_request_body(
            code=consent.code.reveal(),
            redirect_uri=consent.redirect_uri,
            code_verifier=consent.verifier.reveal(),
            **authentication(account),
        )
        return await self._endpoint.request(
            account, form, sent=secrets_of(account, consent.code, consent.verifier), once=True
        )

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        """Fresh tokens (section 6); the old refresh token is kept where the provider returns none."""
        if tokens.refresh_token is None:
            raise ProviderRefused("the provider gave no refresh token", code="invalid_grant")
        form = WebApplicationClient(account.client_id).prepare_refresh_body(
            refresh_token=tokens.refresh_token.reveal(),
            client_id=account.client_id,
            **authentication(account),
        )
        fresh = await self._endpoint.request(
            account, form, sent=secrets_of(account, tokens.refresh_token, tokens.access_token)
        )
        return replace(
            fresh,
            refresh_token=fresh.refresh_token or tokens.refresh_token,
            scope=fresh.scope or tokens.scope,
        )


class ClientCredentials:
    """RFC 6749 section 4.4: the program acts for itself, no person is asked."""

    needs_consent = False

    def __init__(self, endpoint: TokenEndpoint) -> None:
        self._endpoint = endpoint

    async def acquire(self, account: Account, consent: Consent | None = None) -> TokenSet:
        form = BackendApplicationClient(account.client_id).prepare_request_body(
            scope=account.scope or None, include_client_id=True, **authentication(account)
        )
        granted = await self._endpoint.request(account, form, sent=secrets_of(account))
        return replace(granted, refresh_token=None)  # RFC 6749 section 4.4.3: there should be none

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self.acquire(account)


def flows(endpoint: TokenEndpoint) -> dict[FlowName, Flow]:
    """The grants that need nothing but a token endpoint."""
    return {
        FlowName.AUTHORIZATION_CODE: AuthorizationCode(endpoint),
        FlowName.CLIENT_CREDENTIALS: ClientCredentials(endpoint),
    }


def authentication(account: Account) -> dict[str, str]:
    """RFC 6749 section 2.3.1; a public client has no secret to send."""
    return {"client_secret": account.client_secret.reveal()} if account.client_secret else {}


def secrets_of(account: Account, *others: Secret) -> list[Secret]:
    return [*others, account.client_secret] if account.client_secret else list(others)
