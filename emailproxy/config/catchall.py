"""Which settings a login gets: its own section, then ``[@domain]``, then ``[@]``."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from emailproxy.config.keys import SUPPORTED_FLOWS, UNSUPPORTED_FLOWS
from emailproxy.config.model import Account, Config, FlowName
from emailproxy.errors import AccountUnusable, UnknownAccount
from emailproxy.names import MAX_NAME, is_a_name
from emailproxy.secret import Secret

Values = Mapping[str, str | Secret]

MAX_RESOLVED = 4096  # accounts kept ready; with a catch-all, strangers choose the names

MISSING = "is missing"
REQUIRED = ("token_url", "oauth2_scope", "client_id")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an account cannot be used, or what was decided about it."""

    key: str
    what: str
    mend: str


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


def merge(sections: Mapping[str, Values], names: tuple[str, ...]) -> dict[str, str | Secret]:
    """The settings of a chain of sections, the most specific winning; an empty value unsets an inherited one."""
    merged: dict[str, str | Secret] = {}
    for name in reversed(names):
        merged.update(sections[name])
    return {key: value for key, value in merged.items() if value}


def flow_of(values: Values) -> tuple[FlowName | None, Problem | None]:
    """The flow that a whole account's settings mean, and what its owner should know about that.

    With a `permission_url` a person signs in, whatever `oauth2_flow` says, but for two cases: `device`, and
    `client_credentials` with a scope that ends in ``/.default``, which only applications ask for.
    """
    wanted = values.get("oauth2_flow")
    permission_url = "permission_url" in values
    if wanted is None:
        if permission_url:
            return FlowName.AUTHORIZATION_CODE, None
        mend = "add permission_url to sign in with a browser, or oauth2_flow = client_credentials"
        return None, Problem("oauth2_flow", "neither it nor permission_url is set", mend)
    if wanted == FlowName.AUTHORIZATION_CODE:
        if permission_url:
            return FlowName.AUTHORIZATION_CODE, None
        mend = "add the provider's authorization endpoint"
        return None, Problem("permission_url", "is missing, which authorization_code needs", mend)
    if wanted in UNSUPPORTED_FLOWS and (not permission_url or wanted == "device"):
        what = f"{wanted} is not supported by this version; supported: {', '.join(SUPPORTED_FLOWS)}"
        return None, Problem("oauth2_flow", what, "write one of those")
    application = str(values.get("oauth2_scope", "")).endswith("/.default")
    if wanted == FlowName.CLIENT_CREDENTIALS and (application or not permission_url):
        return FlowName.CLIENT_CREDENTIALS, None
    return FlowName.AUTHORIZATION_CODE, _browser_instead_of(str(wanted))


def _browser_instead_of(wanted: str) -> Problem:
    what = f"{wanted} does not apply beside permission_url: authorization_code is used, so a person signs in"
    if wanted != FlowName.CLIENT_CREDENTIALS:
        return Problem("oauth2_flow", what, "remove oauth2_flow")
    mend = (
        "for access as an application remove permission_url and use the scope that ends in /.default "
        "(e.g. https://outlook.office365.com/.default); to sign in as a person remove oauth2_flow"
    )
    return Problem("oauth2_flow", f"{what} (this scope does not end in /.default)", mend)


def problems(values: Values) -> list[Problem]:
    """Everything that keeps a whole account's settings from being used."""
    found = [Problem(key, MISSING, f"add {key}") for key in REQUIRED if key not in values]
    flow, problem = flow_of(values)
    if flow is None and problem:
        found.append(problem)
    if flow is FlowName.CLIENT_CREDENTIALS and "client_secret" not in values:
        found.append(Problem("client_secret", "is missing, which client_credentials needs", "add client_secret"))
    return found


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
    found = problems(values)
    if found:
        missing = ", ".join(f"{problem.key} {problem.what}" for problem in found)
        raise AccountUnusable(f"the configuration of account {user} is incomplete: [{section}] {missing}")
    return build(section if names[0] == user.casefold() else user, section, values)


def build(name: str, section: str, values: Values) -> Account:
    """The account of settings that have no problems."""
    flow, _ = flow_of(values)
    assert flow is not None
    secret = values.get("client_secret")
    text = {key: str(value) for key, value in values.items() if key != "client_secret"}
    optional = {key: text[key] for key in ("redirect_uri", "redirect_listen_address") if key in text}
    return Account(
        name=name,
        section=section,
        flow=flow,
        token_url=text["token_url"],
        permission_url=text.get("permission_url"),
        scope=text["oauth2_scope"],
        client_id=text["client_id"],
        client_secret=secret if isinstance(secret, Secret) else None,
        **optional,
    )
