"""How a client authenticates at the token endpoint (RFC 6749 section 2.3, RFC 7523 section 2.2), for every grant."""

from __future__ import annotations

import re
import secrets as randomness
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emailproxy.config.model import KIB, MINUTES, Account
from emailproxy.errors import AccountUnusable
from emailproxy.oauth.secrets import Secrets, text_of
from emailproxy.secret import Secret

if TYPE_CHECKING:
    from emailproxy.oauth.certificate import ClientCertificate

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 section 2.2."""
ASSERTION_LIFE_S = 5 * MINUTES  # for one request; and for clocks that differ
JTI_OCTETS = 16
# RFC 7515 section 7.1: a compact serialisation, BASE64URL "." BASE64URL "." BASE64URL
COMPACT = re.compile(rf"(?=.{{5,{16 * KIB}}}\Z)[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Authentication:
    """What a request says to prove who asks: nothing, for a public client."""

    parameters: Mapping[str, str] = field(repr=False)
    sent: tuple[Secret, ...] = ()
    """The secrets among the parameters, which no error text may repeat."""


async def authentication(account: Account, secrets: Secrets, now_s: int) -> Authentication:
    """The client's secret; without one its federated assertion; without that one signed with its certificate's key.

    Raises:
        AccountUnusable: what the configuration names cannot be used.
    """
    if account.client_secret is not None:
        secret = await secrets.read(account.client_secret, owner=account.name, key="client_secret")
        return Authentication({"client_secret": secret.reveal()}, (secret,))
    if account.client_assertion_file is not None:
        return bearing(await federated_assertion(account))
    if account.certificate is not None:
        from emailproxy.oauth.certificate import certificate_of

        return bearing(signed_assertion(account, await certificate_of(account, secrets), now_s))
    return Authentication({})


def bearing(assertion: Secret) -> Authentication:
    return Authentication({"client_assertion_type": JWT_BEARER, "client_assertion": assertion.reveal()}, (assertion,))


async def federated_assertion(account: Account) -> Secret:
    """The JWT that somebody else (Kubernetes, GitHub) keeps fresh in a file; read anew at every use.

    Raises:
        AccountUnusable: it cannot be read, or is no JWT.
    """
    assert account.client_assertion_file is not None
    what = f"the client_assertion_file of {account.name}"
    assertion = (await text_of(account.client_assertion_file, what)).reveal().strip()
    if not COMPACT.fullmatch(assertion):
        raise AccountUnusable(f"{what} ({account.client_assertion_file}) holds no JWT; see that it is written whole")
    return Secret(assertion)


def signed_assertion(account: Account, certificate: ClientCertificate, now_s: int) -> Secret:
    """`private_key_jwt` (OpenID Connect Core section 9), with the thumbprints by which Microsoft finds the key."""
    import jwt

    claims = {
        "iss": account.client_id,
        "sub": account.client_id,
        "aud": account.token_url,
        "jti": randomness.token_urlsafe(JTI_OCTETS),
        "iat": now_s,
        "exp": now_s + ASSERTION_LIFE_S,
    }
    headers = {"x5t": certificate.x5t, "x5t#S256": certificate.x5t_s256}
    return Secret(jwt.encode(claims, certificate.key, algorithm="RS256", headers=headers))
