"""What one value may be: each reader takes a key's text and returns what it means, or says what is wrong."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from emailproxy.config.hosts import canonical_host, host_and_port, is_loopback
from emailproxy.config.model import DAYS, HOURS, HTTP_PORT, MINUTES, SECONDS
from emailproxy.config.scan import shown

MAX_PORT = 65_535
MAX_URL = 4096  # characters; no provider comes near it, and servers refuse longer ones

# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+\Z")
VISIBLE = re.compile(r"[\x21-\x7E]+\Z")

DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?P<unit>[a-z]*)\Z")
UNITS = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1 * SECONDS),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 1 * MINUTES),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1 * HOURS),
    **dict.fromkeys(("d", "day", "days"), 1 * DAYS),
    **dict.fromkeys(("w", "week", "weeks"), 7 * DAYS),
}
EXAMPLES = {"90 s": 90 * SECONDS, "10 min": 10 * MINUTES, "12 h": 12 * HOURS, "20 days": 20 * DAYS}
BOOLEANS = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}

E = TypeVar("E", bound=StrEnum)


class Wrong(ValueError):
    """A value cannot mean what its key needs; says what is wrong and the mend, and never holds a secret."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}; {mend}")
        self.what = what
        self.mend = mend


def boolean(text: str) -> bool:
    try:
        return BOOLEANS[text.casefold()]
    except KeyError:
        raise Wrong(f"{shown(text)!r} is neither True nor False", "write True or False") from None


def whole_number(low: float, high: float) -> Callable[[str], int]:
    """Reads digits, both bounds included."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise Wrong(f"{shown(text)!r} is no number in its bounds", f"write a number from {low:.0f} to {high:.0f}")
        return int(text)

    return read


def duration(low: float, high: float, *, above_low: bool) -> Callable[[str], float]:
    """Reads seconds, or a number with its unit, to seconds; `above_low` says that the lower bound itself is too low."""
    bounds = f"above {low:.0f} and at most {high:.0f}" if above_low else f"from {low:.0f} to {high:.0f}"

    def fits(seconds: float) -> bool:
        return low <= seconds <= high and not (above_low and seconds == low)

    def read(text: str) -> float:
        found = _seconds(text)
        if found is not None and fits(found):
            return found
        what = "no length of time" if found is None else "out of bounds"
        examples = ", ".join(example for example, seconds in EXAMPLES.items() if fits(seconds))
        raise Wrong(f"{shown(text)!r} is {what}", f"write seconds {bounds}, or with a unit, e.g. {examples}")

    return read


def _seconds(text: str) -> float | None:
    match = DURATION.match(text.casefold())
    if match is None or match["unit"] not in UNITS:
        return None
    return float(match["number"]) * UNITS[match["unit"]]


port = whole_number(1, MAX_PORT)


def one_of(kind: type[E]) -> Callable[[str], E]:
    """Reads one of an enumeration's values, whatever its case."""
    known = {str(one): one for one in kind}

    def read(text: str) -> E:
        name = text.casefold()
        if name not in known:
            near = nearest(name, known)
            mend = f"did you mean {near}?" if near else f"write one of: {', '.join(known)}"
            raise Wrong(f"{shown(text)!r} is not one of its values", mend)
        return known[name]

    return read


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one was meant to be, or None where none is near."""
    import difflib  # a file without faults has no use for it

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return near[0] if near else None


def host(text: str) -> str:
    """A host name or an address."""
    found = canonical_host(text)
    if found is None:
        what = f"{shown(text)!r} is not a host name or an address"
        if "://" in text:
            raise Wrong(what, "write the host name alone, without the scheme, e.g. imap.example.com")
        if re.search(r":[0-9]+\Z", text):
            raise Wrong(what, "write the host name alone; the port has a key of its own")
        raise Wrong(what, "write e.g. imap.example.com")
    return found


def ehlo_name(text: str) -> str:
    """A domain or an address literal (RFC 5321 section 4.1.3)."""
    found = canonical_host(text)
    if found is None:
        raise Wrong(f"{shown(text)!r} is not a name to greet with", "write a host name or [ADDRESS]")
    return text if text.startswith("[") else found


def path(base: Path) -> Callable[[str], Path]:
    """A path; a relative one begins at the configuration file's folder."""

    def read(text: str) -> Path:
        try:
            return base / Path(plain(text)).expanduser()
        except RuntimeError:
            raise Wrong("the home folder is not known", "write the whole path") from None

    return read


def is_path(text: str) -> bool:
    """Whether a text can be the path of a file at all."""
    try:
        path(Path())(text)
    except Wrong:
        return False
    return True


def ca_file(base: Path) -> Callable[[str], Path]:
    """A readable file of certificates in PEM."""

    def read(text: str) -> Path:
        found = path(base)(text)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=found)
        except ssl.SSLError:
            mend = "name a file of certificates in PEM"
            raise Wrong(f"{shown(str(found))} holds no certificate in PEM", mend) from None
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "it cannot be opened"
            mend = "name a file that this user can read, or remove the line to use the system's certificates"
            raise Wrong(f"{shown(str(found))} cannot be read: {reason}", mend) from None
        return found

    return read


def endpoint(text: str) -> str:
    """A token or authorization endpoint (RFC 6749 section 3): https, but for loopback hosts."""
    mend = "write https://HOST/PATH, as the provider documents it"
    parts = split_url(text, mend)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Wrong("is http: secrets would cross the network unencrypted", "write https://")
    if parts.scheme not in ("https", "http"):
        raise Wrong("is not an https URL", mend)
    if "#" in text:
        raise Wrong("holds a fragment (#...)", "remove the # and what follows it")
    return text


def redirect_uri(text: str) -> str:
    """What the provider sends browsers back to (RFC 6749 section 3.1.2)."""
    mend = "write e.g. http://localhost:8801/, as it is registered with the provider"
    parts = split_url(text, mend)
    if parts.scheme not in ("https", "http"):
        raise Wrong("is not an http or https URL", mend)
    if "#" in text or "?" in text:
        raise Wrong("holds a query or a fragment", "end it with its path")
    return text


def listen_address(text: str) -> str:
    """Where the redirect listener listens: ``http://host:port/`` or ``host:port``."""
    mend = "write http://127.0.0.1:8801/ or another host and port of this machine"
    parts = split_url(text if "://" in text else f"http://{text}", mend)
    if parts.scheme == "https":
        raise Wrong("is https, which only a reverse proxy in front of it can be", mend)
    if parts.scheme != "http" or "?" in text or "#" in text or parts.port == 0:
        raise Wrong("is not an http address of this machine", mend)
    address = host_and_port(canonical_host(parts.hostname or "") or "", HTTP_PORT if parts.port is None else parts.port)
    return f"http://{address}/"


def scope(text: str) -> str:
    """Scope tokens, one space between them (RFC 6749 section 3.3)."""
    tokens = text.split()
    if not all(SCOPE_TOKEN.match(token) for token in tokens):
        what = "holds a character that no scope has"
        raise Wrong(what, "write the scopes with spaces between them, without quotes or backslashes")
    return " ".join(tokens)


def plain(text: str) -> str:
    """One line of text."""
    if "\n" in text:
        raise Wrong("spans several lines", "write it on one line; unindent the next line if it is a key of its own")
    return text


def split_url(text: str, mend: str) -> SplitResult:
    """A URL's parts: visible ASCII, a host, no user name.

    Raises:
        Wrong: it is no such URL.
    """
    if not VISIBLE.match(text):
        raise Wrong("holds a space, a line break or a character that no URL has", mend)
    if len(text) > MAX_URL:
        raise Wrong(f"is longer than {MAX_URL} characters", mend)
    try:
        parts = urlsplit(text)
        valid_port = parts.port is None or 0 <= parts.port <= MAX_PORT
    except ValueError:
        raise Wrong("is not a URL", mend) from None
    if not parts.scheme or not parts.hostname or canonical_host(parts.hostname) is None or not valid_port:
        raise Wrong("is not a URL with a host", mend)
    if parts.username is not None:
        raise Wrong("holds a user name before the host", "remove what stands before the @")
    return parts
