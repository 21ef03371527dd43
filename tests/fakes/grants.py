"""The embedded provider with the grants that its demo has no use for: passwords, devices, and signed assertions."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import web

from emailproxy.demo.ledger import Client, Family, OAuthError
from emailproxy.demo.provider import NO_STORE, Provider

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_LIFE_S = 600
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 section 6.1: no vowels, no words."""


@dataclass
class Device:
    """One device authorization (RFC 8628)."""

    family: Family
    user_code: str
    expires_at_s: float
    interval_s: int
    asked_at_s: float | None = None
    decision: str = "pending"


class Granting(Provider):
    """A provider of more grants. An ``id_token`` comes with every scope that holds ``openid``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.passwords: dict[str, str] = {}
        """Who may use the password grant (RFC 6749 section 4.3)."""
        self.client_keys: dict[str, Any] = {}
        """The public keys of clients that authenticate by private_key_jwt (RFC 7523)."""
        self.federated: dict[str, str] = {}
        """Assertions of others that are taken as they are, and whose client they prove."""
        self.assertions: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        """Header and claims of those that were taken."""
        self.device_requests: list[Mapping[str, str]] = []
        self.interval_s = 5
        self._devices: dict[str, Device] = {}

    @property
    def device_url(self) -> str:
        """The device authorization endpoint."""
        return f"{self.url}/device"

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        super()._add_routes(router)
        router.add_post("/device", self._device_endpoint)

    # ---- devices (RFC 8628)

    def decide(self, user_code: str, decision: str = "approved") -> None:
        """What the person does with the code: ``approved`` or ``declined``."""
        (device,) = [device for device in self._devices.values() if device.user_code == user_code]
        device.decision = decision

    async def _device_endpoint(self, request: web.Request) -> web.StreamResponse:
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        self.device_requests.append(form)
        try:
            client = self._authenticate(request, form)
        except OAuthError as error:
            return web.json_response({"error": error.code, "error_description": str(error)}, status=error.status)
        code = secrets.token_urlsafe(24)
        user_code = "-".join("".join(secrets.choice(ALPHABET) for _ in range(4)) for _ in range(2))
        family = Family(client.id, self.account, form.get("scope", ""))
        self._devices[code] = Device(family, user_code, self._ledger._now() + DEVICE_LIFE_S, self.interval_s)
        answer = {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": f"{self.url}/activate",
            "verification_uri_complete": f"{self.url}/activate?user_code={user_code}",
            "expires_in": DEVICE_LIFE_S,
            "interval": self.interval_s,
        }
        return web.json_response(answer, headers=NO_STORE)

    def _device_tokens(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        """Section 3.5."""
        device = self._devices.get(form.get("device_code", ""))
        now_s = self._ledger._now()
        if device is None or device.family.client_id != client.id:
            raise OAuthError("invalid_grant", "the device code is not known to this client")
        early = device.asked_at_s is not None and now_s < device.asked_at_s + device.interval_s
        device.asked_at_s = now_s
        if now_s >= device.expires_at_s:
            raise OAuthError("expired_token", "the device code has expired")
        if early:
            device.interval_s += 5
            raise OAuthError("slow_down", "asked before the interval was over")
        if device.decision == "pending":
            raise OAuthError("authorization_pending", "the user has not decided yet")
        del self._devices[form["device_code"]]
        if device.decision == "declined":
            raise OAuthError("access_denied", "the user declined")
        return self._user_tokens(device.family)

    # ---- further grants, and further ways to authenticate

    def _grant(self, client: Client, grant: str, form: Mapping[str, str]) -> dict[str, Any]:
        if grant == DEVICE_CODE:
            return self._device_tokens(client, form)
        if grant == "password":
            known = self.passwords.get(form.get("username", ""))
            if known is None or known != form.get("password"):
                raise OAuthError("invalid_grant", "the user name or the password is wrong")
            return self._user_tokens(Family(client.id, form["username"], form.get("scope") or form["resource"]))
        return super()._grant(client, grant, form)

    def _user_tokens(self, family: Family) -> dict[str, Any]:
        tokens = super()._user_tokens(family)
        if "openid" in family.scope.split():
            tokens["id_token"] = self._sign({"aud": family.client_id, "sub": family.account, "email": family.account})
        return tokens

    def _authenticate(self, request: web.Request, form: Mapping[str, str]) -> Client:
        assertion = form.get("client_assertion")
        if assertion is None:
            return super()._authenticate(request, form)
        client = self.clients.get(form.get("client_id", ""))
        if client is None or form.get("client_assertion_type") != JWT_BEARER or "client_secret" in form:
            raise OAuthError("invalid_client", "the client is unknown, or authenticates in two ways", status=401)
        if self.federated.get(assertion) != client.id:
            self._check_assertion(client, assertion)
        return client

    def _check_assertion(self, client: Client, assertion: str) -> None:
        """RFC 7523 section 3, by this provider's clock."""
        try:
            claims = jwt.decode(
                assertion,
                self.client_keys.get(client.id, b""),
                algorithms=["RS256"],
                audience=self.token_url,
                issuer=client.id,
                subject=client.id,
                options={"require": ["exp", "iat", "jti"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise OAuthError("invalid_client", f"the assertion is not genuine ({error})", status=401) from None
        if not claims["iat"] <= self._ledger._now() < claims["exp"]:
            raise OAuthError("invalid_client", "the assertion is out of its time", status=401)
        if any(claims["jti"] == seen["jti"] for _, seen in self.assertions):
            raise OAuthError("invalid_client", "the assertion was used before", status=401)
        self.assertions.append((jwt.get_unverified_header(assertion), claims))
