"""sasl-xoauth2's configuration, which has the client, and its token files: one JSON object each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from emailproxy.config.importing.found import Format, Found, ImportedAccount, endpoints, over, secret, text
from emailproxy.config.importing.recognise import json_object
from emailproxy.config.model import FlowName
from emailproxy.config.presets import GOOGLE

DIGITS = re.compile(r"[0-9]{1,12}\Z")
YES = ("yes", "true")
GOOGLES = endpoints(GOOGLE.token_url)
"""What the program has where no endpoint is named."""


def read(content: str, name: str) -> Found:
    values = json_object(content) or {}
    if not any(text(values, key) for key in ("refresh_token", "access_token", "user")):
        return Found(Format.SASL, services={"": over(GOOGLES, _settings(values))}, unread=tuple(_unread(values)))
    user = text(values, "user") or _named_after(name)
    if not user:
        what = "names no account: give the file the account's name, e.g. anna@example.com, and import it again"
        return Found(Format.SASL, unread=(what,))
    account = ImportedAccount(
        user,
        _settings(values),
        refresh_token=secret(values, "refresh_token"),
        access_token=secret(values, "access_token"),
        expires_at_s=_ends(values.get("expiry")),
    )
    return Found(Format.SASL, (account,), defaults=GOOGLES, unread=tuple(_unread(values)))


def _settings(values: Mapping[str, Any]) -> dict[str, str]:
    flow = FlowName.CLIENT_CREDENTIALS if _is_yes(values, "use_client_credentials") else None
    token_url = text(values, "token_endpoint")
    settings = endpoints(token_url, flow) if token_url else {}
    if flow:
        settings["oauth2_flow"] = flow.value
    if text(values, "scope"):
        settings["oauth2_scope"] = text(values, "scope")
    return settings | {key: text(values, key) for key in ("client_id", "client_secret") if text(values, key)}


def _unread(values: Mapping[str, Any]) -> list[str]:
    found = []
    if _is_yes(values, "manage_token_externally"):
        found.append("its token is renewed by another program; let that print it, by token_command")
    if text(values, "proxy"):
        found.append("proxy: set upstream_proxy in [emailproxy]")
    if text(values, "ca_bundle_file") or text(values, "ca_certs_dir"):
        found.append("its own certificates to trust: set ca_file in [emailproxy]")
    return found


def _is_yes(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    return value is True or (isinstance(value, str) and value.casefold() in YES)


def _named_after(name: str) -> str:
    """The account that the file's name names, as its documentation has it."""
    base = PurePath(name).name
    for ending in (".plain", ".json", ".token", ".tokens"):
        base = base.removesuffix(ending)
    return base if "@" in base else ""


def _ends(value: object) -> int | None:
    """Seconds since the epoch, as a number or as digits; 0 says that it is not known."""
    digits = str(value)
    return int(digits) or None if DIGITS.match(digits) else None
