"""The grants of RFC 6749, 7636 (PKCE) and 8628, on oauthlib's request and response helpers.

The client authenticates in the form (`client_secret_post`, RFC 6749 section 2.3.1), which every provider of mail
takes, or with an assertion (RFC 7523). Neither the code exchange nor a refresh names a scope: what was granted is
asked for again (section 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.clientsecret import require_credential
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.devicecode import DeviceCode
from emailproxy.oauth.flow import Approval, Consent, Flow, FlowOf, Grant, OwnPassword, TokenSet
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.oauth.identity import expected
from emailproxy.oauth.secrets import Secrets
from emailproxy.oauth.tokencommand import TokenCommand
from emailproxy.oauth.tokenrequests import Requests, refreshed
from emailproxy.secret import Secret


class AuthorizationCode:
    """RFC 6749 section 4.1, with PKCE always; refreshed by section 6."""

    approval = Approval.PERSON

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        """Exchanges the code (section 4.1.3). It is sent once, whatever happens."""
        from oauthlib.oauth2 import WebApplicationClient

        if not isinstance(grant, Consent):
            raise TypeError("the authorization code grant needs a consent")
        consent = grant

        def prepare(proof: Mapping[str, str]) -> str:
            body: str = WebApplicationClient(account.client_id).prepare_request_body(
                code=consent.code.reveal(),
                redirect_uri=consent.redirect_uri,
                code_verifier=consent.verifier.reveal(),
                **proof,
            )
            return body

        return await self._requests.tokens(account, prepare, consent.code, consent.verifier, once=True)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await refreshed(self._requests, account, tokens)


class ClientCredentials:
    """RFC 6749 section 4.4: the program acts for itself, no person is asked."""

    approval = Approval.NONE

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def acquire(self, account: Account, grant: Grant | None = None) -> TokenSet:
        from oauthlib.oauth2 import BackendApplicationClient

        require_credential(account)

        def prepare(proof: Mapping[str, str]) -> str:
            body: str = BackendApplicationClient(account.client_id).prepare_request_body(
                scope=account.scope or None, include_client_id=True, **proof
            )
            return body

        granted = await self._requests.tokens(account, prepare)
        return replace(granted, refresh_token=None)  # section 4.4.3: there should be none

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self.acquire(account)


class ResourceOwnerPassword:
    """RFC 6749 section 4.3: the mailbox's own password, for tokens."""

    approval = Approval.PASSWORD

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        from oauthlib.oauth2 import LegacyApplicationClient

        if not isinstance(grant, OwnPassword):
            raise TypeError("the password grant needs the mailbox's password")
        password: Secret = grant.password

        def prepare(proof: Mapping[str, str]) -> str:
            asked = {"resource": account.resource} if account.resource else {"scope": account.scope or None}
            body: str = LegacyApplicationClient(account.client_id).prepare_request_body(
                username=expected(account), password=password.reveal(), include_client_id=True, **asked, **proof
            )
            return body

        return await self._requests.tokens(account, prepare, password)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        """Without a refresh token the password is needed again, which the next login brings."""
        return await refreshed(self._requests, account, tokens)


def grants(endpoint: TokenEndpoint, secrets: Secrets, commands: Commands) -> Mapping[FlowName, Flow]:
    """Every grant that needs no provider's own library."""
    requests = Requests(endpoint, secrets)
    return {
        FlowName.AUTHORIZATION_CODE: AuthorizationCode(requests),
        FlowName.DEVICE: DeviceCode(requests),
        FlowName.CLIENT_CREDENTIALS: ClientCredentials(requests),
        FlowName.PASSWORD: ResourceOwnerPassword(requests),
        FlowName.TOKEN_COMMAND: TokenCommand(commands, endpoint.clock),
    }


def flows(endpoint: TokenEndpoint, secrets: Secrets | None = None, commands: Commands | None = None) -> FlowOf:
    """The same, by account."""
    commands = commands or Commands()
    by_name = grants(endpoint, secrets or Secrets(commands), commands)
    return lambda account: by_name[account.flow]
