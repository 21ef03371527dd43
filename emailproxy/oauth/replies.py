"""What a token endpoint answered: tokens, a refusal, or nothing that can be used (RFC 6749 section 5).

oauthlib parses; everything is validated after it, because a reply that is merely odd must never cost an account
its tokens: whatever is not a clear grant or a clear refusal is a temporary failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from urllib.parse import quote, quote_plus

from emailproxy.config.model import HOURS, KIB
from emailproxy.errors import (
    AuthorizationPending,
    LoginRefused,
    ProviderRefused,
    ProviderUnavailable,
    one_line,
)
from emailproxy.oauth.advice import NOT_THE_PROVIDER, advise
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.identity import identities_of
from emailproxy.oauth.unreachable import busy
from emailproxy.secret import Secret

MAX_BODY = 64 * KIB  # octets: a reply holds three tokens at most
MAX_TOKEN = 16 * KIB  # octets: the longest seen are JWTs of 4 KiB; longer ones overrun mail servers' lines
MAX_LIFE_S = 10 * 366 * 24 * HOURS  # ten years: above it the figure is a mistake
MAX_RETRY_AFTER_S = 1 * HOURS  # a provider's slip must not lock an account out for days
MAX_SCOPE = 4 * KIB  # characters
MAX_ADVISED = 4 * KIB  # characters of a provider's words that are compared with what is known

# RFC 6749 appendix A.12: access-token = 1*VSCHAR; without the space, which ends the token in a SASL message
ACCESS_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{MAX_TOKEN}}}")
# RFC 6749 appendix A.17: refresh-token = 1*VSCHAR
REFRESH_TOKEN = re.compile(rf"[\x20-\x7e]{{1,{MAX_TOKEN}}}")
# RFC 6749 appendix A.7: error = 1*NQSCHAR
ERROR_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")
DIGITS = re.compile(r"[0-9]{1,12}")

BUSY = frozenset({408, 425, 429})
"""Not a 5xx, and still "try later": Request Timeout, Too Early (RFC 8470), Too Many Requests (RFC 6585)."""
BUSY_CODES = frozenset({"temporarily_unavailable", "server_error"})
"""RFC 6749 section 4.1.2.1: the provider's own trouble, not a refusal."""
PENDING = frozenset({"authorization_pending", "slow_down"})
"""RFC 8628 section 3.5."""


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
    from oauthlib.oauth2 import MissingTokenError, OAuth2Error, WebApplicationClient

    body = object_in(reply, now_s)
    try:
        granted = WebApplicationClient("").parse_request_body_response(body.decode("utf-8"))
    except MissingTokenError:
        raise nonsense(reply, "neither tokens nor an OAuth 2.0 error") from None
    except OAuth2Error as error:
        raise refusal(reply, error.error, error.description, sent) from None
    except Exception:  # hostile bodies raise ValueError, TypeError, OverflowError, RecursionError and more
        raise nonsense(reply, "an answer that cannot be read") from None
    if reply.status != 200:
        raise nonsense(reply, "neither tokens nor an OAuth 2.0 error")
    return validated(dict(granted), now_s=now_s, complain=partial(nonsense, reply))


def object_in(reply: Reply, now_s: int) -> bytes:
    """What looks like a JSON object, and is of a provider that is not busy.

    Raises:
        ProviderUnavailable: it asks us to come back, or answers with something else.
    """
    if reply.status in BUSY or reply.status >= 500:
        raise busy(reply.host, reply.status, retry_after_s(reply.retry_after, now_s))
    if 300 <= reply.status < 400 or (reply.body or b"").lstrip().startswith(b"<"):
        what = "a redirect" if 300 <= reply.status < 400 else "a web page"
        raise Unreadable(f"{NOT_THE_PROVIDER} (the provider at {reply.host} sent {what}, HTTP {reply.status})")
    if reply.body is None:
        raise nonsense(reply, f"more than {MAX_BODY // KIB} KiB")
    if not reply.body.lstrip().startswith(b"{"):
        raise nonsense(reply, "an answer that is not an OAuth 2.0 reply")
    return reply.body


def validated(granted: Mapping[str, object], *, now_s: int, complain: Callable[[str], LoginRefused]) -> TokenSet:
    """RFC 6749 section 5.1, strictly: libraries let negative lifetimes, numbers for tokens and CRLF pass.

    Args:
        granted: the members of the reply, as JSON has them.
        now_s: when it was asked for, in seconds since the epoch.
        complain: makes the error from what is wrong ("an expires_in that is no number").
    """
    access, refresh = granted.get("access_token"), granted.get("refresh_token")
    if not (isinstance(access, str) and ACCESS_TOKEN.fullmatch(access)):
        raise complain("an access token that is not visible ASCII")
    if refresh in (None, ""):
        refresh = None
    elif not (isinstance(refresh, str) and REFRESH_TOKEN.fullmatch(refresh)):
        raise complain("a refresh token that is not ASCII")
    kind = granted.get("token_type")
    if kind is not None and not (isinstance(kind, str) and kind.casefold() == "bearer"):
        raise complain("a token that is not a bearer token")
    life_s = seconds_of(granted.get("expires_in"), complain)
    id_token = granted.get("id_token")
    return TokenSet(
        access_token=Secret(access),
        expires_at_s=None if life_s is None else now_s + life_s,
        refresh_token=None if refresh is None else Secret(refresh),
        scope=scope_of(granted.get("scope")),
        identities=identities_of(id_token if isinstance(id_token, str) else None, access),
    )


def seconds_of(life: object, complain: Callable[[str], LoginRefused], what: str = "an expires_in") -> int | None:
    """A time in seconds, as a number or as digits; None where the provider does not say."""
    if life is None:
        return None
    if isinstance(life, str) and DIGITS.fullmatch(life):
        life = int(life)
    if isinstance(life, bool) or not isinstance(life, int | float):
        raise complain(f"{what} that is no number")
    if not 0 < life <= MAX_LIFE_S:  # False for NaN, too
        raise complain(f"{what} out of bounds")
    return int(life)


def scope_of(granted: object) -> str:
    words = granted if isinstance(granted, list) else [granted]
    return one_line(" ".join(word for word in words if isinstance(word, str)), MAX_SCOPE)


def refusal(reply: Reply, code: object, said: object, sent: Collection[Secret]) -> LoginRefused:
    """RFC 6749 section 5.2, by the body whatever the status: some providers send errors with HTTP 200."""
    if not (isinstance(code, str) and ERROR_CODE.fullmatch(code)):
        return nonsense(reply, "neither tokens nor an OAuth 2.0 error")
    return refused(reply.host, code, said if isinstance(said, str) else "", sent)


def refused(host: str, code: str, said: str, sent: Collection[Secret]) -> LoginRefused:
    """What an OAuth 2.0 error code and its description mean, the advice first and the provider's own words after.

    Args:
        sent: the secrets of the request; a provider that repeats one is not quoted with it.

    Returns:
        AuthorizationPending: a device authorization waits for its person (RFC 8628 section 3.5).
        ProviderUnavailable: the provider's own trouble, which passes.
        ProviderRefused: anything else, with the code.
    """
    code = without(sent, code)
    if code in PENDING:
        return AuthorizationPending("nobody has signed in with the code yet", slow_down=code == "slow_down")
    said = one_line(without(sent, said), MAX_ADVISED)
    words = one_line(f"{code}: {said}" if said else code)
    advice = advise(f"{code}: {said}" if said else code)
    if code in BUSY_CODES:
        return ProviderUnavailable(f"the provider at {host} is busy; try again later ({words})")
    if advice is None:
        text = f"the provider at {host} refused ({code})" + (f": {one_line(said)}" if said else "")
    else:
        text = f"{advice} (the provider at {host} says: {words})"
    if advice is not None and advice.temporary:
        return ProviderUnavailable(text)
    return ProviderRefused(text, code=code, words=words)


def nonsense(reply: Reply, what: str) -> Unreadable:
    """The reply of a captive portal, a maintenance page, or a wrong `token_url`."""
    hint = "; check token_url" if 300 <= reply.status < 500 else ""
    return Unreadable(
        f"the provider at {reply.host} sent {what} (HTTP {reply.status}); tokens are kept, try again later{hint}"
    )


def without(sent: Collection[Secret], text: str) -> str:
    """A provider's text with the secrets that we sent blotted out, as they are and as the form had them."""
    for secret in sent:
        value = secret.reveal()
        if len(value) >= 4:  # shorter ones would blot out ordinary words
            for written in (value, quote_plus(value), quote(value, safe="")):
                text = text.replace(written, "***")
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
    from email.utils import parsedate_to_datetime

    moment = parsedate_to_datetime(header)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
