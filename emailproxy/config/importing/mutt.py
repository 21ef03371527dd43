"""The token files of mutt_oauth2.py, decrypted: one JSON object each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from emailproxy.config.importing.found import Format, Found, ImportedAccount, known_provider, secret, text
from emailproxy.config.importing.recognise import json_object
from emailproxy.config.model import FlowName
from emailproxy.config.scan import shown

ENDPOINTS = {
    "token_url": ("token_endpoint",),
    "permission_url": ("authorize_endpoint",),
    "oauth2_scope": ("scope",),
}
"""Our keys, and the packaged script's in its `registration`; the original has only a name there."""
DEVICE_ENDPOINTS = ("devicecode_endpoint", "device_code_endpoint")


def read(content: str, _name: str) -> Found:
    token = json_object(content) or {}
    email, registration = text(token, "email"), token.get("registration")
    if not email:
        return Found(Format.MUTT, unread=("has no email, so that its account has no name",))
    unread: list[str] = []
    device = text(token, "authflow") == "devicecode"
    settings = _endpoints(registration, device=device)
    if settings is None:
        named = f"{shown(str(registration))!r}" if isinstance(registration, str) else "that"
        unread.append(f"its registration is {named}, of which nothing is known here")
        settings = {}
    elif device and settings.get("oauth2_flow") != FlowName.DEVICE:
        unread.append("its authflow is devicecode, which this provider has not for mail: a browser is used")
    settings |= {key: text(token, key) for key in ("client_id", "client_secret", "tenant") if text(token, key)}
    account = ImportedAccount(
        email,
        settings,
        refresh_token=secret(token, "refresh_token"),
        access_token=secret(token, "access_token"),
        expires_at_s=_ends(token.get("access_token_expiration")),
    )
    return Found(Format.MUTT, (account,), unread=tuple(unread))


def _endpoints(registration: Any, *, device: bool) -> dict[str, str] | None:
    if isinstance(registration, str):
        return known_provider(registration, device=device)
    if not isinstance(registration, Mapping):
        return None
    found = {key: text(registration, name) for key, names in ENDPOINTS.items() for name in names}
    page = next((text(registration, name) for name in DEVICE_ENDPOINTS if text(registration, name)), "")
    if device and page:
        found |= {"permission_url": page, "oauth2_flow": FlowName.DEVICE.value}
    return {key: value for key, value in found.items() if value}


def _ends(value: object) -> int | None:
    """When the access token ends: ISO 8601, in local time where it does not say, or seconds since the epoch."""
    try:
        if isinstance(value, int | float):
            return int(datetime.fromtimestamp(value, UTC).timestamp())
        return int(datetime.fromisoformat(str(value)).timestamp())
    except (ValueError, OverflowError, OSError):
        return None
