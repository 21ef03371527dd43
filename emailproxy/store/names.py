"""Account names as file names that every operating system takes, and back."""

from __future__ import annotations

import hashlib
from urllib.parse import quote, unquote

MAX_STEM = 200  # octets; file systems take 255, and a suffix and a prefix must fit too
HASHED = "sha256="  # no percent-encoded name holds a `=`
# Windows takes these, with whatever suffix, for devices.
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{device}{digit}" for device in ("com", "lpt") for digit in range(10))}
)


def stem_of(account: str) -> str:
    """The account's file name, without suffix: percent-encoded, or hashed where that is too long.

    Names that differ only in case are the same account.
    """
    octets = account.casefold().encode("utf-8", "surrogatepass")
    stem = quote(octets, safe="@+")
    if stem.startswith(".") or stem.partition(".")[0] in DEVICES:
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    if not stem or len(stem) > MAX_STEM:
        return HASHED + hashlib.sha256(octets).hexdigest()
    return stem


def account_of(stem: str) -> str | None:
    """The account that `stem_of` gives this name; None where it is hashed, or of another making."""
    try:
        account = unquote(stem, errors="surrogatepass")
    except UnicodeDecodeError:
        return None
    return account if stem_of(account) == stem else None
