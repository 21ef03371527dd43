"""The few pages that a person's browser sees: small, readable, escaped, and with nothing to load or to send."""

from __future__ import annotations

import base64
import hashlib
import html
from dataclasses import dataclass, field
from http import HTTPStatus

from emailproxy.oauth.answer import Declined

STYLE = "body{font:1.1em/1.5 sans-serif;max-width:36em;margin:4em auto;padding:0 1em;overflow-wrap:anywhere}"
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (  # this very style, and nothing else
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds a code
    "X-Content-Type-Options": "nosniff",
}

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head><body><h1>{title}</h1>
{paragraphs}</body></html>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A reply to a browser."""

    status: HTTPStatus
    text: str
    headers: dict[str, str] = field(default_factory=lambda: dict(HEADERS))


def page(status: HTTPStatus, title: str, *paragraphs: str, headers: dict[str, str] | None = None) -> Page:
    """A page of plain texts; everything is escaped here."""
    text = TEMPLATE.format(
        style=STYLE,
        title=html.escape(title),
        paragraphs="".join(f"<p>{html.escape(one)}</p>\n" for one in paragraphs),
    )
    return Page(status, text, {**HEADERS, **(headers or {})})


def succeeded(account: str) -> Page:
    return page(
        HTTPStatus.OK,
        "Signed in",
        f"Email OAuth 2.0 authentication succeeded for {account}",
        "You can close this window.",
    )


def redirect(url: str) -> Page:
    return page(HTTPStatus.FOUND, "Sign in", "Your browser is taken to the provider.", headers={"Location": url})


def stale() -> Page:
    return page(
        HTTPStatus.BAD_REQUEST,
        "This sign-in link is not valid",
        "It was used already, is older than a day, or was replaced by a newer one. Nothing was changed.",
        "Let the mail program log in again: the log of emailproxy then shows a new link, if one is needed.",
    )


def bad_request(what: str) -> Page:
    return page(HTTPStatus.BAD_REQUEST, "This is not a sign-in", what, "Nothing was changed.")


def declined(answer: Declined) -> Page:
    """The provider's `error=` answer: what it means and what to do, where that is known, then the provider's words."""
    advice = answer.advice
    known = () if advice is None else (sentence(advice.meaning), sentence(advice.action))
    return page(
        HTTPStatus.BAD_REQUEST,
        "The provider did not sign you in",
        *known,
        f"It says: {answer.words}",
        "Nothing was changed. You can open the same sign-in link and try again.",
    )


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def failed(status: HTTPStatus, why: str) -> Page:
    return page(
        status,
        "The sign-in was not completed",
        why,
        "What was stored before is unchanged. Let the mail program log in again for a new link.",
    )


def not_found() -> Page:
    return page(HTTPStatus.NOT_FOUND, "Nothing here", "Only sign-in links of emailproxy lead here.")


def misdirected() -> Page:
    return page(
        HTTPStatus.MISDIRECTED_REQUEST,
        "Not this host",
        "The Host of this request is none of redirect_uri or redirect_listen_address. "
        "A reverse proxy must pass on the Host it was asked for.",
    )


def forbidden() -> Page:
    return page(HTTPStatus.FORBIDDEN, "Not from there", "Other sites may not send requests here.")


def not_allowed() -> Page:
    return page(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Only GET",
        "A sign-in ends with a GET request. If the provider posts its answer, remove response_mode.",
        headers={"Allow": "GET, HEAD"},
    )


def broken() -> Page:
    return page(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong", "The log of emailproxy says more.")


def unreadable() -> Page:
    return page(HTTPStatus.BAD_REQUEST, "This request cannot be read", "It is not HTTP/1.1, or too long.")
