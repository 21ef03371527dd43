"""What a pending consent asks of a person, as it is kept: encrypted under its `state`, and for this account only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.authorization import authorization_url
from emailproxy.oauth.flow import DeviceAuthorization
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Pending

LABEL = "consent"  # what `Pending.encrypted` is protected as


@dataclass(frozen=True, slots=True)
class Redirected:
    """The person signs in at `url`, and the browser comes back to `redirect_uri` (RFC 6749 section 4.1)."""

    verifier: Secret
    """PKCE's code_verifier (RFC 7636 section 4.1)."""
    redirect_uri: str
    url: str = field(repr=False)


Asked = Redirected | DeviceAuthorization


@dataclass(frozen=True, slots=True)
class Kept:
    """All that completing a consent takes besides the configuration."""

    asked: Asked = field(repr=False)
    client_secret: Secret | None = None
    """The one that is sealed in the account's record, where the configuration has none: whoever completes the consent
    may not know the record's key."""


def protected(account: Account, state: Secret, what: Kept) -> bytes:
    """What `Pending.encrypted` holds."""
    asked = what.asked
    match asked:
        case Redirected(verifier, redirect_uri, url):
            kept: dict[str, Any] = {"verifier": verifier.reveal(), "redirect_uri": redirect_uri, "url": url}
        case DeviceAuthorization():
            device = {each.name: getattr(asked, each.name) for each in fields(asked)}
            kept = {"device": device | {"device_code": asked.device_code.reveal()}, "of": of(account)}
    if what.client_secret is not None:
        kept["client_secret"] = what.client_secret.reveal()
    return sealing.protect(state, LABEL, json.dumps(kept).encode())


def asked_by(account: Account, pending: Pending, state: Secret) -> Kept | None:
    """What the consent asks; None where the account's configuration would ask something else now.

    Raises:
        StateDamaged: it does not open with this state.
    """
    kept = json.loads(sealing.reveal(state, LABEL, pending.encrypted))
    secret = Secret(kept["client_secret"]) if "client_secret" in kept else None
    if "device" in kept:
        device = kept["device"]
        authorization = DeviceAuthorization(**{**device, "device_code": Secret(device["device_code"])})
        return Kept(authorization, secret) if kept["of"] == of(account) else None
    if account.flow is not FlowName.AUTHORIZATION_CODE:
        return None
    redirected = Redirected(Secret(kept["verifier"]), kept["redirect_uri"], kept["url"])
    url = authorization_url(account, pending.display_name, state, redirected.verifier)
    return Kept(redirected, secret) if url == redirected.url else None


def of(account: Account) -> list[str | None]:
    """What a device code was asked for with: it is of use with nothing else."""
    return [account.flow.value, account.permission_url, account.token_url, account.client_id, account.scope]
