"""Which settings a login gets: its own section's, then those of ``[@domain]`` and ``[@]``.

The OAuth settings of a mailbox with a `token_owner` are its owner's.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emailproxy.config import grants
from emailproxy.config.keys import FAMILIES, account_keys
from emailproxy.config.model import ANYBODY, Account, Cached, Config, FirstLogin, FlowName, MailProtocol, MailServer
from emailproxy.config.presets import SERVER_KEYS, mail_server
from emailproxy.config.providers import Values, provider_of, tenant_endpoint
from emailproxy.config.sources import FromFile
from emailproxy.config.values import path
from emailproxy.errors import AccountUnusable, UnknownAccount
from emailproxy.names import MAX_NAME, is_a_name
from emailproxy.secret import Secret

FIELDS = {
    "client_id": "client_id",
    "oauth2_scope": "scope",
    "max_connections_per_account": "max_connections",
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
            "auth_as",
            "smtp_auth_as",
            "first_login",
            "allow_from",
            "redirect_uri",
            "redirect_listen_address",
        )
    },
}
"""The settings that an account has as they are, by key."""

PERSONAL = frozenset(
    {
        "aliases",
        "token_owner",
        "auth_as",
        "smtp_auth_as",
        "first_login",
        "allow_from",
        "max_connections_per_account",
    }
)
"""Keys that a mailbox has for itself; all others it has of its `token_owner`, but for servers of its own."""

OAUTH_KEYS = frozenset(account_keys(Path())) - PERSONAL - frozenset(SERVER_KEYS.values())
"""Keys that an owner's mailboxes have of it."""

MEANINGFUL_WHEN_EMPTY = frozenset({"login_hint"})
"""Keys whose empty value says something of its own, and does not only unset an inherited one."""

MAX_RESOLVED = 4096  # login names kept ready, besides one for each section; with a catch-all, strangers choose them


@dataclass(frozen=True, slots=True)
class Directory:
    """The account sections of one file, and who is found in them. All names are case-folded."""

    sections: Mapping[str, Values]
    aliases: Mapping[str, str]
    catch_all: bool

    @classmethod
    def of(cls, config: Config) -> Directory:
        return cls(config.sections, config.aliases, config.settings.allow_catch_all_accounts)

    def named(self, user: str) -> str:
        """The account that a login name means: the one that it is an alias of, or else its own."""
        name = user.casefold()
        return self.aliases.get(name, name)

    def chain(self, name: str) -> tuple[str, ...]:
        return chain(self.sections, name, catch_all=self.catch_all)

    def own(self, name: str) -> dict[str, Any]:
        """What an account's sections say."""
        return merge(self.sections, self.chain(name))

    def owner(self, name: str, own: Values | None = None) -> str | None:
        """The other account of this file whose sign-in serves this one, if any; `own` is `own(name)`, where known."""
        owner = (self.own(name) if own is None else own).get("token_owner", ANYBODY)
        found = self.named(owner)
        return found if owner != ANYBODY and found != name and self.chain(found) else None

    def settings(self, name: str) -> dict[str, Any]:
        """All that counts for an account: one sign-in, so one set of OAuth settings, for an owner and its mailboxes.

        The passwords are the owner's, too: no mailbox sets the first where the owner denies that, and the owner's
        networks count where a mailbox names none.
        """
        own = self.own(name)
        owner = self.owner(name, own)
        if owner is None:
            return own
        mine = {key: value for key, value in own.items() if key in PERSONAL or key in SERVER_KEYS.values()}
        theirs = self.own(owner)
        guards = {"allow_from": theirs["allow_from"]} if "allow_from" in theirs else {}
        denied = {"first_login": FirstLogin.DENY} if theirs.get("first_login") == FirstLogin.DENY else {}
        return {key: value for key, value in theirs.items() if key not in PERSONAL} | guards | mine | denied


def resolve(config: Config, user: str) -> Account:
    """The account that a login name means; names compare without regard to case.

    Raises:
        UnknownAccount: no section, and no catch-all, matches.
        AccountUnusable: its sections lack something.
    """
    account = config._resolved.get(user)
    if account is None:
        if len(config._resolved) >= MAX_RESOLVED + len(config.sections):
            config._resolved.clear()
        account = config._resolved[user] = _resolve(config, user)
    return account


def accounts(config: Config) -> tuple[Account, ...]:
    """Every account that has a section of its own, in the order of the file.

    Raises:
        AccountUnusable: one lacks something, which only a draft's can.
    """
    return tuple(resolve(config, name) for name in config.spellings.values() if not name.startswith("@"))


def keys(config: Config) -> frozenset[str]:
    """`Account.key` of every account that has a section of its own, complete or not: their state is kept by these."""
    directory = Directory.of(config)
    mailboxes = [name for name in config.spellings if not name.startswith("@")]
    return frozenset(_key(directory, name) for name in mailboxes)


def _key(directory: Directory, name: str) -> str:
    owner = directory.own(name).get("token_owner", ANYBODY)
    if owner == ANYBODY:
        return name
    known = directory.named(owner)
    return known if known in directory.sections else owner.casefold()


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
        replaced = _replaced(values) if merged else ()
        merged = {key: value for key, value in merged.items() if key not in replaced} | dict(values)
    return {key: value for key, value in merged.items() if value or key in MEANINGFUL_WHEN_EMPTY}


def _replaced(values: Values) -> set[str]:
    """The keys whose inherited values a section with these takes the place of, besides its own."""
    replaced = {key for keys in FAMILIES if not values.keys().isdisjoint(keys) for key in keys}
    replaced |= {"token_url", "permission_url"} if values.get("tenant") else set()
    replaced |= {"tenant"} if values.get("token_url") else set()
    return replaced


def cached(config: Config, name: str) -> Cached | None:
    """What another proxy keeps of an account; of one without a section of its own, what its catch-all has for all."""
    directory = Directory.of(config)
    key = directory.named(name)
    own = config.cached.get(key)
    if own is not None:
        return own
    return next((config.cached[part] for part in directory.chain(key) if part in config.cached), None)


def _resolve(config: Config, user: str) -> Account:
    if not is_a_name(user):
        raise UnknownAccount(f"this user name is empty, holds a control character, or more than {MAX_NAME} octets")
    if user.startswith("@"):
        raise UnknownAccount("a user name begins with the part before the @, e.g. user@example.com")
    directory = Directory.of(config)
    key = directory.named(user)
    names = directory.chain(key)
    if not names:
        raise UnknownAccount(f"no account {user} is configured; add it with emailproxy register --account=NAME")
    section = config.spellings[names[0]]
    values = directory.settings(key)
    owner = values.get("token_owner", ANYBODY)
    if owner != ANYBODY:
        known = directory.named(owner)
        values["token_owner"] = config.spellings.get(known, owner)
    found = grants.problems(values, _elsewhere(config, directory.owner(key) or key))
    if found:
        missing = ", ".join(f"{problem.key} {problem.what}" for problem in found)
        raise AccountUnusable(f"the configuration of account {user} is incomplete: [{section}] {missing}")
    return build(section if names[0] == key else user, section, values, folder(config.path))


def _elsewhere(config: Config, name: str) -> grants.Elsewhere:
    kept = cached(config, name)
    return grants.Elsewhere(
        sealed=config.settings.encrypt_client_secret_on_first_use or bool(kept and kept.client_secret),
        login=config.settings.use_login_password_as_client_credentials_secret,
    )


def folder(path: Path) -> Path:
    """Where the relative paths of a configuration file begin."""
    return Path(os.path.abspath(path)).parent


def build(name: str, section: str, values: Values, base: Path) -> Account:
    """The account of settings that have no problems; `base` is where relative paths begin."""
    flow, _ = grants.flow_of(values)
    assert flow is not None
    settings = {field: values[key] for key, field in FIELDS.items() if key in values}
    settings |= _endpoints(values, flow) | _credentials(values, flow, base) | _servers(values)
    if flow is FlowName.PASSWORD and "oauth2_resource" in values:
        settings["resource"] = values["oauth2_resource"]
    return Account(name=name, section=section, flow=flow, provider=provider_of(values, flow), **settings)


def _servers(values: Values) -> dict[str, MailServer | None]:
    """The mail servers that the account names, or its provider's."""
    return {SERVER_KEYS[protocol]: mail_server(values, protocol) for protocol in MailProtocol}


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
