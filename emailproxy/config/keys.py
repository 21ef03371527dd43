"""Every key that the reader knows: what its value may be, and what happens to those of other versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from emailproxy.config import network, parameters, references, values
from emailproxy.config.model import (
    BOUNDS,
    Account,
    Bounds,
    FirstLogin,
    FlowName,
    MailProtocol,
    ProviderName,
    Server,
    Settings,
)

Reader = Callable[[str], Any]

HOOKS = ("on_consent_required", "on_sign_in_needed", "on_token_refreshed", "on_login_failed")

CACHED = frozenset(
    {
        "token_salt",
        "token_iterations",
        "access_token",
        "access_token_expiry",
        "refresh_token",
        "client_secret_encrypted",
        "last_activity",
    }
)
"""What another proxy keeps in an account's section, or in a file of its own: `config.cached` reads it."""

IGNORED = frozenset({"documentation"})


def family(name: str) -> tuple[str, str, str]:
    """A secret's key, and those that lead to it; one section has one of them, and it stands for all three."""
    return name, f"{name}_file", f"{name}_command"


FAMILIES = tuple(family(name) for name in ("client_secret", "jwt_key_passphrase", "hook_secret", "login_as_password"))


def settings_keys(base: Path) -> dict[str, Reader]:
    """`[emailproxy]`: the bounds are the model's own."""
    special = {
        "ca_file": values.ca_file(base),
        **dict.fromkeys(HOOKS, references.hook(base)),
        "hook_secret": references.secret,
        "upstream_proxy": network.upstream_proxy,
        "no_proxy": network.no_proxy,
    }
    readers: dict[str, Reader] = {}
    for one in fields(Settings):
        if one.name in special:
            readers[one.name] = special[one.name]
        elif one.type == "bool":
            readers[one.name] = values.boolean
        elif BOUNDS in one.metadata:
            readers[one.name] = _bounded(Settings, one.name)
        else:
            readers[one.name] = values.path(base)
    return readers | _family_readers("hook_secret", base)


def _bounded(model: type[Settings | Server | Account], name: str) -> Reader:
    """Of a field's annotation, a text here: a `float` is a duration, anything else a whole number."""
    (found,) = (one for one in fields(model) if one.name == name)
    bounds: Bounds = found.metadata[BOUNDS]
    if found.type == "float":
        return values.duration(bounds.low, bounds.high, above_low=bounds.above_low)
    return values.whole_number(int(bounds.low), int(bounds.high))


def server_keys(base: Path) -> dict[MailProtocol, dict[str, Reader]]:
    """`[IMAP-PORT]`, `[POP-PORT]`, `[SMTP-PORT]`."""
    common: dict[str, Reader] = {
        "server_address": values.host,
        "server_port": values.port,
        "server_starttls": values.boolean,
        "local_address": values.host,
        "ca_file": values.ca_file(base),
        "local_certificate_path": references.pem_certificate(base),
        "local_key_path": references.pem_key(base),
        "local_starttls": network.local_starttls,
        "first_login": values.one_of(FirstLogin),
        "allow_from": network.networks,
        "allow_plaintext_from": network.networks,
        "proxy_protocol_from": network.networks,
        "max_connections_per_account": _bounded(Server, "max_connections_per_account"),
        "prewarm": _bounded(Server, "prewarm"),
    }
    smtp = {
        **common,
        "ehlo_name": values.ehlo_name,
        "login_as": parameters.person,
        **_family_readers("login_as_password", base),
    }
    return {MailProtocol.IMAP: common, MailProtocol.POP: common, MailProtocol.SMTP: smtp}


TEXTS: Mapping[str, Reader] = {
    "token_url": values.endpoint,
    "permission_url": values.endpoint,
    "oauth2_scope": values.scope,
    "client_id": values.plain,
    "redirect_uri": values.redirect_uri,
    "redirect_listen_address": values.listen_address,
    "tenant": parameters.tenant,
    "oauth2_resource": values.plain,
    "login_hint": parameters.person,
    "token_owner": parameters.person,
    "auth_as": parameters.person,
    "smtp_auth_as": parameters.person,
}
"""An account's keys whose values stay texts, so that a draft may keep a placeholder in them."""


def account_keys(base: Path) -> dict[str, Reader]:
    """`[user@domain]`, `[@domain]` and `[@]`."""
    return {
        **TEXTS,
        "provider": values.one_of(ProviderName),
        "oauth2_flow": values.one_of(FlowName),
        **_family_readers("client_secret", base),
        "jwt_certificate_path": references.existing_file(base),
        "jwt_key_path": references.existing_file(base),
        **_family_readers("jwt_key_passphrase", base),
        "client_assertion_file": values.path(base),
        "managed_identity": parameters.managed_identity,
        "service_account_email": parameters.mail_address,
        "token_command": references.arguments(base),
        "token_command_timeout": _bounded(Account, "token_command_timeout"),
        "prompt": parameters.prompt,
        "authorize_params": parameters.authorize_params,
        "aliases": parameters.aliases,
        "imap_server": network.mail_server,
        "pop_server": network.mail_server,
        "smtp_server": network.mail_server,
        "first_login": values.one_of(FirstLogin),
        "allow_from": network.networks,
        "max_connections_per_account": _bounded(Account, "max_connections"),
    }


def _family_readers(name: str, base: Path) -> dict[str, Reader]:
    return dict(
        zip(family(name), (references.secret, references.from_file(base), references.from_command(base)), strict=True)
    )
