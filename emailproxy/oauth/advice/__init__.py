"""What providers' and mail servers' errors mean, and what to do about them: a table, and the way to look things up."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import urlsplit

from emailproxy.config.model import Account, ProviderName
from emailproxy.oauth.advice.row import Row
from emailproxy.wire.events import Advice
from emailproxy.wire.sasl import failure_text

MAX_TEXT = 8_192  # characters of an error that are looked at: errors are shorter, and hostile ones cost no more
MAX_CHALLENGES = 4  # base64 pieces in one text that are read

# RFC 7628 section 3.2.2: a JSON object in base64; ``eyJ`` is how ``{"`` begins
BASE64_JSON = re.compile(r"\beyJ[A-Za-z0-9+/]{8,4096}={0,2}")

PROVIDER_DOWN = Advice(
    "the provider is down or busy",
    "wait a few minutes; tokens are kept, and one that still lives is used",
    temporary=True,
)
"""For 5xx replies, and where nobody answers."""
NOT_THE_PROVIDER = Advice(
    "a web page came in place of the provider's answer: it is down, or a network's sign-in page or proxy is in between",
    "open any page in a browser to sign in to the network, or wait; tokens are kept, check token_url if it stays so",
    temporary=True,
)
"""For HTML, redirects and whatever else is no OAuth 2.0 reply."""


@cache
def table() -> tuple[Row, ...]:
    """The first row that matches counts: what a provider calls its own before what RFCs call it.

    Made at the first error: a hundred patterns are a tenth of the time that a server takes to start.
    """
    from emailproxy.oauth.advice import mail, microsoft, providers

    return (*microsoft.TABLE, *mail.TABLE, *providers.TABLE)


def advise(text: str) -> Advice | None:
    """What is known about an error, from its original text; None where nothing is."""
    text = readable(text[:MAX_TEXT])
    return next((advice for row in table() if (advice := row.advice(text)) is not None), None)


def without_action(text: str) -> str:
    """An error's text without what to do about it, where that is said otherwise."""
    advice = advise(text)
    return text if advice is None else text.replace(f"; {advice.action}", "", 1)


def readable(text: str) -> str:
    """The text in one line, with what a server's failure challenge says in words behind it."""
    told = (failure_text(found[0].encode()) for found in list(BASE64_JSON.finditer(text))[:MAX_CHALLENGES])
    return " ".join((" ".join(text.split()), *told))


def no_refresh_token(account: Account) -> Advice:
    """Why a provider gave none, and how to get one: without it the owner must sign in at each access token's end."""
    host = (urlsplit(account.token_url).hostname or "").casefold()
    meaning = f"the provider gave no refresh token for {account.name}"
    if account.provider is ProviderName.MICROSOFT:
        return Advice(meaning, "add offline_access to oauth2_scope, then sign in again")
    if host.endswith(("google.com", "googleapis.com")):
        return Advice(
            f"{meaning}: Google gives one with access_type=offline, and after its consent page only",
            "remove prompt, and access_type from authorize_params; or remove the application's access at "
            "https://myaccount.google.com/connections; then sign in again",
        )
    return Advice(meaning, "add offline_access to oauth2_scope, if the provider knows it, then sign in again")
