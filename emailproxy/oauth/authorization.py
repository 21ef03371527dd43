"""The authorization request: where a person's browser is sent, and the short link that leads there."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from urllib.parse import urlencode, urlsplit, urlunsplit

from emailproxy.config.model import ANYBODY, Account, ProviderName
from emailproxy.errors import AccountUnusable
from emailproxy.secret import Secret

MICROSOFT_SCOPES = ("openid", "profile", "offline_access")
"""msal asks for these when it redeems the code: what is redeemed must have been consented to."""
GOOGLE_HOST = "accounts.google.com"
CONSENT = "consent"
"""The `prompt` with which Google gives a refresh token every time; else it does so at the first consent only."""


def authorization_url(account: Account, name: str, state: Secret, verifier: Secret) -> str:
    """The provider's page for this account (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""
    from oauthlib.oauth2 import WebApplicationClient

    if account.permission_url is None:
        raise AccountUnusable(f"account {account.name} has no permission_url; add it to [{account.section}]")
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.reveal().encode("ascii")).digest()).rstrip(b"=")
    scheme, rest = account.permission_url.split(":", 1)
    given = {parameter for parameter, _ in account.authorize_params}
    usual = {"access_type": "offline", "login_hint": login_hint(account, name), "prompt": prompt(account)}
    # oauthlib takes https only; that plain http is for loopback hosts, the configuration has made sure of.
    url: str = WebApplicationClient(account.client_id).prepare_request_uri(
        f"https:{rest}",
        redirect_uri=account.redirect_uri,
        scope=scope_of(account),
        state=state.reveal(),
        code_challenge=challenge.decode("ascii"),
        code_challenge_method="S256",
        # RFC 6749 section 3.1: no parameter more than once; what the account says itself counts
        **{parameter: value for parameter, value in usual.items() if parameter not in given},
    )
    further = f"&{urlencode(account.authorize_params)}" if account.authorize_params else ""
    return scheme + url.removeprefix("https") + further


def prompt(account: Account) -> str | None:
    """What the provider should ask the person, whatever it remembers (OpenID Connect Core section 3.1.2.1)."""
    if account.prompt is not None or account.permission_url is None:
        return account.prompt
    return CONSENT if urlsplit(account.permission_url).hostname == GOOGLE_HOST else None


def login_hint(account: Account, name: str) -> str | None:
    """Whom the provider should offer to sign in (OpenID Connect Core section 3.1.2.1)."""
    if account.login_hint is not None:
        return account.login_hint or None
    owner = account.token_owner
    whom = name if not owner or owner == ANYBODY else owner
    return whom if "@" in whom else None


def scope_of(account: Account) -> str:
    if account.provider is not ProviderName.MICROSOFT:
        return account.scope
    asked = account.scope.split()
    return " ".join([*asked, *(scope for scope in MICROSOFT_SCOPES if scope not in asked)])


def short_link(redirect_uri: str, state: Secret) -> str:
    """``http://HOST/PATH/c/STATE``: short enough for an error reply of 512 octets."""
    uri = urlsplit(redirect_uri)
    path = f"{uri.path.rstrip('/')}/c/{state.reveal()}"
    return urlunsplit((uri.scheme, uri.netloc, path, "", ""))
