"""Google's token endpoints and IAM on one local TLS port: honest about who may do what, with faults on demand.

It checks assertions as Google does (RFC 7523 section 3, and its own rules on `aud`, `iat` and `exp`), and answers in
Google's words. A mailbox's access tokens are JWTs that a Dovecot can check (`public_key_pem`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from urllib.parse import unquote

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Ledger
from tests.fakes.hosts import Hosts
from tests.fakes.provider import FakeProvider, Fault

TOKEN_HOST = "oauth2.googleapis.com"
STS_HOST = "sts.googleapis.com"
IAM_HOST = "iamcredentials.googleapis.com"
IDP_HOST = "idp.example.test"
"""Somebody else's: it hands out the workload's subject tokens."""
HOSTS = (TOKEN_HOST, STS_HOST, IAM_HOST, IDP_HOST)
TOKEN_URL = f"https://{TOKEN_HOST}/token"
MAIL_SCOPE = "https://mail.google.com/"
AUDIENCE = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool/providers/idp"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
MAX_LIFE_S = 3600
SKEW_S = 300
TIMEFRAME = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)
UNAUTHORIZED = (
    "Client is unauthorized to retrieve access tokens using this method, "
    "or client not authorized for any of the scopes requested."
)


class Refused(Exception):
    """An OAuth 2.0 error (RFC 6749 section 5.2), or one of Google's APIs where `code` is in capitals."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.status = status

    @property
    def body(self) -> dict[str, Any]:
        if self.code.isupper():
            return {"error": {"code": self.status, "message": str(self), "status": self.code}}
        return {"error": self.code, "error_description": str(self)}


@dataclass
class ServiceAccount:
    """One of the project's: a key that its owner may download, and one that only IAM signs with."""

    email: str
    scopes: set[str] = field(default_factory=set)
    """What the Workspace administrator lets it do as any user (domain-wide delegation)."""
    token_creators: set[str] = field(default_factory=set)
    """Who has the role "Service Account Token Creator" on it."""

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @cached_property
    def iam_key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def key_json(self) -> dict[str, str]:
        """What the console lets its owner download."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": f"key of {self.email}",
            "private_key": pem.decode(),
            "client_email": self.email,
            "client_id": "100000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": TOKEN_URL,
            "universe_domain": "googleapis.com",
        }


@dataclass(frozen=True)
class Asked:
    """One request, and how it was answered."""

    host: str
    path: str
    status: int
    form: Mapping[str, Any] = field(repr=False)
    """What a form, or a JSON body, says."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Of the assertion in it."""


class FakeGoogle(Hosts):
    """Google, from ``async with`` until its end; `targets` is what a tunnel leads here.

    Args:
        users: the mailboxes of the Workspace.
        now: the clock for what it checks and grants, in seconds since the epoch.
    """

    def __init__(
        self,
        authority: Authority,
        *users: str,
        expires_in: int = 3599,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(authority, HOSTS, Ledger(now=now, grace_s=0, rotate=False))
        self.users = {user.lower() for user in users}
        self.expires_in = expires_in
        self.asked: list[Asked] = []
        self.accounts: dict[str, ServiceAccount] = {}
        self.subject_tokens: dict[str, str] = {}
        """Whom a workload's token (RFC 8693 section 2.1) names."""
        self.refresh_tokens: dict[tuple[str, str, str], str] = {}
        """Who signed in for a client's ID, secret and refresh token."""
        self.token_url = TOKEN_URL
        self._now = now
        self._bearers: dict[str, str] = {}
        """Who an access token for Google's APIs is."""
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)

    def service_account(self, name: str = "mail", *scopes: str) -> ServiceAccount:
        """A new one, with delegation for these scopes (for mail, where none is given)."""
        account = ServiceAccount(f"{name}@project.iam.gserviceaccount.com", set(scopes or (MAIL_SCOPE,)))
        self.accounts[account.email] = account
        return account

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a mailbox's access token, genuine and in its time."""
        return self._ledger.verify(token, issuer="https://accounts.google.com")

    def next(self, *faults: Fault, host: str = TOKEN_HOST) -> None:
        """The next requests to the host meet these, one each, in order."""
        self._faults[host].extend(faults)

    # ---- HTTP

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host, form = request.host.partition(":")[0], await said(request)
        if self._faults[host]:
            reply = await self._faults[host].popleft().answer(cast(FakeProvider, self), request)
        else:
            reply = await self.honest_answer(request)
        self.asked.append(Asked(host, request.path, reply.status, form, claims_in(form)))
        return reply

    async def honest_answer(self, request: web.Request) -> web.StreamResponse:
        host, form = request.host.partition(":")[0], await said(request)
        try:
            return web.json_response(self._answer(request, host, form))
        except Refused as refused:
            return web.json_response(refused.body, status=refused.status)

    def _answer(self, request: web.Request, host: str, form: Mapping[str, Any]) -> dict[str, Any]:
        match request.method, host, unquote(request.path):
            case "POST", "oauth2.googleapis.com", "/token":
                return self._token(form)
            case "POST", "sts.googleapis.com", "/v1/token":
                return self._exchanged(form)
            case "POST", "iamcredentials.googleapis.com", path:
                email, _, method = path.removeprefix("/v1/projects/-/serviceAccounts/").partition(":")
                return self._iam(request.headers.get("Authorization", ""), email, method, form)
            case "GET", "idp.example.test", "/token":
                return {"value": next(iter(self.subject_tokens), "")}
        raise Refused("NOT_FOUND", "Requested entity was not found.", 404)

    # ---- oauth2.googleapis.com

    def _token(self, form: Mapping[str, Any]) -> dict[str, Any]:
        if form.get("grant_type") == "refresh_token":
            client = form.get("client_id", ""), form.get("client_secret", ""), form.get("refresh_token", "")
            if client not in self.refresh_tokens:
                raise Refused("invalid_grant", "Token has been expired or revoked.")
            return self._api_token(self.refresh_tokens[client])
        if form.get("grant_type") != JWT_BEARER:
            raise Refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        account, claims = self._asserted(str(form.get("assertion", "")))
        wanted = set(claims["scope"].split())
        if "sub" not in claims:
            return self._api_token(account.email)
        if not wanted or not wanted <= account.scopes:
            raise Refused("unauthorized_client", UNAUTHORIZED, 401)
        mailbox = str(claims["sub"])
        if mailbox.lower() not in self.users:
            raise Refused("invalid_grant", "Invalid email or User ID")
        token = self._ledger.new_access_token(
            {"email": mailbox, "sub": mailbox, "scope": claims["scope"]},
            issuer="https://accounts.google.com",
            expires_in=self.expires_in,
        )
        return {"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"}

    def _asserted(self, assertion: str) -> tuple[ServiceAccount, dict[str, Any]]:
        """Who signed it and what it says, or why it is nothing (RFC 7523 section 3)."""
        try:
            header = jwt.get_unverified_header(assertion)
            issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss", "")
        except jwt.PyJWTError:
            raise Refused("invalid_request", "Bad Request") from None
        account = self.accounts.get(issuer)
        if account is None:
            raise Refused("invalid_grant", "Invalid grant: account not found")
        keys = {account.key_json["private_key_id"]: account.key, f"iam key of {account.email}": account.iam_key}
        key = keys.get(header.get("kid", ""))
        if key is None:
            raise Refused("invalid_grant", "Invalid JWT Signature.")
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                key.public_key(),
                algorithms=["RS256"],
                audience=TOKEN_URL,
                options={"require": ["iss", "aud", "exp", "iat", "scope"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError:
            raise Refused("invalid_grant", "Invalid JWT Signature.") from None
        except jwt.InvalidAudienceError:
            raise Refused("invalid_grant", "Invalid JWT: Failed audience check.") from None
        except jwt.PyJWTError as error:
            raise Refused("invalid_grant", f"Invalid JWT: {error}") from None
        now = self._now()
        if not (claims["iat"] - SKEW_S <= now < claims["exp"] and claims["exp"] - claims["iat"] <= MAX_LIFE_S):
            raise Refused("invalid_grant", TIMEFRAME)
        return account, claims

    def _api_token(self, principal: str) -> dict[str, Any]:
        return {"access_token": self._bearer(principal), "expires_in": self.expires_in, "token_type": "Bearer"}

    def _bearer(self, principal: str) -> str:
        token = f"ya29.canary-{secrets.token_urlsafe(16)}"
        self._bearers[token] = principal
        return token

    # ---- sts.googleapis.com (RFC 8693)

    def _exchanged(self, form: Mapping[str, Any]) -> dict[str, Any]:
        if form.get("grant_type") != TOKEN_EXCHANGE or form.get("audience") != AUDIENCE:
            raise Refused("invalid_request", "Invalid value for audience.")
        subject = str(form.get("subject_token", ""))
        if str(form.get("subject_token_type")).endswith("aws4_request"):
            subject = aws_key_id(subject)
        if subject not in self.subject_tokens:
            raise Refused("invalid_grant", "The given credential is rejected by the attribute condition.")
        answer = self._api_token(self.subject_tokens[subject])
        return {**answer, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}

    # ---- iamcredentials.googleapis.com

    def _iam(self, authorization: str, email: str, method: str, form: Mapping[str, Any]) -> dict[str, Any]:
        caller = self._bearers.get(authorization.removeprefix("Bearer "))
        if caller is None:
            raise Refused("UNAUTHENTICATED", "Request had invalid authentication credentials.", 401)
        account = self.accounts.get(email)
        permission = {
            "signJwt": "iam.serviceAccounts.signJwt",
            "generateAccessToken": "iam.serviceAccounts.getAccessToken",
        }
        if account is None or caller not in account.token_creators:
            denied = f"Permission '{permission[method]}' denied on resource (or it may not exist)."
            raise Refused("PERMISSION_DENIED", denied, 403)
        if method == "generateAccessToken":
            expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now() + self.expires_in))
            return {"accessToken": self._bearer(account.email), "expireTime": expires}
        kid = f"iam key of {account.email}"
        signed = jwt.encode(json.loads(form["payload"]), account.iam_key, algorithm="RS256", headers={"kid": kid})
        return {"keyId": kid, "signedJwt": signed}


async def said(request: web.Request) -> dict[str, Any]:
    """What the body says, as a form or as JSON."""
    if request.content_type == "application/json":
        body: dict[str, Any] = await request.json()
        return body
    return {name: str(value) for name, value in (await request.post()).items()}


def claims_in(form: Mapping[str, Any]) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(str(form.get("assertion", "")), options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}
    return claims


def aws_key_id(subject: str) -> str:
    """Whose signed GetCallerIdentity request it is; "" where it is not meant for us."""
    headers = {header["key"].lower(): header["value"] for header in json.loads(unquote(subject))["headers"]}
    if headers.get("x-goog-cloud-target-resource") != AUDIENCE:
        return ""
    return str(headers["authorization"]).partition("Credential=")[2].partition("/")[0]
