"""Microsoft's sign-in endpoints on one local TLS port: honest about clients and grants, with faults on demand.

It answers for the public cloud and two national ones, in Microsoft's words (``AADSTS...``). Its access tokens are JWTs
that a Dovecot can check (`public_key_pem`).
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

from aiohttp import web

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Client, Family, Ledger, OAuthError
from tests.fakes.entra import App, Refused, authenticated, claims_in, hinted
from tests.fakes.hosts import Hosts
from tests.fakes.provider import FakeProvider, Fault

PUBLIC = "login.microsoftonline.com"
CHINA = "login.partner.microsoftonline.cn"
GOVERNMENT = "login.microsoftonline.us"
HOSTS = (PUBLIC, CHINA, GOVERNMENT)
TENANT_ID = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
TENANT = "contoso.onmicrosoft.com"
ISSUER = f"https://{PUBLIC}/{TENANT_ID}/v2.0"
SHARED = ("common", "organizations", "consumers")
DEVICE_CODE_ENDED = (
    "The provided value for the input parameter 'device_code' is not valid. This device code has expired."
)
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
MAIL_SCOPE = "https://outlook.office.com/IMAP.AccessAsUser.All"
DISCOVERY, DEVICE, TOKEN = "openid-configuration", "devicecode", "token"
"""The endpoints, by the ends of their paths."""


@dataclass(frozen=True)
class Asked:
    """One request, and how it was answered."""

    host: str
    path: str
    status: int
    form: Mapping[str, str] = field(repr=False)
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Of the client's assertion."""
    header: Mapping[str, Any] = field(default_factory=dict)
    """Of the client's assertion."""

    @property
    def endpoint(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass
class Device:
    """A device authorization, and what its person did."""

    family: Family
    expires_at_s: float
    approved: bool | None = None
    """None: nobody has entered the code yet."""


class FakeMicrosoft(Hosts):
    """The endpoints, from ``async with`` until the end; `targets` is what a tunnel leads here.

    Args:
        user: who signs in, where the request has no ``login_hint``.
        rotate: a refresh yields a new refresh token; the old one lives on for `grace_s` seconds.
        application_claims: what tokens of client credentials say besides the usual, e.g. ``email``.
        interval_s: how often who waits for a device's person may ask.
        now: the clock for what it grants, in seconds since the epoch.
    """

    def __init__(
        self,
        authority: Authority,
        *apps: App,
        user: str = "ada@example.org",
        expires_in: int = 3599,
        rotate: bool = True,
        grace_s: float = float("inf"),
        application_claims: Mapping[str, Any] | None = None,
        interval_s: int = 5,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(authority, HOSTS, Ledger(now=now, grace_s=grace_s, rotate=rotate))
        self.apps = {app.id: app for app in apps}
        self.user = user
        self.expires_in = expires_in
        self.interval_s = interval_s
        self.asked: list[Asked] = []
        self.devices: dict[str, Device] = {}
        """By user code."""
        self._application_claims = dict(application_claims or {})
        self._now = now
        self._device_codes: dict[str, str] = {}
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)

    # ---- what tests need to know, and do

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of an access token, genuine and in its time."""
        return self._ledger.verify(token, issuer=ISSUER)

    def revoke_refresh_tokens(self) -> None:
        """As after a change of the password."""
        self._ledger.revoke_refresh_tokens()

    def code(self, app: App, redirect_uri: str, challenge: str, *, scope: str = MAIL_SCOPE, user: str = "") -> str:
        """What a person's approval in the browser ends in."""
        wanted = f"{scope} openid profile offline_access"
        return self._ledger.new_code(Family(app.id, user or self.user, wanted), redirect_uri, challenge)

    def enter(self, user_code: str, *, approved: bool = True, user: str = "") -> None:
        """A person enters a device's code."""
        self.devices[user_code].approved = approved
        self.devices[user_code].family.account = user or self.user

    def next(self, *faults: Fault, at: str = TOKEN) -> None:
        """The next requests to the endpoint meet these, one each, in order."""
        self._faults[at].extend(faults)

    def endpoints(self) -> list[str]:
        """What was asked for, in order."""
        return [asked.endpoint for asked in self.asked]

    # ---- HTTP

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        endpoint = request.path.rpartition("/")[2]
        form = await said(request)  # now: a fault may reset the connection
        if self._faults[endpoint]:
            reply = await self._faults[endpoint].popleft().answer(cast(FakeProvider, self), request)
        else:
            reply = await self.honest_answer(request)
        self._note(request, reply.status, form)
        return reply

    async def honest_answer(self, request: web.Request) -> web.StreamResponse:
        form = await said(request)
        try:
            answer, status = self._answer(request, form), 200
        except OAuthError as error:
            answer, status = hinted(error).body(self._now()), 400
        except Refused as error:
            answer, status = error.body(self._now()), error.status
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer, status=status)

    def _note(self, request: web.Request, status: int, form: Mapping[str, str]) -> None:
        header, claims = claims_in(form.get("client_assertion", ""))
        self.asked.append(Asked(request.host.partition(":")[0], request.path, status, form, claims, header))

    def _answer(self, request: web.Request, form: Mapping[str, str]) -> dict[str, Any] | web.StreamResponse:
        _, tenant, *rest = request.path.split("/")
        tenant_id = TENANT_ID if tenant.lower() in (TENANT, TENANT_ID) else tenant
        match request.method, "/".join(rest):
            case "GET", "discovery/instance":
                return {"tenant_discovery_endpoint": f"https://{PUBLIC}/{tenant}/v2.0/.well-known/{DISCOVERY}"}
            case _ if tenant_id not in (TENANT_ID, *SHARED):
                raise Refused("invalid_tenant", 90002, f"Tenant '{tenant}' not found. Check to make sure you have it.")
            case "GET", "v2.0/.well-known/openid-configuration":
                return discovery(request.host.partition(":")[0], tenant_id)
            case "GET", "oauth2/v2.0/authorize":
                return self._authorize(request)
            case "POST", "oauth2/v2.0/devicecode":
                return self._device(self._app(form), form)
            case "POST", "oauth2/v2.0/token":
                return self._token(request, self._app(form), form)
        raise Refused("invalid_request", 900144, f"The path {request.path} is not known.", 404)

    def _app(self, form: Mapping[str, str]) -> App:
        if form.get("client_id") not in self.apps:
            name = form.get("client_id")
            raise Refused(
                "unauthorized_client", 700016, f"Application with identifier '{name}' was not found in the directory."
            )
        return self.apps[form["client_id"]]

    def _authorize(self, request: web.Request) -> web.StreamResponse:
        """A person who approves at once."""
        query = request.query
        app = self._app(query)
        if query.get("redirect_uri") not in app.redirect_uris:
            raise Refused("invalid_request", 50011, "The redirect URI specified in the request does not match.")
        if query.get("code_challenge_method") != "S256" or query.get("response_type") != "code":
            raise Refused("invalid_request", 9002325, "Proof Key for Code Exchange is required.")
        family = Family(app.id, query.get("login_hint") or self.user, query["scope"])
        code = self._ledger.new_code(family, query["redirect_uri"], query["code_challenge"])
        answer = urlencode({"code": code, "state": query.get("state", ""), "session_state": secrets.token_hex(8)})
        return web.Response(status=302, headers={"Location": f"{query['redirect_uri']}?{answer}"})

    # ---- grants

    def _device(self, app: App, form: Mapping[str, str]) -> dict[str, Any]:
        device_code, user_code = secrets.token_urlsafe(32), secrets.token_hex(4).upper()
        family = Family(app.id, self.user, form.get("scope", ""))
        self.devices[user_code] = Device(family, self._now() + 900)
        self._device_codes[device_code] = user_code
        uri = "https://microsoft.com/devicelogin"
        message = f"To sign in, open the page {uri} and enter the code {user_code} to authenticate."
        common = {"verification_uri": uri, "expires_in": 900, "interval": self.interval_s, "message": message}
        return {"user_code": user_code, "device_code": device_code, **common}

    def _token(self, request: web.Request, app: App, form: Mapping[str, str]) -> dict[str, Any]:
        authenticated(app, form, f"https://{request.host.partition(':')[0]}{request.path}")
        client = Client(app.id)
        match form.get("grant_type"):
            case "authorization_code":
                verifier = form.get("code_verifier", "")
                family = self._ledger.redeem_code(client, form.get("code", ""), form.get("redirect_uri", ""), verifier)
                return self._granted(family, form)
            case "refresh_token":
                return self._granted(self._ledger.redeem_refresh_token(client, form.get("refresh_token", "")), form)
            case grant if grant == DEVICE_GRANT:
                return self._granted(self._approved(form.get("device_code", "")), form)
            case "client_credentials":
                return self._application_token(app, form.get("scope", ""))
        raise Refused("unsupported_grant_type", 70003, "The app requested an unsupported grant type.")

    def _approved(self, device_code: str) -> Family:
        device = self.devices.get(self._device_codes.get(device_code, ""))
        if device is None:
            raise Refused("bad_verification_code", 70018, "The verification code is not known.")
        if device.expires_at_s < self._now():
            raise Refused("expired_token", 70020, DEVICE_CODE_ENDED)
        if device.approved is None:
            raise Refused("authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending.")
        if not device.approved:
            raise Refused("authorization_declined", 70021, "The user declined the authorization.")
        del self._device_codes[device_code]
        return device.family

    def _granted(self, family: Family, form: Mapping[str, str]) -> dict[str, Any]:
        """A person's tokens: the scopes that the request names are those that were consented to."""
        consented, wanted = set(family.scope.split()), set(form.get("scope", family.scope).split())
        if not wanted <= consented:
            missing = ", ".join(sorted(wanted - consented))
            raise Refused("invalid_grant", 65001, f"The user has not consented to use the application: {missing}.")
        standard = {"openid", "profile", "offline_access"}
        scope = " ".join(sorted(wanted - standard))
        names = {"email": family.account, "upn": family.account, "sub": family.account}
        answer = self._bearer({**names, "scp": scope, "appid": family.client_id}) | {"scope": scope}
        if "openid" in wanted:
            claims = {"aud": family.client_id, "sub": family.account, "preferred_username": family.account}
            answer["id_token"] = self._signed(claims)
        if "offline_access" in wanted:
            answer["refresh_token"] = self._ledger.new_refresh_token(family)
        return answer

    def _application_token(self, app: App, scope: str) -> dict[str, Any]:
        if app.public:
            raise Refused("unauthorized_client", 700025, "Client is public so it may not use client credentials.")
        if not scope.endswith("/.default") or " " in scope:
            raise Refused("invalid_scope", 1002012, f"The provided value for scope {scope} is not valid.")
        claims = {"appid": app.id, "sub": app.id, "roles": ["IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"]}
        return self._bearer({**claims, **self._application_claims})

    def _bearer(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        ends = {"expires_in": self.expires_in, "ext_expires_in": self.expires_in}
        return {"token_type": "Bearer", "access_token": self._signed(claims), **ends}

    def _signed(self, claims: Mapping[str, Any]) -> str:
        return self._ledger.new_access_token({"tid": TENANT_ID, **claims}, issuer=ISSUER, expires_in=self.expires_in)


def discovery(host: str, tenant: str) -> dict[str, Any]:
    """OpenID Connect Discovery section 3, as far as msal reads it."""
    base = f"https://{host}/{tenant}"
    return {
        "issuer": f"{base}/v2.0",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
    }


async def said(request: web.Request) -> dict[str, str]:
    """What the form says."""
    return {name: str(value) for name, value in (await request.post()).items()}
