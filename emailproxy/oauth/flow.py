"""The interface that every grant implements, what it is given, and what it yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from emailproxy.config.model import Account
from emailproxy.secret import Secret


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a token endpoint granted (RFC 6749 section 5.1), validated."""

    access_token: Secret
    expires_at_s: int | None
    """Seconds since the epoch; None where the provider does not say."""
    refresh_token: Secret | None = None
    scope: str = ""
    identities: tuple[str, ...] = ()
    """Whom the provider says the tokens are of: mail addresses and user names from an id_token (OpenID Connect Core
    section 5.1) or a JWT access token; empty where it does not say. They are told, and stored nowhere."""


class Approval(Enum):
    """Whose approval a grant needs before it yields tokens."""

    NONE = "none"
    """The configuration suffices: client credentials, service account, token command."""
    PERSON = "person"
    """The mailbox's owner approves in a browser: authorization code, device."""
    PASSWORD = "password"  # noqa: S105 - a name, not a secret
    """The mailbox's own password, which the mail program sends (RFC 6749 section 4.3)."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's approval, as it came to the redirect listener (RFC 6749 section 4.1.2)."""

    code: Secret
    verifier: Secret
    """PKCE's code_verifier (RFC 7636 section 4.1)."""
    redirect_uri: str
    """The one the authorization request named."""


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """A device authorization response (RFC 8628 section 3.2), validated; its approval is asked for by polling."""

    device_code: Secret
    user_code: str
    """What the person types; shown in the log and on the terminal."""
    verification_uri: str
    verification_uri_complete: str | None
    """With the code in it already; not every provider has one."""
    expires_at_s: int
    """Seconds since the epoch."""
    interval_s: int = 5
    """Seconds between polls at least (section 3.2: 5 where the provider does not say)."""


@dataclass(frozen=True, slots=True)
class OwnPassword:
    """The mailbox's own password (RFC 6749 section 4.3.2)."""

    password: Secret = field(repr=False)


Grant = Consent | DeviceAuthorization | OwnPassword
"""What `Flow.acquire` is given; None where the configuration suffices."""


class Flow(Protocol):
    """One grant at one provider. Implementations do the HTTP and the parsing, and keep no tokens."""

    approval: Approval

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        """New tokens.

        Raises:
            ProviderUnavailable: no sensible answer; try later.
            ProviderRefused: a definite refusal, with its OAuth 2.0 error code.
            AuthorizationPending: a device authorization waits for its person still.
            AccountUnusable: a secret, key or command that the configuration names cannot be used.
        """

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        """Fresh tokens for `tokens.refresh_token`; the old refresh token is kept where none is returned.

        Without a refresh token: a flow with `Approval.NONE` acquires anew, the others raise ProviderRefused with the
        code ``invalid_grant``.

        Raises:
            ProviderUnavailable, ProviderRefused, AccountUnusable: as for `acquire`.
        """


class DeviceFlow(Flow, Protocol):
    """The device authorization grant (RFC 8628). `acquire` polls once."""

    async def begin(self, account: Account) -> DeviceAuthorization:
        """Asks for a device code and a user code (section 3.1).

        Raises:
            ProviderUnavailable, ProviderRefused, AccountUnusable: as for `acquire`.
        """


FlowOf = Callable[[Account], Flow]
"""The grant of an account, at its provider."""
