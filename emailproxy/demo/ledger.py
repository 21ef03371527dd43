"""What the embedded provider has granted: codes, refresh tokens in families, access tokens. No HTTP here."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from emailproxy.errors import EmailProxyError

CODE_LIFETIME_S = 60
"""RFC 6749 section 4.1.2 recommends ten minutes at most; a loopback needs less."""
AUDIENCE = "mailbox"
KEY_ID = "default"
"""The `kid` of every token: where Dovecot looks for a validation key that has no other name."""


class OAuthError(EmailProxyError):
    """A refusal with its OAuth 2.0 error code (RFC 6749 sections 4.1.2.1 and 5.2)."""

    def __init__(self, code: str, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.status = status


class TokenInvalid(EmailProxyError):
    """An access token that no mail server should take."""


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client (RFC 6749 section 2). Without a secret it is a public one."""

    id: str
    secret: str | None = None
    redirect_uris: tuple[str, ...] = ()


@dataclass(slots=True)
class Family:
    """All refresh tokens that descend from one authorization."""

    client_id: str
    account: str
    scope: str
    revoked: bool = False
    latest: str = ""
    replaced_at_s: dict[str, float] = field(default_factory=dict)
    """When each earlier refresh token was replaced."""


@dataclass(slots=True)
class Code:
    family: Family
    redirect_uri: str
    challenge: str
    """PKCE's code_challenge, method S256 (RFC 7636 section 4.2)."""
    expires_at_s: float
    used: bool = False


@functools.cache
def signing_key() -> rsa.RSAPrivateKey:
    """The process's own RSA key, made when first needed."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Ledger:
    """Grants, rotates, revokes and verifies."""

    def __init__(self, *, now: Callable[[], float], grace_s: float, rotate: bool) -> None:
        self._now = now
        self._grace_s = grace_s
        self._rotate = rotate
        self._key = signing_key()
        self._codes: dict[str, Code] = {}
        self._families: dict[str, Family] = {}
        self._access_tokens: set[str] = set()

    @property
    def public_key_pem(self) -> str:
        """What a mail server checks the tokens' RS256 signatures with."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return public.decode("ascii")

    def new_code(self, family: Family, redirect_uri: str, challenge: str) -> str:
        code = secrets.token_urlsafe(24)
        self._codes[code] = Code(family, redirect_uri, challenge, self._now() + CODE_LIFETIME_S)
        return code

    def redeem_code(self, client: Client, code: str, redirect_uri: str, verifier: str) -> Family:
        """The authorization that a code stands for (RFC 6749 section 4.1.3, RFC 7636 section 4.6).

        A second use revokes what the first one was given (RFC 6749 section 4.1.2).
        """
        found = self._codes.get(code)
        if found is None or found.family.client_id != client.id:
            raise OAuthError("invalid_grant", "the code is not known to this client")
        if found.used:
            found.family.revoked = True
            raise OAuthError("invalid_grant", "the code was used before; its tokens are revoked")
        if found.expires_at_s < self._now():
            raise OAuthError("invalid_grant", "the code has expired")
        if found.redirect_uri != redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri is not that of the authorization request")
        if not hmac.compare_digest(s256(verifier), found.challenge):
            raise OAuthError("invalid_grant", "code_verifier does not match code_challenge")
        found.used = True
        return found.family

    def new_refresh_token(self, family: Family) -> str:
        if family.latest and not self._rotate:
            return family.latest
        token = secrets.token_urlsafe(32)
        if family.latest:
            family.replaced_at_s[family.latest] = self._now()
        family.latest = token
        self._families[token] = family
        return token

    def redeem_refresh_token(self, client: Client, token: str) -> Family:
        """The family of a refresh token. One that was replaced longer than the grace ago revokes its family
        (RFC 9700 section 4.14.2)."""
        family = self._families.get(token)
        if family is None or family.client_id != client.id:
            raise OAuthError("invalid_grant", "the refresh token is not known to this client")
        replaced_at_s = family.replaced_at_s.get(token)
        if replaced_at_s is not None and self._now() - replaced_at_s >= self._grace_s:
            family.revoked = True
        if family.revoked:
            raise OAuthError("invalid_grant", "the refresh token was revoked")
        return family

    def revoke_refresh_tokens(self) -> None:
        for family in self._families.values():
            family.revoked = True

    @property
    def revoked_families(self) -> int:
        return len({id(family) for family in self._families.values() if family.revoked})

    def new_access_token(self, claims: Mapping[str, Any], *, issuer: str, expires_in: int) -> str:
        """A JWT (RFC 9068 in spirit), signed with RS256."""
        now = int(self._now())
        token_id = secrets.token_hex(8)
        self._access_tokens.add(token_id)
        standard = {"iss": issuer, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + expires_in}
        return jwt.encode(
            {**standard, "jti": token_id, **claims}, self._key, algorithm="RS256", headers={"kid": KEY_ID}
        )

    def revoke_access_tokens(self) -> None:
        self._access_tokens.clear()

    def verify(self, token: str, *, issuer: str) -> dict[str, Any]:
        """The claims of a token that is genuine, not expired and not revoked."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                issuer=issuer,
                options={
                    "require": ["exp", "nbf", "jti"],
                    # By our own clock, below.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            raise TokenInvalid(f"the access token is not genuine ({type(error).__name__})") from None
        if not claims["nbf"] <= self._now() < claims["exp"]:
            raise TokenInvalid("the access token is out of its time")
        if claims["jti"] not in self._access_tokens:
            raise TokenInvalid("the access token was revoked")
        return claims


def s256(verifier: str) -> str:
    """PKCE's S256 transformation (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
