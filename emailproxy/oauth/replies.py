"""What a token endpoint answered: tokens, a refusal, or nothing that can be used (RFC 6749 section 5).

oauthlib parses; everything is validated after it, because a reply that is merely odd must never cost an account
its tokens: whatever is not a clear grant or a clear refusal is a temporary failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from oauthlib.oauth2 import OAuth2Error, WebApplicationClient

from emailproxy.config.model import HOURS, KIB
from emailproxy.errors import LoginRefused, ProviderRefused, ProviderUnavailable, one_line
from emailproxy.oauth.flow import TokenSet
from emailproxy.secret import Secret

MAX_TOKEN = 16 * KIB  # octets: the longest seen are JWTs of 4 KiB; longer ones overrun mail servers' lines
MAX_LIFE_S = 10 * 366 * 24 * HOURS  # ten years: above it the figure is a mistake
MAX_RETRY_AFTER_S = 1 * HOURS  # a provider's slip must not lock an account out for days
MAX_SCOPE = 4 * KIB  # characters

# RFC 6749 appendix A.12: access-token = 1*VSCHAR; without the space, which ends the token in a SASL message
ACCESS_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{MAX_TOKEN}}}")
# RFC 6749 appendix A.17: refresh-token = 1*VSCHAR
REFRESH_TOKEN = re.compile(rf"[\x20-\x7e]{{1,{MAX_TOKEN}}}")
# RFC 6749 appendix A.7: error = 1*NQSCHAR
ERROR_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")

BUSY = frozenset({408, 425, 429})
"""Not a 5xx, and still "try later": Request Timeout, Too Early (RFC 8470), Too Many Requests (RFC 6585)."""
BUSY_CODES = frozenset({"temporarily_unavailable", "server_error"})
"""RFC 6749 section 4.1.2.1: the provider's own trouble, not a refusal."""


class Unreadable(ProviderUnavailable):
    """An answer that makes no sense; asking again at once would not mend it, and might use a refresh token twice."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply of a token endpoint, whole; `body` is None where it is longer than we read."""

    host: str
    status: int
    retry_after: str | None
    body: bytes | None = field(repr=False)
    date: str | None = None


def tokens_of(reply: Reply, *, now_s: int, sent: Collection[Secret] = ()) -> TokenSet:
    """The tokens that a reply grants.

    Args:
        now_s: when the request was sent; lifetimes count from there.
        sent: the secrets of the request; a provider that repeats one in its error text is not quoted with it.

    Raises:
        ProviderRefused: a definite refusal, with its OAuth 2.0 error code.
        ProviderUnavailable: the provider asks us to come back, or its answer makes no sense.
    """
    if reply.status in BUSY or reply.status >= 500:
        raise ProviderUnavailable(
            f"the provider at {reply.host} is busy or down (HTTP {reply.status}); try again later",
            retry_after_s=retry_after_s(reply.retry_after, now_s),
        )
    if reply.body is None or not reply.body.lstrip().startswith(b"{"):
        raise nonsense(reply, "an answer that is not an OAuth 2.0 reply")
    client = WebApplicationClient("")
    try:
        granted = client.parse_request_body_response(reply.body.decode("utf-8"))
    except OAuth2Error as error:
        raise refusal(reply, error, sent) from None
    except Exception:  # hostile bodies raise ValueError, TypeError, OverflowError, RecursionError and more
        raise nonsense(reply, "an answer that cannot be read") from None
    if reply.status != 200:
        raise nonsense(reply, "neither tokens nor an OAuth 2.0 error")
    return validated(reply, dict(granted), now_s)


def validated(reply: Reply, granted: dict[str, object], now_s: int) -> TokenSet:
    """RFC 6749 section 5.1, strictly: oauthlib lets negative lifetimes, numbers for tokens and CRLF pass."""
    access, refresh = granted.get("access_token"), granted.get("refresh_token")
    if not (isinstance(access, str) and ACCESS_TOKEN.fullmatch(access)):
        raise nonsense(reply, "an access token that is not visible ASCII")
    if refresh in (None, ""):
        refresh = None
    elif not (isinstance(refresh, str) and REFRESH_TOKEN.fullmatch(refresh)):
        raise nonsense(reply, "a refresh token that is not ASCII")
    kind = granted.get("token_type")
    if kind is not None and not (isinstance(kind, str) and kind.casefold() == "bearer"):
        raise nonsense(reply, "a token that is not a bearer token")
    life_s = granted.get("expires_in")
    if life_s is not None and (isinstance(life_s, bool) or not isinstance(life_s, int)):
        raise nonsense(reply, "an expires_in that is no number")
    if life_s is not None and not 0 < life_s <= MAX_LIFE_S:
        raise nonsense(reply, "an expires_in out of bounds")
    return TokenSet(
        access_token=Secret(access),
        expires_at_s=None if life_s is None else now_s + life_s,
        refresh_token=None if refresh is None else Secret(refresh),
        scope=scope_of(granted.get("scope")),
    )


def scope_of(granted: object) -> str:
    words = granted if isinstance(granted, list) else [granted]
    return one_line(" ".join(word for word in words if isinstance(word, str)), MAX_SCOPE)


def refusal(reply: Reply, error: OAuth2Error, sent: Collection[Secret]) -> LoginRefused:
    """RFC 6749 section 5.2, by the body whatever the status: some providers send errors with HTTP 200."""
    code = error.error if isinstance(error.error, str) else ""
    if not ERROR_CODE.fullmatch(code) or code == "missing_token":  # oauthlib's own word for "no access_token"
        return nonsense(reply, "neither tokens nor an OAuth 2.0 error")
    said = error.description if isinstance(error.description, str) else ""
    said = one_line(without(sent, said))
    if code in BUSY_CODES:
        return ProviderUnavailable(f"the provider at {reply.host} is busy ({code}); try again later")
    return ProviderRefused(f"the provider at {reply.host} refused ({code})" + (f": {said}" if said else ""), code=code)


def nonsense(reply: Reply, what: str) -> Unreadable:
    """The reply of a captive portal, a maintenance page, or a wrong `token_url`."""
    hint = "; check token_url" if 300 <= reply.status < 500 else ""
    return Unreadable(
        f"the provider at {reply.host} sent {what} (HTTP {reply.status}); tokens are kept, try again later{hint}"
    )


def without(sent: Collection[Secret], text: str) -> str:
    """A provider's text with the secrets that we sent blotted out."""
    for secret in sent:
        if len(secret.reveal()) >= 4:  # shorter ones would blot out ordinary words
            text = text.replace(secret.reveal(), "***")
    return text


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds that `Retry-After` asks for, bounded (RFC 9110 section 10.2.3: HTTP-date / delay-seconds)."""
    if header is None:
        return None
    try:
        wait_s = float(header) if header.strip().isdecimal() else date_s(header) - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(wait_s, MAX_RETRY_AFTER_S) if math.isfinite(wait_s) and wait_s > 0 else None


def date_s(header: str) -> float:
    moment = parsedate_to_datetime(header)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
