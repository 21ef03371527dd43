"""What was found in files of other programs, and how the parts of several files come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

from emailproxy.config.model import FlowName
from emailproxy.config.presets import GOOGLE, MICROSOFT, Provider, provider_of
from emailproxy.config.providers import is_microsoft_host, tenant_endpoint
from emailproxy.config.references import is_reference
from emailproxy.config.scan import shown
from emailproxy.names import is_a_name
from emailproxy.secret import Secret


class Format(StrEnum):
    """Whose file it is."""

    EMAILPROXY = "emailproxy"
    """Another proxy's emailproxy.config, or its cache store."""
    MUTT = "mutt_oauth2"
    OAMA = "oama"
    PIZAUTH = "pizauth"
    SASL = "sasl-xoauth2"


FORMATS = tuple(kind.value for kind in Format)


@dataclass(frozen=True, slots=True)
class ImportedAccount:
    """One account of another program."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Our keys and their values. What is not known has a placeholder; another proxy's cached values are here, too."""
    refresh_token: Secret | None = None
    access_token: Secret | None = None
    expires_at_s: int | None = None
    """Seconds since the epoch."""
    service: str | None = None
    """The name under which the program's configuration has the client, where that is another file."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What files of other programs hold."""

    accounts: tuple[ImportedAccount, ...] = ()
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Another proxy's listening sections, and its `[emailproxy]`: keys and values by name."""
    unread: tuple[str, ...] = ()
    """What could not be read or has no counterpart here, each with what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one file holds."""

    kind: Format | None = None
    accounts: tuple[ImportedAccount, ...] = ()
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Settings of clients, by name; "" is for all accounts of this format."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """What the accounts have where neither they nor their services say otherwise."""
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    about: str = ""
    """The file's name, for messages."""


CLIENT_ID = "CLIENT_ID"
UNKNOWN = {
    "token_url": "<token endpoint>",
    "permission_url": "<authorization endpoint>",
    "oauth2_scope": "<scopes>",
    "client_id": CLIENT_ID,
}
"""Placeholders, which `serve` asks to fill in."""

PROVIDERS = frozenset({"token_url", "permission_url", "oauth2_scope", "oauth2_flow"})
"""Keys whose values belong to one provider, and come together."""

ORDER = (
    "provider",
    "tenant",
    "token_url",
    "permission_url",
    "oauth2_scope",
    "oauth2_flow",
    "client_id",
    "client_secret",
    "client_secret_command",
)


def completed(parts: Iterable[Found]) -> Imported:
    """All parts together: accounts with the settings of their services, each name once."""
    found = list(parts)
    unread = [line for part in found for line in part.unread]
    services = {(part.kind, name): values for part in found for name, values in part.services.items()}
    accounts: dict[str, ImportedAccount] = {}
    for part in found:
        for account in part.accounts:
            if not can_be_a_section(account.name):
                unread.append(f"{part.about}: {shown(account.name)!r} cannot be an account's name")
                continue
            if part.kind is not Format.EMAILPROXY:
                service = services.get((part.kind, account.service or ""), {})
                account = _filled_in(account, over(part.defaults, service))
                account, lines = _without_references(account)
                unread += (f"{part.about}: {account.name}: {line}" for line in (*lines, *_lacking(account, part.kind)))
            key = account.name.casefold()
            if key in accounts and part.kind is not Format.EMAILPROXY:
                unread.append(f"{part.about}: {account.name} is there twice; the first is taken")
            elif key in accounts:  # its cache store beside its configuration
                settings = {**accounts[key].settings, **account.settings}
                accounts[key] = replace(accounts[key], settings=settings)
            else:
                accounts[key] = account
    sections = {name: values for part in found for name, values in part.sections.items()}
    return Imported(tuple(accounts.values()), sections, tuple(dict.fromkeys(unread)))


def can_be_a_section(name: str) -> bool:
    """Whether a name can head an account's section."""
    return is_a_name(name) and "@" in name and not {"[", "]"} & set(name) and name == name.strip()


def _filled_in(account: ImportedAccount, others: Mapping[str, str]) -> ImportedAccount:
    values = {**UNKNOWN, **over(others, account.settings)}
    if values.get("oauth2_flow") == FlowName.CLIENT_CREDENTIALS:
        del values["permission_url"]
    known = [*(key for key in ORDER if key in values), *(key for key in values if key not in ORDER)]
    return replace(account, settings={key: values[key] for key in known})


def _without_references(account: ImportedAccount) -> tuple[ImportedAccount, tuple[str, ...]]:
    """A secret is just a text there: it must not come to mean one of ours, which would then go to their provider."""
    if not is_reference(account.settings.get("client_secret", "")):
        return account, ()
    settings = {key: value for key, value in account.settings.items() if key != "client_secret"}
    line = "client_secret begins as a reference does here (env:, keyring:); write it to a file, for client_secret_file"
    return replace(account, settings=settings), (line,)


def over(base: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """The values, and of the others what they leave open; one provider's pages are not for another's tokens."""
    left = {key: value for key, value in base.items() if key not in PROVIDERS or "token_url" not in values}
    return {**left, **values}


def _lacking(account: ImportedAccount, kind: Format | None) -> Iterable[str]:
    for key, placeholder in UNKNOWN.items():
        if account.settings.get(key) == placeholder:
            home = HOMES.get((kind, key), "")
            yield f"{key} is not in the file; fill it in before emailproxy serve{home}"
    if account.refresh_token is None and account.settings.get("oauth2_flow") != FlowName.CLIENT_CREDENTIALS:
        yield "no refresh token is there, so its owner signs in anew: by emailproxy authorize, or at the first login"


HOMES: Mapping[tuple[Format | None, str], str] = {
    (Format.MUTT, "client_id"): " (the script itself has it, and the client_secret, under 'registrations')",
    (Format.OAMA, "client_id"): " (or import oama's config.yaml with it, in one command)",
    (Format.SASL, "client_id"): " (or import sasl-xoauth2.conf with it, in one command)",
}
"""Where programs have what their token files lack."""


def endpoints(token_url: str, flow: str | None = None) -> dict[str, str]:
    """What follows from a token endpoint: its provider's other endpoint and scopes, where the provider is known."""
    provider = provider_of({"token_url": token_url})
    if provider is None:
        return {"token_url": token_url}
    values = provider.endpoints(flow) | {"token_url": token_url}
    if is_microsoft_host(token_url) and "permission_url" in values:
        name = "devicecode" if flow == FlowName.DEVICE else "authorize"
        values["permission_url"] = tenant_endpoint({"token_url": token_url}, name) or values["permission_url"]
    return values


def known_provider(name: str, *, device: bool = False) -> dict[str, str] | None:
    """The settings of Google's or Microsoft's accounts, as other programs name these two; None: it is another."""
    provider: Provider | None = {"google": GOOGLE, "microsoft": MICROSOFT}.get(name.casefold())
    if provider is None:
        return None
    flow = FlowName.DEVICE if device and provider.device_url else FlowName.AUTHORIZATION_CODE
    return {**provider.endpoints(flow), "oauth2_flow": flow.value}


def loopback_redirect(uri: str) -> str | None:
    """A `redirect_uri` of ours for theirs, where it needs one: providers take any port of a loopback (RFC 8252
    section 7.3), but a host other than localhost, or a path, is part of what was registered.
    """
    try:
        parts = urlsplit(uri)
        host, path = parts.hostname or "", parts.path.rstrip("/")
    except ValueError:
        return None
    if parts.scheme != "http" or host not in ("localhost", "127.0.0.1") or (host == "localhost" and not path):
        return None
    return f"http://{host}:8801{path}/"


def text(values: Mapping[str, object], key: str) -> str:
    """A text among what JSON or YAML gave, empty where there is none that fits on one line."""
    value = values.get(key)
    found = " ".join(value.split("\n")).strip() if isinstance(value, str) else ""
    return found if found.isprintable() else ""


def secret(values: Mapping[str, object], key: str) -> Secret | None:
    return Secret(text(values, key)) if text(values, key) else None
