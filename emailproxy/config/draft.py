"""What `register` writes: wishes to sections, and sections into a file's text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emailproxy.config import edit, ini
from emailproxy.config.catchall import chain
from emailproxy.config.grants import KEY_FILE
from emailproxy.config.keys import family
from emailproxy.config.model import Config, FlowName, MailProtocol, ProviderName
from emailproxy.config.presets import Provider, of_tenant
from emailproxy.config.scan import Report, Section, decode, in_order, scan
from emailproxy.errors import ConfigError, EmailProxyError

LOCAL_PORTS = {MailProtocol.IMAP: 2993, MailProtocol.POP: 2995, MailProtocol.SMTP: 2465}

# implicit TLS: RFC 8314 section 7.3; STARTTLS: RFC 3501 section 2.1, RFC 1939 section 3, RFC 6409 section 3.1
TLS_PORTS = {MailProtocol.IMAP: 993, MailProtocol.POP: 995, MailProtocol.SMTP: 465}
STARTTLS_PORTS = {MailProtocol.IMAP: 143, MailProtocol.POP: 110, MailProtocol.SMTP: 587}

CATCH_ALL_KEY = "allow_catch_all_accounts"

KEY_PLACEHOLDER = "<path of the key file>"
NOT_INHERITED = (
    ("permission_url",),
    ("provider",),
    ("tenant",),
    ("client_id",),
    family("client_secret"),
    ("jwt_certificate_path",),
    ("jwt_key_path",),
    ("client_assertion_file",),
    ("managed_identity",),
    ("service_account_email",),
    ("token_command",),
)
"""Settings that belong to one client or one way of signing in; those of a group are alternatives."""

FILE_COMMENT = """\
The configuration of emailproxy. emailproxy.example.ini documents every key.
It holds secrets: keep it readable by its owner alone."""
SETTINGS_COMMENT = "Catch-alls, [@domain] and [@], serve the user names that have no section of their own."
BROWSER_COMMENT = """\
After a sign-in the provider sends the browser to redirect_uri, by default http://localhost:8801/: register
exactly this URI with the provider. Behind a reverse proxy, set redirect_uri to the proxy's address, and
redirect_listen_address to where emailproxy listens for it."""

ACCOUNT_COMMENT = "How emailproxy gets access tokens. emailproxy.example.ini has every way there is."


class SectionExists(EmailProxyError):
    """A section is there already, and `force` was not given."""


@dataclass(frozen=True, slots=True)
class ServerWish:
    """A server to register; what is None comes from the protocol's custom."""

    address: str
    port: int | None = None
    starttls: bool = False
    local_port: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A file's new text and what it means."""

    text: str
    config: Config
    changed: tuple[str, ...]
    """The sections that were added or overwritten."""
    removed: tuple[str, ...]
    """Keys that an overwritten section has lost, as ``[section] key``."""


@dataclass(slots=True)
class Wishes:
    """The sections to write."""

    servers: Mapping[MailProtocol, ServerWish] = field(default_factory=dict)
    account: str = "@"
    account_values: Mapping[str, str] = field(default_factory=dict)

    def sections(self) -> dict[str, tuple[dict[str, str], str]]:
        """Values and comment by section name, in the file's order."""
        found = {}
        for protocol, wish in self.servers.items():
            local_port = wish.local_port or LOCAL_PORTS[protocol]
            port = wish.port or (STARTTLS_PORTS if wish.starttls else TLS_PORTS)[protocol]
            values = {"server_address": wish.address, "server_port": str(port)}
            if wish.starttls:
                values["server_starttls"] = "True"
            comment = f"{protocol} clients connect to 127.0.0.1, port {local_port}, without TLS."
            found[f"{protocol}-{local_port}"] = (values, comment)
        if self.account_values:
            device = self.account_values.get("oauth2_flow") == FlowName.DEVICE
            browser = "permission_url" in self.account_values and not device
            comment = BROWSER_COMMENT if browser else ACCOUNT_COMMENT
            found[self.account] = (dict(self.account_values), comment)
        return found


def account_values(given: Mapping[str, str], provider: Provider | None, tenant: str | None = None) -> dict[str, str]:
    """An account's keys: what is given, then the provider's, then placeholders for what is still unknown."""
    flow = given.get("oauth2_flow")
    preset = provider.endpoints(flow) if provider else {}
    values = {**(of_tenant(preset, tenant) if tenant else preset), **given}
    if "managed_identity" in given:
        if "token_url" not in given:
            values.pop("token_url", None)
        values.setdefault("provider", ProviderName.MICROSOFT.value)
    elif flow == FlowName.SERVICE_ACCOUNT:
        if "service_account_email" not in given or "client_secret" in given:
            values.setdefault("client_id", KEY_FILE)
            values.setdefault("client_secret", KEY_PLACEHOLDER)
    elif flow != FlowName.TOKEN_COMMAND:
        if "permission_url" in values:
            values.setdefault("oauth2_flow", FlowName.AUTHORIZATION_CODE.value)
        values.setdefault("client_id", "CLIENT_ID")
        needs_secret = flow == FlowName.CLIENT_CREDENTIALS or (provider is not None and provider.needs_secret)
        if needs_secret and not {"jwt_certificate_path", "client_assertion_file"} & values.keys():
            values.setdefault("client_secret", "CLIENT_SECRET")
    order = ("provider", "token_url", "permission_url", "oauth2_scope", "oauth2_flow", "client_id", "client_secret")
    return {key: values[key] for key in (*order, *(key for key in values if key not in order)) if key in values}


def draft(path: Path, wishes: Wishes, *, force: bool) -> Draft:
    """The file as it will be. Nothing is written.

    Raises:
        SectionExists: a section is there already, with other content, and `force` is False.
        ConfigError: the file is wrong, or would be.
    """
    text, newline = existing(path)
    report = Report(str(path))
    present = scan(text, report)
    if report.faults:
        raise ConfigError(in_order(report.faults))
    by_name = {section.name.casefold(): section for section in present}
    sections = {
        name: wanted for name, wanted in wishes.sections().items() if not _shared(by_name, name, wanted[0], wishes)
    }
    if wishes.account in sections:
        unset_inherited(sections[wishes.account][0], by_name, wishes.account)
    if not force:
        _refuse_to_overwrite(path, [by_name[name.casefold()] for name in sections if name.casefold() in by_name])
    if not text.strip():
        text = "".join(f"# {line}\n" for line in FILE_COMMENT.splitlines())
    if wishes.account_values and wishes.account.startswith("@"):
        text = with_catch_all(text, by_name.get("emailproxy"), force=force)
    text, removed = _with_sections(text, by_name, sections)
    return Draft(
        text=text.replace("\n", newline),
        config=ini.loads(text, path, allow_placeholders=True),
        changed=tuple(sections),
        removed=tuple(removed),
    )


def existing(path: Path) -> tuple[str, str]:
    """The file's text, empty where there is none, and its line ending."""
    if not os.path.exists(path):
        return "", "\n"
    octets = ini.read(path)[0]
    report = Report(str(path))
    text = decode(octets, report)
    if report.faults:
        raise ConfigError(in_order(report.faults))
    return text, "\r\n" if b"\r\n" in octets else "\n"


def _shared(present: Mapping[str, Section], name: str, values: Mapping[str, str], wishes: Wishes) -> bool:
    """Whether a server's section is there just as it is wanted: then a second account shares it."""
    section = present.get(name.casefold())
    same = section and {key: entry.value for key, entry in section.entries.items()} == values
    return bool(same) and name != wishes.account


def unset_inherited(values: dict[str, str], present: Mapping[str, Section], account: str) -> None:
    """Another client's credentials or sign-in page in a wider section are not for this account."""
    wider = [name for name in chain(present, account, catch_all=True) if name != account.casefold()]
    for keys in NOT_INHERITED:
        inherited = any(key in present[name].entries for name in wider for key in keys)
        if inherited and not any(key in values for key in keys):
            values[keys[0]] = ""


def _refuse_to_overwrite(path: Path, taken: list[Section]) -> None:
    if not taken:
        return
    names = ", ".join(f"[{section.name}] (line {section.line})" for section in taken)
    raise SectionExists(
        f"{path} already has {names}, and nothing was changed; --force overwrites "
        f"{'them' if len(taken) > 1 else 'it'}, --account and --imap-local-port (pop, smtp) register beside it"
    )


def _with_sections(
    text: str, present: Mapping[str, Section], wanted: Mapping[str, tuple[dict[str, str], str]]
) -> tuple[str, list[str]]:
    removed: list[str] = []
    for name, (values, comment) in wanted.items():
        section = present.get(name.casefold())
        if section is None:
            text = edit.append_section(text, name, values, comment)
        else:
            text, gone = edit.set_keys(text, section.name, values, replace=True)
            removed += [f"[{section.name}] {key}" for key in gone]
    return text, removed


def with_catch_all(text: str, settings: Section | None, *, force: bool) -> str:
    """The text with catch-all accounts allowed, which `[@]` and `[@domain]` need."""
    if settings is None:
        return edit.append_section(text, "emailproxy", {CATCH_ALL_KEY: "True"}, SETTINGS_COMMENT)
    entry = settings.entries.get(CATCH_ALL_KEY)
    if entry and entry.value.casefold() in ("0", "no", "false", "off") and not force:
        raise SectionExists(
            f"{CATCH_ALL_KEY} is {entry.value} on line {entry.line}, and a catch-all account needs it to be True; "
            "nothing was changed; --force overwrites it, --account=user@example.com registers one account"
        )
    return edit.set_keys(text, settings.name, {CATCH_ALL_KEY: "True"})[0]
