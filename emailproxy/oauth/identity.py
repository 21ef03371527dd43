"""Who signed in, as the provider's tokens say, and whether that is the account's owner."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from emailproxy.config.model import ANYBODY, Account
from emailproxy.errors import ConsentRequired, one_line
from emailproxy.names import is_a_name

NAMES = ("email", "preferred_username", "upn", "unique_name")
"""Claims that hold a mail address or a user name: OpenID Connect Core section 5.1, and Microsoft's own two."""

# Microsoft's unique_name of who has an account elsewhere: live.com#ada@outlook.com
IDENTITY_PROVIDER = re.compile(r"[^#@]+#(?=[^#@]+@[^#@]+\Z)")
# Microsoft's user name of a guest from another tenant: ada_outlook.com#EXT#@contoso.onmicrosoft.com
GUEST = "#ext#@"
GMAIL = ("gmail.com", "googlemail.com")
"""One mail service: Google sees neither dots in the part before the @, nor what follows a plus sign."""


def identities_of(*tokens: str | None) -> tuple[str, ...]:
    """The names in the claims of whichever of these tokens is a JWT, each once.

    Signatures are not checked: the tokens come from the token endpoint itself, over verified TLS, which OpenID Connect
    Core section 3.1.3.7 takes in their place.
    """
    return tuple(dict.fromkeys(name for token in tokens if token for name in names_in(claims_of(token))))


def claims_of(token: str) -> Mapping[str, Any]:
    """The claims of a JWT (RFC 7519 section 3); none where it is no JWT, or cannot be read."""
    parts = token.split(".")
    if len(parts) != 3:  # RFC 7515 section 7.1: header, payload, signature
        return {}
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) and isinstance(header, dict) and "alg" in header else {}


def names_in(claims: Mapping[str, Any]) -> Iterable[str]:
    for claim in NAMES:
        name = claims.get(claim)
        if isinstance(name, str) and "@" in name and is_a_name(name):
            yield IDENTITY_PROVIDER.sub("", name)


def expected(account: Account) -> str:
    """Whose sign-in serves this account."""
    owner = account.token_owner
    return account.name if not owner or owner == ANYBODY else owner


def must_sign_in(account: Account) -> str:
    """Who is to sign in, as the beginning of a sentence: the account itself, or whose sign-in serves it."""
    owner = expected(account)
    return f"{owner} must be signed in" if owner.casefold() == account.name.casefold() else f"{owner} must sign in"


def is_owner(account: Account, identities: Iterable[str]) -> bool:
    """Whether one of the identities is whose sign-in serves this account; True where that cannot be told.

    A guest is not the owner, whatever address the guest's account tells: its tokens are for the host's tenant, and the
    mailbox is in another one.
    """
    names = {mailbox(name) for name in identities}
    owner = mailbox(expected(account))
    if account.token_owner == ANYBODY or not names or "@" not in owner:
        return True
    return owner in names and (GUEST in owner or not any(GUEST in name for name in names))


def guest_in(identities: Iterable[str]) -> str | None:
    """The user name among these by which somebody is a guest in a Microsoft tenant."""
    return next((name for name in identities if GUEST in name.casefold()), None)


def somebody_else(account: Account, identities: tuple[str, ...]) -> ConsentRequired:
    """Tokens of another mailbox would be refused by the mail server, or open the wrong one."""
    who, owner, name = one_line(guest_in(identities) or identities[0]), expected(account), account.name
    whose = name if owner == name else f"{name}, for which {owner} signs in"
    told = f"{who} signed in, but this is the sign-in of {whose}; nothing was stored. "
    if guest_in(identities):
        return ConsentRequired(
            f"{told}That is a guest's name, and guests have no mailbox: set tenant (or the tenant in token_url and "
            "permission_url) to the mailbox's own, or to consumers for a personal account, then sign in again"
        )
    return ConsentRequired(
        f"{told}Sign in as {owner} (a private browser window helps), or set token_owner = {who} in [{name}] if that "
        f"person's sign-in shall serve it ({ANYBODY} for anybody's)"
    )


def mailbox(name: str) -> str:
    """The same for all spellings of one mailbox that are known to be one."""
    user, at, domain = name.casefold().rpartition("@")
    if at and domain in GMAIL:
        return f"{user.partition('+')[0].replace('.', '')}@{GMAIL[0]}"
    return name.casefold()
