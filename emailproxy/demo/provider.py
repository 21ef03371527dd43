"""An embedded OAuth 2.0 authorization server: small, and honest about the rules of RFC 6749, 7636, 9207 and 9700.

For the demo and the tests only: it lives in memory, on loopback, and whoever opens its page may approve.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import html
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote_plus, urlencode, urlsplit

from aiohttp import web

from emailproxy.demo.ledger import Client, Family, Ledger, OAuthError

SHUTDOWN_S = 0.5
"""How long requests that still run may take when the provider stops."""
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""RFC 6749 section 5.1: on every reply that may hold a token."""

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<body style="font:1.1em sans-serif;margin:4em auto;max-width:32em"><h1>{title}</h1>{body}"""
LOGIN = """<p>The program <b>{client}</b> asks for access to the mailbox <b>{account}</b>.</p>
<p>Scope: <code>{scope}</code></p>
<form method="post"><button name="decision" value="approve">approve</button></form>"""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request that reached the token endpoint, and the reply's status."""

    grant: str
    status: int
    form: Mapping[str, str]


class Provider:
    """The provider, from ``async with`` until its end, on a free port of 127.0.0.1.

    Args:
        clients: who may ask.
        account: who signs in, where the request has no ``login_hint``.
        tls: serve https with this context instead of plain http.
        host: the name in the provider's own URLs.
        auto_approve: redirect at once, with no page and no person.
        deny: every authorization request ends in ``access_denied``.
        expires_in: an access token's life in seconds.
        grace_s: how long a replaced refresh token is still taken.
        rotate: every refresh yields a new refresh token.
        application_claims: what a token of the client_credentials grant says besides the usual.
        now: the clock, in seconds since the epoch.
    """

    def __init__(
        self,
        clients: Iterable[Client],
        *,
        account: str = "demo@example.test",
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        auto_approve: bool = False,
        deny: bool = False,
        expires_in: int = 3600,
        grace_s: float = 0,
        rotate: bool = True,
        application_claims: Mapping[str, Any] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.clients = {client.id: client for client in clients}
        self.account = account
        self.auto_approve = auto_approve
        self.deny = deny
        self.expires_in = expires_in
        self.requests: list[TokenRequest] = []
        self.authorizations: list[Mapping[str, str]] = []
        self._application_claims = dict(application_claims or {})
        self._ledger = Ledger(now=now, grace_s=grace_s, rotate=rotate)
        self._tls = tls
        self._host = host
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        self._add_routes(app.router)
        # aiohttp's access log would print codes.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        for folder in ("", "/{tenant}/oauth2/v2.0"):  # the second: where Microsoft's documentation has them
            router.add_get(f"{folder}/authorize", self._show_login, allow_head=False)
            router.add_post(f"{folder}/authorize", self._decide)
            router.add_post(f"{folder}/token", self._token_endpoint)

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # ---- what others need to know

    @property
    def url(self) -> str:
        """The issuer (RFC 8414 section 2)."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}"

    @property
    def permission_url(self) -> str:
        """The authorization endpoint."""
        return f"{self.url}/authorize"

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/token"

    @property
    def public_key_pem(self) -> str:
        return self._ledger.public_key_pem

    @property
    def revoked_families(self) -> int:
        """How many authorizations were revoked, by reuse or on request."""
        return self._ledger.revoked_families

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of an access token.

        Raises:
            TokenInvalid: it is not ours, expired, or revoked.
        """
        return self._ledger.verify(token, issuer=self.url)

    def revoke_refresh_tokens(self) -> None:
        """All that were ever given; the next refresh is an ``invalid_grant``."""
        self._ledger.revoke_refresh_tokens()

    def revoke_access_tokens(self) -> None:
        """All that were ever given, as far as `verify` goes; a mail server that checks by itself knows nothing."""
        self._ledger.revoke_access_tokens()

    def access_token(self, account: str, *, scope: str = "mail", expires_in: int | None = None) -> str:
        """A genuine access token without any request, e.g. to log in to a mail server directly."""
        return self._sign({"email": account, "sub": account, "scope": scope}, expires_in)

    # ---- the authorization endpoint (RFC 6749 section 4.1.1)

    async def _show_login(self, request: web.Request) -> web.StreamResponse:
        try:
            client, redirect_uri = self._redirection(request)
        except OAuthError as error:
            return page("This request cannot be answered", f"<p>{html.escape(str(error))}</p>", 400)
        try:
            self._check_authorization(request)
        except OAuthError as error:
            return self._redirect(request, redirect_uri, error=error.code, error_description=str(error))
        if self.auto_approve or self.deny:
            return self._answer(request, client, redirect_uri, approved=not self.deny)
        return page(
            "Sign in",
            LOGIN.format(
                client=html.escape(client.id),
                account=html.escape(self._account(request)),
                scope=html.escape(request.query.get("scope", "")),
            ),
        )

    async def _decide(self, request: web.Request) -> web.StreamResponse:
        try:
            client, redirect_uri = self._redirection(request)
            self._check_authorization(request)
        except OAuthError as error:
            return page("This request cannot be answered", f"<p>{html.escape(str(error))}</p>", 400)
        form = await request.post()
        return self._answer(request, client, redirect_uri, approved=form.get("decision") == "approve")

    def _redirection(self, request: web.Request) -> tuple[Client, str]:
        """Client and redirect_uri; while these are in doubt nobody is redirected (RFC 6749 section 4.1.2.1)."""
        query = request.query
        if len(query.getall("client_id", [])) != 1 or len(query.getall("redirect_uri", [])) != 1:
            raise OAuthError("invalid_request", "client_id and redirect_uri must be given once each")
        client = self.clients.get(query["client_id"])
        if client is None:
            raise OAuthError("invalid_client", "client_id is not registered")
        if query["redirect_uri"] not in client.redirect_uris:
            raise OAuthError("invalid_request", "redirect_uri is not registered for this client")
        return client, query["redirect_uri"]

    def _check_authorization(self, request: web.Request) -> None:
        query = request.query
        if len(query) != len(set(query)):
            raise OAuthError("invalid_request", "a parameter is given twice")
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type must be code")
        if not query.get("code_challenge") or query.get("code_challenge_method") != "S256":
            raise OAuthError("invalid_request", "PKCE with code_challenge_method=S256 is required")

    def _answer(self, request: web.Request, client: Client, redirect_uri: str, *, approved: bool) -> web.StreamResponse:
        self.authorizations.append(dict(request.query))
        if not approved:
            return self._redirect(request, redirect_uri, error="access_denied")
        family = Family(client.id, self._account(request), request.query.get("scope", ""))
        code = self._ledger.new_code(family, redirect_uri, request.query["code_challenge"])
        return self._redirect(request, redirect_uri, code=code)

    def _redirect(self, request: web.Request, redirect_uri: str, **answer: str) -> web.StreamResponse:
        if "state" in request.query:
            answer["state"] = request.query["state"]
        answer["iss"] = self.url  # RFC 9207 section 2
        joint = "&" if urlsplit(redirect_uri).query else "?"
        location = f"{redirect_uri}{joint}{urlencode(answer)}"
        return web.Response(status=302, headers={"Location": location, **NO_STORE})

    def _account(self, request: web.Request) -> str:
        return request.query.get("login_hint") or self.account

    # ---- the token endpoint (RFC 6749 section 3.2)

    async def _token_endpoint(self, request: web.Request) -> web.StreamResponse:
        posted = await request.post()
        form = {name: value for name, value in posted.items() if isinstance(value, str)}
        grant = form.get("grant_type", "")
        try:
            if len(posted) != len(form):
                raise OAuthError("invalid_request", "a parameter is given twice, or is a file")
            client = self._authenticate(request, form)
            reply, status = self._grant(client, grant, form), 200
        except OAuthError as error:
            reply, status = {"error": error.code, "error_description": str(error)}, error.status
        self.requests.append(TokenRequest(grant, status, form))
        headers = {**NO_STORE, **({"WWW-Authenticate": 'Basic realm="token"'} if status == 401 else {})}
        return web.json_response(reply, status=status, headers=headers)

    def _authenticate(self, request: web.Request, form: Mapping[str, str]) -> Client:
        """The client, by client_secret_basic or client_secret_post (RFC 6749 section 2.3.1)."""
        client_id, secret = form.get("client_id", ""), form.get("client_secret")
        header = request.headers.get("Authorization", "")
        if header:
            if secret is not None:
                raise OAuthError("invalid_request", "two methods of client authentication at once")
            client_id, secret = _basic(header)
        client = self.clients.get(client_id)
        if client is None or (client.secret is None) != (secret is None):
            raise OAuthError("invalid_client", "the client is unknown, or its authentication missing", status=401)
        if not hmac.compare_digest((client.secret or "").encode(), (secret or "").encode()):
            raise OAuthError("invalid_client", "the client's secret is wrong", status=401)
        return client

    def _grant(self, client: Client, grant: str, form: Mapping[str, str]) -> dict[str, Any]:
        match grant:
            case "authorization_code":
                family = self._ledger.redeem_code(
                    client, form.get("code", ""), form.get("redirect_uri", ""), form.get("code_verifier", "")
                )
                return self._user_tokens(family)
            case "refresh_token":
                return self._user_tokens(self._ledger.redeem_refresh_token(client, form.get("refresh_token", "")))
            case "client_credentials":
                return self._application_token(client, form.get("scope", ""))
            case _:
                raise OAuthError("unsupported_grant_type", "this grant_type is not offered")

    def _user_tokens(self, family: Family) -> dict[str, Any]:
        claims = {"email": family.account, "sub": family.account, "scope": family.scope}
        return {
            **self._bearer(self._sign(claims), family.scope),
            "refresh_token": self._ledger.new_refresh_token(family),
        }

    def _application_token(self, client: Client, scope: str) -> dict[str, Any]:
        """RFC 6749 section 4.4: no person, so no refresh token, and a token for the application itself."""
        if client.secret is None:
            raise OAuthError("unauthorized_client", "a public client may not use client_credentials")
        roles = ["IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"]
        claims = {"sub": client.id, "appid": client.id, "roles": roles, "scope": scope}
        return self._bearer(self._sign({**claims, **self._application_claims}), scope)

    def _bearer(self, token: str, scope: str) -> dict[str, Any]:
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in, "scope": scope}

    def _sign(self, claims: Mapping[str, Any], expires_in: int | None = None) -> str:
        life_s = self.expires_in if expires_in is None else expires_in
        return self._ledger.new_access_token(claims, issuer=self.url, expires_in=life_s)


def page(title: str, body: str, status: int = 200) -> web.Response:
    """A page for a person. `body` is HTML already."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", **NO_STORE}
    text = PAGE.format(title=html.escape(title), body=body)
    return web.Response(text=text, content_type="text/html", status=status, headers=headers)


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        name, colon, secret = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = secret = ""
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client", "the Authorization header is not HTTP Basic", status=401)
    return unquote_plus(name), unquote_plus(secret)
