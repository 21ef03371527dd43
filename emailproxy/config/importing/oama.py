"""oama's config.yaml, which has the clients, and its records, decrypted: one JSON object for each account."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from emailproxy.config.importing.found import (
    Format,
    Found,
    ImportedAccount,
    known_provider,
    loopback_redirect,
    secret,
    text,
)
from emailproxy.config.importing.recognise import json_object
from emailproxy.config.model import FlowName
from emailproxy.config.presets import of_tenant
from emailproxy.config.scan import shown

KEYS = {
    "token_url": "token_endpoint",
    "permission_url": "auth_endpoint",
    "oauth2_scope": "auth_scope",
    "client_id": "client_id",
    "client_secret": "client_secret",
    "prompt": "prompt",
}
"""Our keys and oama's."""

RECORDS = {
    "GPG": "each account's tokens are in a file of its own, encrypted with GnuPG: decrypt it, "
    "(umask 077; gpg --decrypt ~/.local/state/oama/ACCOUNT.oama > ACCOUNT.plain), and import both files at once",
    "KEYRING": "each account's tokens are in the keyring: fetch them, "
    "(umask 077; secret-tool lookup oama ACCOUNT > ACCOUNT.plain), and import both files at once",
}


def read(content: str, _name: str) -> Found:
    record = json_object(content)
    if record is not None and "services" not in record:
        return _record(record)
    values = _yaml(content) if record is None else record
    services = values.get("services") if values is not None else None
    if values is None or not isinstance(services, Mapping):
        return Found(Format.OAMA, unread=("is neither oama's configuration nor one of its records",))
    unread: list[str] = [_where_tokens_are(values)]
    found = {}
    for name, service in services.items():
        if isinstance(name, str) and isinstance(service, Mapping):
            found[name] = _service(name, service)
            unread += _without_counterpart(name, service)
    return Found(Format.OAMA, services=found, unread=tuple(unread))


def _yaml(content: str) -> Mapping[str, Any] | None:
    import yaml

    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None


def _record(values: Mapping[str, Any]) -> Found:
    email = values.get("email")
    name = text(email, "unEmailAddress") if isinstance(email, Mapping) else text(values, "email")
    if not name:
        return Found(Format.OAMA, unread=("has no email, so that its account has no name",))
    service = text(values, "service")
    account = ImportedAccount(
        name,
        refresh_token=secret(values, "refresh_token"),
        access_token=secret(values, "access_token"),
        expires_at_s=_ends(text(values, "exp_date")),
        service=service,
    )
    return Found(Format.OAMA, (account,), defaults=known_provider(service) or {})


def _where_tokens_are(values: Mapping[str, Any]) -> str:
    encryption = values.get("encryption")
    tag = text(encryption, "tag") if isinstance(encryption, Mapping) else ""
    return RECORDS["GPG" if tag == "GPG" else "KEYRING"]


def _service(name: str, service: Mapping[str, Any]) -> dict[str, str]:
    """Our settings of one of its services: the provider's own, and what the file has in place of them."""
    device = "devicecode" in text(service, "auth_endpoint") or (
        name == "microsoft" and not text(service, "auth_endpoint")
    )
    settings = known_provider(name, device=device) or {}
    settings |= {key: text(service, theirs) for key, theirs in KEYS.items() if text(service, theirs)}
    if text(service, "tenant"):
        settings = of_tenant(settings, text(service, "tenant"))
    if device and "permission_url" in settings:
        settings["oauth2_flow"] = FlowName.DEVICE.value
    elif "permission_url" in settings:
        settings["oauth2_flow"] = FlowName.AUTHORIZATION_CODE.value
    redirect_uri = loopback_redirect(text(service, "redirect_uri"))
    if redirect_uri:
        settings["redirect_uri"] = redirect_uri
    command = service.get("client_secret_cmd")
    if isinstance(command, str) and command.strip():
        settings.pop("client_secret", None)
        settings["client_secret_command"] = json.dumps(["/bin/sh", "-c", command.strip()])
    return settings


def _without_counterpart(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    if service.get("client_id_cmd"):
        yield f"{shown(name)}: client_id_cmd has no counterpart: a client_id is no secret, write what it prints"
    methods = [key for key in ("auth_http_method", "token_http_method", "token_params_mode") if service.get(key)]
    if methods:
        yield f"{shown(name)}: {', '.join(methods)} have no counterpart: requests are made as RFC 6749 has them"


def _ends(stamp: str) -> int | None:
    """When the access token ends; oama writes UTC, five minutes early."""
    try:
        return int(datetime.strptime(stamp.removesuffix(" UTC"), "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return None
