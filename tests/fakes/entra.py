"""Registered applications, how they authenticate, and the errors of Microsoft's token endpoint."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from emailproxy.demo.ledger import OAuthError

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EXCHANGE_AUDIENCE = "api://AzureADTokenExchange"
"""What a federated assertion is for."""
CLUSTER = "https://oidc.cluster.example"
"""Who signs federated assertions."""
HINTS = {
    "used before": 54005,
    "expired": 70008,
    "code_verifier": 501481,
    "redirect_uri": 500112,
    "revoked": 50173,
    "not known": 70000,
}
"""AADSTS codes, by words of the ledger's refusals."""


class Refused(Exception):
    """An error with its OAuth 2.0 code, and Microsoft's own."""

    def __init__(self, code: str, number: int, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.number = number
        self.status = status

    def body(self, now_s: float) -> dict[str, Any]:
        trace, correlation = secrets.token_hex(16), secrets.token_hex(16)
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now_s))
        said = f"AADSTS{self.number}: {self} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
        return {
            "error": self.code,
            "error_description": said,
            "error_codes": [self.number],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
        }


def hinted(error: OAuthError) -> Refused:
    number = next((number for words, number in HINTS.items() if words in str(error)), 90014)
    return Refused(error.code, number, f"{error}.")


@dataclass
class App:
    """A registered application."""

    id: str
    secret: str | None = None
    certificates: list[x509.Certificate] = field(default_factory=list)
    subjects: set[str] = field(default_factory=set)
    """Whose federated assertions it takes."""
    redirect_uris: tuple[str, ...] = ()

    @property
    def public(self) -> bool:
        return self.secret is None and not self.certificates and not self.subjects


def authenticated(app: App, form: Mapping[str, str], token_endpoint: str) -> None:
    """Whether the form proves that it is the application's.

    Raises:
        Refused: it does not.
    """
    secret, assertion = form.get("client_secret"), form.get("client_assertion")
    if app.public:
        if secret is not None or assertion is not None:
            said = "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."
            raise Refused("invalid_client", 700025, said, 401)
    elif assertion is not None:
        if form.get("client_assertion_type") != JWT_BEARER:
            raise Refused("invalid_request", 900144, "The 'client_assertion_type' is not supported.")
        _check(app, assertion, token_endpoint)
    elif secret is None:
        said = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
        raise Refused("invalid_client", 7000218, said, 401)
    elif app.secret is None or not hmac.compare_digest(app.secret.encode(), secret.encode()):
        said = "Invalid client secret provided. Ensure the secret being sent is the client secret value, not its ID."
        raise Refused("invalid_client", 7000215, said, 401)


def _check(app: App, assertion: str, token_endpoint: str) -> None:
    header, claims = claims_in(assertion)
    if claims.get("iss") == CLUSTER:
        if claims.get("sub") not in app.subjects:
            raise Refused("invalid_client", 700213, "No matching federated identity record found.", 401)
        _verified(assertion, cluster_key().public_key(), "RS256", EXCHANGE_AUDIENCE)
        return
    known = {thumbprint(certificate): certificate for certificate in app.certificates}
    certificate = known.get(str(header.get("x5t#S256", "")).rstrip("="))
    if certificate is None:
        said = "The certificate with identifier used to sign the client assertion is not registered on application."
        raise Refused("invalid_client", 700027, said, 401)
    if not claims.get("iss") == claims.get("sub") == app.id:
        raise Refused("invalid_client", 700026, "Issuer and subject of the assertion are not the client.", 401)
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    _verified(assertion, key, "PS256", token_endpoint)


def _verified(assertion: str, key: rsa.RSAPublicKey, algorithm: str, audience: str) -> None:
    """By the machine's clock, which is msal's too."""
    required = ["iss", "sub", "aud", "exp"]
    try:
        jwt.decode(assertion, key, algorithms=[algorithm], audience=audience, options={"require": required})
    except jwt.ExpiredSignatureError:
        raise Refused("invalid_client", 700024, "Client assertion is not within its valid time range.", 401) from None
    except jwt.InvalidAudienceError:
        raise Refused("invalid_client", 700212, "No matching audience found for the assertion.", 401) from None
    except jwt.PyJWTError as error:
        raise Refused("invalid_client", 700027, f"Client assertion failed signature validation: {error}", 401) from None


def thumbprint(certificate: x509.Certificate) -> str:
    """RFC 7515 section 4.1.8."""
    return base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


def claims_in(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT, whoever signed it."""
    try:
        header = jwt.get_unverified_header(assertion)
        return header, jwt.decode(assertion, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}, {}


@cache
def cluster_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def federated(subject: str, *, life_s: int = 600) -> str:
    """What a cluster writes into a pod's file."""
    now = int(time.time())
    claims = {"iss": CLUSTER, "sub": subject, "aud": EXCHANGE_AUDIENCE, "iat": now, "exp": now + life_s}
    return jwt.encode(claims, cluster_key(), algorithm="RS256", headers={"kid": "cluster"})
