"""Microsoft's grants, by msal: it knows their endpoints, assertions and clouds; what is kept, and tried again, is ours.

Every request is one application object's, made for it: msal's would keep tokens, and replay errors for a minute after
they are mended. What it learned of a tenant's endpoints is kept, so that a request is mostly one POST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from emailproxy.config.model import Account, FlowName
from emailproxy.errors import AccountUnusable, EmailProxyError, ProviderRefused
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.blocking import Blocking, unavailable_behind
from emailproxy.oauth.certificate import ClientCertificate, certificate_of
from emailproxy.oauth.clientauth import federated_assertion
from emailproxy.oauth.clientsecret import require_credential
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.devicecode import authorization_of
from emailproxy.oauth.flow import Approval, Consent, DeviceAuthorization, Flow, Grant, TokenSet
from emailproxy.oauth.http import Read
from emailproxy.oauth.microsoft.discoveries import Discoveries
from emailproxy.oauth.microsoft.managedidentity import ManagedIdentity
from emailproxy.oauth.replies import Unreadable, tokens_of
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret

TOKEN_PATHS = ("/oauth2/v2.0/token", "/oauth2/token")
"""What follows the tenant in a `token_url`; msal knows the rest."""
CHECKED = "checked"
"""The `state` for msal, which compares it: whoever hands us a code has done so."""
RESERVED = ("openid", "profile", "offline_access")
"""Scopes that msal adds by itself, and refuses to be given."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Federated:
    """A JWT that somebody else signed (workload identity federation)."""

    assertion: Secret


Credential = Secret | Federated | ClientCertificate | None
"""How the client authenticates; None for a public one."""

Call = Callable[[Any], object]
"""What is asked of an msal application: one request."""


def grants(blocking: Blocking, secrets: Secrets, attempts: Attempts, *, clock: Clock) -> Mapping[FlowName, Flow]:
    """What msal does for us."""
    applications = Applications(blocking, secrets, attempts, clock)
    return {
        FlowName.AUTHORIZATION_CODE: AuthorizationCode(applications),
        FlowName.DEVICE: DeviceCode(applications),
        FlowName.CLIENT_CREDENTIALS: ClientCredentials(applications, ManagedIdentity(blocking, attempts, clock)),
    }


class AuthorizationCode:
    """RFC 6749 section 4.1, with PKCE always; refreshed by section 6."""

    approval = Approval.PERSON

    def __init__(self, applications: Applications) -> None:
        self._applications = applications

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        """Exchanges the code. It is sent once, whatever happens."""
        if not isinstance(grant, Consent):
            raise TypeError("the authorization code grant needs a consent")
        consent = grant
        request = {
            "state": CHECKED,
            "scope": [*scopes_of(account), *RESERVED],
            "redirect_uri": consent.redirect_uri,
            "code_verifier": consent.verifier.reveal(),
        }

        def exchange(application: Any) -> object:
            return application.acquire_token_by_auth_code_flow(
                request, {"state": CHECKED, "code": consent.code.reveal()}
            )

        return await self._applications.ask(account, exchange, tokens_of, once=True)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await refreshed(self._applications, account, tokens)


class DeviceCode:
    """RFC 8628, refreshed by RFC 6749 section 6."""

    approval = Approval.PERSON

    def __init__(self, applications: Applications) -> None:
        self._applications = applications

    async def begin(self, account: Account) -> DeviceAuthorization:
        """Asks for a code for the person (section 3.1)."""
        scopes = scopes_of(account)
        return await self._applications.ask(account, lambda app: app.initiate_device_flow(scopes), authorization_of)

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        """Polls once (section 3.4): who calls keeps the interval."""
        if not isinstance(grant, DeviceAuthorization):
            raise TypeError("the device grant needs a device authorization")
        device_code: Secret = grant.device_code

        def poll(application: Any) -> object:
            flow = {"device_code": device_code.reveal()}
            return application.acquire_token_by_device_flow(flow, exit_condition=lambda _: True)

        return await self._applications.ask(account, poll, tokens_of, once=True)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await refreshed(self._applications, account, tokens)


class ClientCredentials:
    """RFC 6749 section 4.4, with a secret, a certificate, a federated assertion, or Azure's managed identity."""

    approval = Approval.NONE

    def __init__(self, applications: Applications, managed_identity: ManagedIdentity) -> None:
        self._applications = applications
        self._managed_identity = managed_identity

    async def acquire(self, account: Account, grant: Grant | None = None) -> TokenSet:
        if account.managed_identity is not None:
            return await self._managed_identity.acquire(account)
        require_credential(account)
        scopes = scopes_of(account)
        granted = await self._applications.ask(account, lambda app: app.acquire_token_for_client(scopes), tokens_of)
        return replace(granted, refresh_token=None)  # section 4.4.3: there should be none

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self.acquire(account)


async def refreshed(applications: Applications, account: Account, tokens: TokenSet) -> TokenSet:
    """Fresh tokens (RFC 6749 section 6); the old refresh token is kept where none is returned."""
    if tokens.refresh_token is None:
        raise ProviderRefused(f"the provider gave no refresh token for {account.name}", code="invalid_grant")
    refresh_token: Secret = tokens.refresh_token
    scopes = scopes_of(account)

    def refresh(application: Any) -> object:
        return application.acquire_token_by_refresh_token(refresh_token.reveal(), scopes)

    fresh = await applications.ask(account, refresh, tokens_of)
    return replace(fresh, refresh_token=fresh.refresh_token or refresh_token, scope=fresh.scope or tokens.scope)


class Applications:
    """All grants' way to Microsoft."""

    def __init__(self, blocking: Blocking, secrets: Secrets, attempts: Attempts, clock: Clock) -> None:
        self._blocking = blocking
        self._secrets = secrets
        self._attempts = attempts
        self._clock = clock
        self._discoveries = Discoveries(clock.monotonic_s)

    async def ask(self, account: Account, call: Call, read: Read[T], *, once: bool = False) -> T:
        """What `read` makes of the reply to the one request of `call`.

        Args:
            once: never try twice.

        Raises:
            ProviderUnavailable, ProviderRefused, AccountUnusable: as `Flow.acquire` says.
        """
        authority = authority_of(account)
        url = urlsplit(account.token_url)

        async def attempt(left_s: float) -> T:
            begun_s = self._clock.monotonic_s()
            credential = await credential_of(account, self._secrets)
            left_s -= self._clock.monotonic_s() - begun_s
            return await self._blocking.run(
                lambda: self._asked(account, authority, credential, call, read), left_s=left_s
            )

        return await self._attempts.run(f"{url.netloc}{url.path} {account.client_id}", attempt, once=once)

    def _asked(self, account: Account, authority: str, credential: Credential, call: Call, read: Read[T]) -> T:
        """Blocks. The reply to the one request is read by `exchange`; what msal makes of it counts for nothing."""
        from emailproxy.oauth.microsoft.http import Exchange, application

        exchange = Exchange(self._blocking.session(), self._discoveries, self._clock, self._attempts.skew, read)
        try:
            call(application(account.client_id, authority, as_msal_has_it(credential), exchange))
        except EmailProxyError:
            raise
        except Exception as error:  # ValueError, KeyError, TypeError and more, for what it cannot use
            if unavailable_behind(error) is not None:
                raise
            if not exchange.results:
                raise Unreadable(
                    f"the provider at {urlsplit(authority).netloc} sent a list of endpoints that cannot be used "
                    f"({type(error).__name__}); tokens are kept, try again later"
                ) from None
        return exchange.results[-1]


async def credential_of(account: Account, secrets: Secrets) -> Credential:
    """The client's secret; without one its federated assertion; without that its certificate. Read anew every time.

    Raises:
        AccountUnusable: what the configuration names cannot be used.
    """
    if account.client_secret is not None:
        return await secrets.read(account.client_secret, owner=account.name, key="client_secret")
    if account.client_assertion_file is not None:
        return Federated(await federated_assertion(account))
    if account.certificate is not None:
        return await certificate_of(account, secrets)
    return None


def as_msal_has_it(credential: Credential) -> object:
    """msal's `client_credential`. With the certificate it makes an assertion (RFC 7523) of its own."""
    match credential:
        case Secret():
            return credential.reveal()
        case Federated(assertion):
            return {"client_assertion": assertion.reveal}  # a function: a text would expire, msal warns
        case ClientCertificate():
            return {
                "private_key": credential.key,
                "public_certificate": credential.chain_pem,
            }
        case None:
            return None


def authority_of(account: Account) -> str:
    """``https://HOST/TENANT``: whose endpoints msal asks for.

    Raises:
        AccountUnusable: `token_url` does not say.
    """
    url = urlsplit(account.token_url)
    for path in TOKEN_PATHS:
        tenant = url.path.removesuffix(path).strip("/")
        if url.scheme == "https" and url.path.endswith(path) and tenant:
            return f"https://{url.netloc}/{tenant}"
    raise AccountUnusable(
        f"the token_url of account {account.name} is not like https://login.microsoftonline.com/TENANT"
        f"{TOKEN_PATHS[0]}; mend it in [{account.section}], or say provider = generic"
    )


def scopes_of(account: Account) -> list[str]:
    return [scope for scope in account.scope.split() if scope not in RESERVED]
