"""Which settings a login gets: its own section, then ``[@domain]``, then ``[@]``."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from emailproxy.config import grants
from emailproxy.config.keys import FAMILIES
from emailproxy.config.model import Account, Config, FlowName
from emailproxy.config.providers import Values, provider_of, tenant_endpoint
from emailproxy.config.sources import FromFile
from emailproxy.config.values import path
from emailproxy.errors import AccountUnusable, UnknownAccount
from emailproxy.names import MAX_NAME, is_a_name
from emailproxy.secret import Secret

FIELDS = {
    "client_id": "client_id",
    "oauth2_scope": "scope",
    **{
        name: name
        for name in (
            "tenant",
            "service_account_email",
            "token_command",
            "token_command_timeout",
            "prompt",
            "login_hint",
            "authorize_params",
            "token_owner",
            "redirect_uri",
            "redirect_listen_address",
        )
    },
}
"""The settings that an account has as they are, by key."""

MEANINGFUL_WHEN_EMPTY = frozenset({"login_hint"})
"""Keys whose empty value says something of its own, and does not only unset an inherited one."""

MAX_RESOLVED = 4096  # accounts kept ready; with a catch-all, strangers choose the names


def resolve(config: Config, user: str) -> Account:
    """The account that a login name means; names compare without regard to case.

    Raises:
        UnknownAccount: no section, and no catch-all, matches.
        AccountUnusable: its sections lack something.
    """
    account = config._resolved.get(user)
    if account is None:
        if len(config._resolved) >= MAX_RESOLVED:
            config._resolved.clear()
        account = config._resolved[user] = _resolve(config, user)
    return account


def accounts(config: Config) -> tuple[Account, ...]:
    """Every account that has a section of its own, in the order of the file.

    Raises:
        AccountUnusable: one lacks something, which only a draft's can.
    """
    return tuple(resolve(config, name) for name in config.spellings.values() if not name.startswith("@"))


def chain(names: Container[str], user: str, *, catch_all: bool) -> tuple[str, ...]:
    """The sections whose settings a user name inherits, the most specific first, all case-folded."""
    name = user.casefold()
    _, at, domain = name.rpartition("@")
    # Outlook spells a shared mailbox user@domain\mailbox: the domain ends at the backslash
    wider = (f"@{domain.partition(chr(92))[0]}" if at else "@", "@")
    candidates = dict.fromkeys((name, *wider) if catch_all else (name,))
    return tuple(candidate for candidate in candidates if candidate in names)


def merge(sections: Mapping[str, Values], names: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a chain of sections, the most specific winning; an empty value unsets an inherited one.

    A secret's three keys, `KEY`, `KEY_file` and `KEY_command`, are one setting: a section's takes the place of all.
    So does a tenant of inherited endpoints, and a token endpoint of an inherited tenant.
    """
    merged: dict[str, Any] = {}
    for name in reversed(names):
        values = sections[name]
        replaced = {key for keys in FAMILIES if not values.keys().isdisjoint(keys) for key in keys}
        replaced |= {"token_url", "permission_url"} if values.get("tenant") else set()
        replaced |= {"tenant"} if values.get("token_url") else set()
        merged = {key: value for key, value in merged.items() if key not in replaced} | dict(values)
    return {key: value for key, value in merged.items() if value or key in MEANINGFUL_WHEN_EMPTY}


def _resolve(config: Config, user: str) -> Account:
    if not is_a_name(user):
        raise UnknownAccount(f"this user name is empty, holds a control character, or more than {MAX_NAME} octets")
    if user.startswith("@"):
        raise UnknownAccount("a user name begins with the part before the @, e.g. user@example.com")
    names = chain(config.sections, user, catch_all=config.settings.allow_catch_all_accounts)
    if not names:
        raise UnknownAccount(f"no account {user} is configured; add it with emailproxy register --account")
    section = config.spellings[names[0]]
    values = merge(config.sections, names)
    found = grants.problems(values)
    if found:
        missing = ", ".join(f"{problem.key} {problem.what}" for problem in found)
        raise AccountUnusable(f"the configuration of account {user} is incomplete: [{section}] {missing}")
    return build(section if names[0] == user.casefold() else user, section, values, folder(config.path))


def folder(path: Path) -> Path:
    """Where the relative paths of a configuration file begin."""
    return Path(os.path.abspath(path)).parent


def build(name: str, section: str, values: Values, base: Path) -> Account:
    """The account of settings that have no problems; `base` is where relative paths begin."""
    flow, _ = grants.flow_of(values)
    assert flow is not None
    settings = {field: values[key] for key, field in FIELDS.items() if key in values}
    settings |= _endpoints(values, flow) | _credentials(values, flow, base)
    if flow is FlowName.PASSWORD and "oauth2_resource" in values:
        settings["resource"] = values["oauth2_resource"]
    return Account(name=name, section=section, flow=flow, provider=provider_of(values, flow), **settings)


def _endpoints(values: Values, flow: FlowName) -> dict[str, str]:
    """The endpoints that are there, and those that follow from a Microsoft tenant."""
    told = {key: values[key] for key in ("token_url", "permission_url") if key in values}
    derived = {"token_url": tenant_endpoint(values, "token")}
    if flow is FlowName.AUTHORIZATION_CODE:
        derived["permission_url"] = tenant_endpoint(values, "authorize")
    elif flow is FlowName.DEVICE:
        derived["permission_url"] = tenant_endpoint(values, "devicecode")
        if derived["permission_url"] and told.get("permission_url", "").endswith("/authorize"):
            del told["permission_url"]  # an inherited one, for those who sign in with a browser
    return {key: url for key, url in derived.items() if url} | told


def _credentials(values: Values, flow: FlowName, base: Path) -> dict[str, Any]:
    """How the client proves who it is: by one credential, whatever else is there."""
    secret = grants.source(values, "client_secret")
    if flow is FlowName.SERVICE_ACCOUNT:
        client_id = str(values.get("client_id", "")).casefold()
        if client_id == grants.KEY_FILE and isinstance(secret, Secret):
            secret = FromFile(path(base)(secret.reveal()))
        return {"client_id": client_id, "client_secret": secret}
    used = grants.credential(values, flow)
    match used:
        case "jwt_certificate_path":
            return {
                "certificate": values[used],
                "certificate_key": values.get("jwt_key_path"),
                "key_passphrase": grants.source(values, "jwt_key_passphrase"),
            }
        case "client_assertion_file" | "managed_identity":
            return {used: values[used]}
        case _:
            return {"client_secret": secret}
