"""The interface that every grant implements, and what it yields."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's approval, as it came to the redirect listener (RFC 6749 section 4.1.2)."""

    code: Secret
    verifier: Secret
    """PKCE's code_verifier (RFC 7636 section 4.1)."""
    redirect_uri: str
    """The one the authorization request named."""


class Flow(Protocol):
    """One grant. Implementations do the HTTP and the parsing, and keep no tokens."""

    needs_consent: bool
    """Whether a person must approve before `acquire`."""

    async def acquire(self, account: Account, consent: Consent | None) -> TokenSet:
        """New tokens.

        Raises:
            ProviderUnavailable: no sensible answer; try later.
            ProviderRefused: a definite refusal, with its OAuth 2.0 error code.
        """

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        """Fresh tokens for `tokens.refresh_token`; the old refresh token is kept where none is returned.

        Raises:
            ProviderUnavailable, ProviderRefused: as for `acquire`.
        """
