"""What another proxy keeps of accounts, in their sections or in a file of its own (`--cache-store`): never written.

Nothing that is wrong with it is a fault: whoever it is useless for signs in anew.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emailproxy.config.catchall import chain
from emailproxy.config.keys import CACHED
from emailproxy.config.model import Cached
from emailproxy.config.scan import Entry, Report, Section

MAX_SALT_OCTETS = 64  # they are 16
MAX_ITERATIONS = 10_000_000  # 4 s; a forged count must not take the machine down
FERNET_VERSION = b"\x80"
FERNET_OVERHEAD = 1 + 8 + 16 + 32  # octets: version, time stamp, initialisation vector, HMAC
AES_BLOCK = 16  # octets
WHOLE_SECONDS = re.compile(r"[0-9]{1,12}\Z")

TOKENS = ("access_token", "refresh_token")
CLIENT_SECRET = "client_secret_encrypted"  # noqa: S105 - a name, not a secret
EVERYBODYS = ("token_salt", "token_iterations", CLIENT_SECRET)
"""What accounts inherit from their catch-alls; tokens are one account's alone."""


def is_fernet(text: str) -> bool:
    """Whether a text has the shape of a Fernet token (https://github.com/fernet/spec)."""
    try:
        data = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        return False
    octets = len(data) - FERNET_OVERHEAD
    return data[:1] == FERNET_VERSION and octets >= AES_BLOCK and octets % AES_BLOCK == 0


def _salt(text: str) -> bytes | None:
    """Standard base64; what is no letter of it counts for nothing, for that proxy reads it so."""
    try:
        salt = base64.b64decode(text.encode())
    except (binascii.Error, UnicodeError):
        return None
    return salt if 0 < len(salt) <= MAX_SALT_OCTETS else None


def _iterations(text: str) -> int | None:
    count = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
    return count if 0 < count <= MAX_ITERATIONS else None


def _expiry(text: str) -> int | None:
    return int(text) if WHOLE_SECONDS.match(text) else None


def _token(text: str) -> str | None:
    return text if is_fernet(text) else None


READERS: Mapping[str, Callable[[str], Any]] = {
    "token_salt": _salt,
    "token_iterations": _iterations,
    "access_token_expiry": _expiry,
    **dict.fromkeys((*TOKENS, CLIENT_SECRET), _token),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """One value, and where it is from."""

    value: Any
    entry: Entry
    report: Report


class CachedReader:
    """Collects the cached values of one configuration, and of the file beside it."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Kept]] = {}

    def add(self, sections: Mapping[str, Section], report: Report) -> None:
        """What a file's account sections hold, by case-folded name; it goes before what was added earlier."""
        for name, section in sections.items():
            mine = self._kept.setdefault(name, {})
            for key, entry in section.entries.items():
                value = READERS[key](entry.value) if key in READERS and entry.value else None
                if value is not None:
                    mine[key] = Kept(value, entry, report)
                elif key in READERS and entry.value:
                    mend = "remove the line; the next login has its owner sign in anew, if need be"
                    report.notice(entry, "is damaged and is not used", mend)

    def cached(self, *, catch_all: bool) -> dict[str, Cached]:
        """The values of every account that has any, and of every catch-all that has a client secret for all."""
        found = {name: self._cached(name, catch_all=catch_all) for name in self._kept}
        return {name: cached for name, cached in found.items() if cached}

    def _cached(self, name: str, *, catch_all: bool) -> Cached | None:
        own = self._kept[name]
        wider = [self._kept[part] for part in chain(self._kept, name, catch_all=catch_all)]
        inherited = {key: next((values[key] for values in wider if key in values), None) for key in EVERYBODYS}
        salt, iterations, secret = inherited.values()
        tokens = [own[key] for key in TOKENS if key in own and not name.startswith("@")]
        if not tokens and secret is None:
            return None
        if salt is None:
            self._tell_of_no_salt([*tokens, *([own[CLIENT_SECRET]] if CLIENT_SECRET in own else [])])
            return None
        values = {kept.entry.key: kept.value for kept in tokens}
        if "access_token" in values and "access_token_expiry" in own:
            values["access_token_expiry_s"] = own["access_token_expiry"].value
        if secret and self._is_under(secret, salt):
            values["client_secret"] = secret.value
        return (
            Cached(salt=salt.value, iterations=iterations.value if iterations else None, **values) if values else None
        )

    def _is_under(self, secret: Kept, salt: Kept) -> bool:
        """Whether a client secret was encrypted with this salt: that of its own section, if it has one."""
        home = self._kept[secret.entry.section.casefold()].get("token_salt")
        return home is None or home.value == salt.value

    @staticmethod
    def _tell_of_no_salt(useless: list[Kept]) -> None:
        for kept in useless[:1]:
            mend = "add the token_salt that belongs to it, or remove it"
            kept.report.notice(kept.entry, "cannot be opened without token_salt, which is missing", mend)


def holds_any(sections: Mapping[str, Section]) -> bool:
    """Whether a file is evidently another proxy's: it keeps its values there."""
    return any(not CACHED.isdisjoint(section.entries) for section in sections.values())
