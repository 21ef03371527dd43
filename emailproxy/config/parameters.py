"""Values of the providers' own kinds: tenants, identities, and what goes into an authorization request."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from emailproxy.config.hosts import canonical_host
from emailproxy.config.scan import shown
from emailproxy.config.values import Wrong, nearest, plain
from emailproxy.names import MAX_NAME, is_a_name

SHARED_TENANTS = ("common", "organizations", "consumers")
"""Microsoft's endpoints for people of any tenant; applications belong to one."""

SYSTEM_ASSIGNED = "system"
GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
MAIL_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\Z")

# OpenID Connect Core section 3.1.2.1
PROMPTS = ("none", "login", "consent", "select_account")

OWN_PARAMETERS = frozenset(
    {
        "client_id",
        "redirect_uri",
        "response_type",
        "response_mode",
        "scope",
        "state",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
    }
)
"""What emailproxy itself sends (RFC 6749 section 4.1.1, RFC 7636 section 4.3), or what would take its place."""
PARAMETERS_WITH_KEYS = frozenset({"prompt", "login_hint"})
MAX_PARAMETERS = 32  # no provider documents half as many


def tenant(text: str) -> str:
    """Microsoft's: an ID, a domain, or one of the shared names."""
    name = text.casefold()
    if name in SHARED_TENANTS or GUID.match(text):
        return name
    domain = canonical_host(text)
    if domain is None or "." not in domain or domain.replace(".", "").isdigit():
        near = nearest(name, SHARED_TENANTS)
        mend = "write the tenant's ID or domain, e.g. contoso.onmicrosoft.com, or common, organizations or consumers"
        raise Wrong(f"{shown(text)!r} is no tenant", f"did you mean {near}?" if near else mend)
    return domain


def managed_identity(text: str) -> str:
    """Azure's: ``system``, or the client ID of a user-assigned identity."""
    if text.casefold() == SYSTEM_ASSIGNED:
        return SYSTEM_ASSIGNED
    if not GUID.match(text):
        raise Wrong(f"{shown(text)!r} is no managed identity", "write system, or the client ID of the identity")
    return text


def prompt(text: str) -> str:
    """What the provider asks the person, whatever it remembers (OpenID Connect Core section 3.1.2.1)."""
    words = text.split()
    for word in words:
        if word not in PROMPTS:
            near = nearest(word.casefold(), PROMPTS)
            mend = f"did you mean {near}?" if near else f"write one of: {', '.join(PROMPTS)}"
            raise Wrong(f"{shown(word)!r} is not one of its values", mend)
    if "none" in words and len(words) > 1:
        raise Wrong("has none beside others", "write none alone, or leave it out")
    return " ".join(words)


def authorize_params(text: str) -> tuple[tuple[str, str], ...]:
    """Further parameters of the authorization request, as a query string."""
    mend = "write NAME=VALUE, with & between several, e.g. domain_hint=example.com&hd=example.com"
    query = plain(text).removeprefix("?")
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise Wrong("is not a query string", mend) from None
    names = [name for name, _ in pairs]
    for name in names:
        if name in OWN_PARAMETERS:
            raise Wrong(f"holds {name}, which emailproxy sets itself", f"remove {name}")
        if name in PARAMETERS_WITH_KEYS:
            raise Wrong(f"holds {name}, which has a key of its own", f"write {name} = VALUE on a line of its own")
        if not name or names.count(name) > 1:  # RFC 6749 section 3.1: parameters must not be included twice
            raise Wrong("has a parameter without a name, or one that is there twice", mend)
    return tuple(pairs)


def mail_address(text: str) -> str:
    """user@domain."""
    if not MAIL_ADDRESS.match(text) or not is_a_name(text):
        raise Wrong(f"{shown(text)!r} is no mail address", "write e.g. name@project.iam.gserviceaccount.com")
    return text


def person(text: str) -> str:
    """A user name at the provider."""
    if not is_a_name(text):
        raise Wrong(f"is not one line of at most {MAX_NAME} octets", "write a user name, e.g. anna@example.com")
    return text


def aliases(text: str) -> tuple[str, ...]:
    """Further user names of an account, with commas or line breaks between them."""
    mend = "write user names with commas between them, or one on each line, e.g. anna, CONTOSO\\anna"
    names = [name for part in text.split("\n") for name in (word.strip() for word in part.split(",")) if name]
    for name in names:
        if not is_a_name(name) or name.startswith("@"):
            raise Wrong(f"{shown(name)!r} is no user name", mend)
    if not names:
        raise Wrong("names nobody", mend)
    return tuple({name.casefold(): name for name in names}.values())
