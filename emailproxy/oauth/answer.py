"""What the provider's answer to an authorization request says, however it reached us: by the browser, or pasted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from emailproxy.config.model import HTTP_PORT, KIB, Account
from emailproxy.errors import EmailProxyError, one_line
from emailproxy.oauth.advice import advise
from emailproxy.secret import Secret
from emailproxy.wire.events import Advice

SINGLE = ("state", "code", "error", "error_description", "iss")  # RFC 6749 section 3.1: never more than once
MAX_PASTED = 16 * KIB  # characters: what the redirect listener takes of a request
MIN_CODE = 8  # characters of one that stands alone: a word typed by mistake would use the sign-in up
PORTS = {"http": HTTP_PORT, "https": 443}

# RFC 6749 appendix A.11: code = 1*VSCHAR; the longest seen have 2 KiB
CODE = re.compile(rf"[\x20-\x7e]{{1,{8 * KIB}}}")
PARAMETER = re.compile(r"(?:^|[?&])(?:state|code|error)=")
ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")  # RFC 3986 section 2.1


class NotAnAnswer(EmailProxyError):
    """It is no answer to the authorization request; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The provider's `error=` answer (RFC 6749 section 4.1.2.1), fit for our lines and pages."""

    error: str
    description: str
    advice: Advice | None

    @property
    def words(self) -> str:
        """The provider's own."""
        return self.error + (f" ({self.description})" if self.description else "")

    def __str__(self) -> str:
        return f"{self.advice} (it says: {self.words})" if self.advice else self.words


Answer = Secret | Declined
"""A code, or none."""


def values_of(query: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The parameters of an answer.

    Raises:
        NotAnAnswer: one of them is there twice.
    """
    for single in SINGLE:
        if sum(given == single for given, _ in query) > 1:
            raise NotAnAnswer(f"It has more than one {single}.")
    return dict(query)


def answer_of(values: Mapping[str, str], url: str) -> Answer:
    """What the provider that was asked at `url` answered; the caller has made sure of the state.

    Raises:
        NotAnAnswer: it is another provider's, or holds no code.
    """
    if "iss" in values and not same_host(values["iss"], url):
        raise NotAnAnswer("It comes from another provider than the one that was asked.")
    if "error" in values:
        error, description = values["error"], values.get("error_description", "")
        return Declined(one_line(error), one_line(description), advise(f"{error}: {description}"))
    if not CODE.fullmatch(values.get("code", "")):
        raise NotAnAnswer("It has no code.")
    return Secret(values["code"])


def pasted(text: str, account: Account, state: Secret, url: str) -> Answer:
    """What a person pasted: the address that the browser was sent to in the end, or just the code in it.

    Raises:
        NotAnAnswer: neither, or it belongs to another sign-in.
    """
    text = text.strip().strip("<>\"'")
    if len(text) > MAX_PASTED:
        raise NotAnAnswer(f"It has more than {MAX_PASTED} characters.")
    query = query_of(text, account)
    if query is None:
        code = unquote(text) if ESCAPED.search(text) else text  # as the address has it
        if " " in code or len(code) < MIN_CODE:
            raise NotAnAnswer("It is neither an address nor a code.")
        return answer_of({"code": code}, url)
    values = values_of(parse_qsl(query, keep_blank_values=True))
    if Secret(values.get("state", "")) != state:
        raise NotAnAnswer("It belongs to another sign-in: its state is not the one that waits. Open the URL above.")
    return answer_of(values, url)


def query_of(text: str, account: Account) -> str | None:
    """The query of an address, or of as much of it as was copied; None where the text is a code alone.

    Raises:
        NotAnAnswer: it is the address of another page.
    """
    if "://" not in text and not PARAMETER.search(text):
        return None
    if "://" not in text and "?" not in text:
        return text
    ours = False
    with suppress(ValueError):
        place = urlsplit(account.redirect_uri)
        address = urlsplit(text if "://" in text else f"{place.scheme}://{text}")  # some browsers hide the scheme
        ours = not address.netloc or place_of(address) == place_of(place)
    if not ours:
        raise NotAnAnswer(
            f"It is the address of another page. Sign in, and paste the one that begins with {account.redirect_uri} "
            "(the browser may say there that it cannot connect)."
        )
    return address.query


def place_of(address: SplitResult) -> tuple[str | None, int | None, str]:
    """Host, port and path: what must be the same, as providers compare redirect URIs."""
    port = PORTS.get(address.scheme) if address.port is None else address.port
    return address.hostname, port, address.path.rstrip("/")


def same_host(issuer: str, url: str) -> bool:
    """RFC 9207 section 2.4, by host: `permission_url` tells no more of the issuer than that."""
    try:
        return urlsplit(issuer).hostname == urlsplit(url).hostname
    except ValueError:
        return False
