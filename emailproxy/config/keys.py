"""Every key that the reader knows: what its value may be, and what happens to those of other versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from emailproxy.config import parameters, references, values
from emailproxy.config.model import Account, FlowName, MailProtocol, ProviderName, Settings
from emailproxy.config.values import Wrong

Reader = Callable[[str], Any]

UNSUPPORTED_SETTINGS = ("encrypt_client_secret_on_first_use", "use_login_password_as_client_credentials_secret")

HOOKS = ("on_consent_required", "on_sign_in_needed", "on_token_refreshed", "on_login_failed")

_WRITE_SECRET = "write the secret itself as client_secret, and remove this line"  # noqa: S105 - advice
_NO_LOCAL_TLS = "remove it: connections to the loopback need no TLS"

UNSUPPORTED: Mapping[str, str] = {
    "client_secret_encrypted": _WRITE_SECRET,
    "local_certificate_path": _NO_LOCAL_TLS,
    "local_key_path": _NO_LOCAL_TLS,
}
"""Keys of the format that this version cannot honour, each with its mend: ignoring them would mislead."""

CACHED = frozenset(
    {"token_salt", "token_iterations", "access_token", "access_token_expiry", "refresh_token", "last_activity"}
)
"""What other proxies keep in an account's section. It is not read: tokens live in the state folder."""

IGNORED = frozenset({"documentation"})


def family(name: str) -> tuple[str, str, str]:
    """A secret's key, and those that lead to it; one section has one of them, and it stands for all three."""
    return name, f"{name}_file", f"{name}_command"


FAMILIES = tuple(family(name) for name in ("client_secret", "jwt_key_passphrase", "hook_secret"))


def settings_keys(base: Path) -> dict[str, Reader]:
    """`[emailproxy]`: the bounds are the model's own."""
    special = {
        "ca_file": values.ca_file(base),
        **dict.fromkeys(HOOKS, references.hook(base)),
        "hook_secret": references.secret,
    }
    readers: dict[str, Reader] = {}
    for name, info in Settings.model_fields.items():
        if name in special:
            readers[name] = special[name]
        elif info.annotation is bool:
            readers[name] = _supported(name)
        elif info.annotation in (int, float):
            readers[name] = _bounded(info)
        else:
            readers[name] = values.path(base)
    return readers | _family_readers("hook_secret", base)


def _bounded(info: FieldInfo) -> Reader:
    bounds = {type(bound): bound for bound in info.metadata}
    low, high = bounds.get(Ge) or bounds[Gt], bounds[Le].le
    if info.annotation is int:
        return values.whole_number(low.ge, high)
    exclusive = isinstance(low, Gt)
    return values.duration(low.gt if exclusive else low.ge, high, above_low=exclusive)


def _supported(name: str) -> Reader:
    """A reader of True and False that refuses what this version cannot do."""

    def read(text: str) -> bool:
        wanted = values.boolean(text)
        if wanted and name in UNSUPPORTED_SETTINGS:
            raise Wrong("is not supported by this version", "set it to False, or remove the line")
        return wanted

    return read


def server_keys(base: Path) -> dict[MailProtocol, dict[str, Reader]]:
    """`[IMAP-PORT]`, `[POP-PORT]`, `[SMTP-PORT]`."""
    common: dict[str, Reader] = {
        "server_address": values.host,
        "server_port": values.port,
        "server_starttls": values.boolean,
        "local_address": values.host,
        "ca_file": values.ca_file(base),
    }
    smtp = common | {"ehlo_name": values.ehlo_name, "local_starttls": _no_local_starttls}
    return {MailProtocol.IMAP: common, MailProtocol.POP: common, MailProtocol.SMTP: smtp}


def _no_local_starttls(text: str) -> bool:
    if values.boolean(text):
        raise Wrong("STARTTLS on the local side is not supported by this version", _NO_LOCAL_TLS)
    return False


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
        "token_command_timeout": _bounded(Account.model_fields["token_command_timeout"]),
        "prompt": parameters.prompt,
        "authorize_params": parameters.authorize_params,
    }


def _family_readers(name: str, base: Path) -> dict[str, Reader]:
    return dict(
        zip(family(name), (references.secret, references.from_file(base), references.from_command(base)), strict=True)
    )
