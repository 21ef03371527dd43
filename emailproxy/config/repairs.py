"""Slips that people paste, and their repair: each repair is told, so that the file gets mended too."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

RENAMED = {"redirect_list_address": "redirect_listen_address", "starttls": "server_starttls"}
"""Spellings that documents in circulation use, and the keys that they mean."""

SECRET_KEYS = frozenset(
    {
        "client_secret",
        "jwt_key_passphrase",
        "hook_secret",
        "login_as_password",
        "upstream_proxy",
        "client_secret_encrypted",
        "access_token",
        "refresh_token",
        "token_salt",
    }
)
"""Keys whose values are never shown."""

OPAQUE_KEYS = SECRET_KEYS | {
    "client_id",
    "token_command",
    "client_secret_command",
    "jwt_key_passphrase_command",
    "hook_secret_command",
    "login_as_password_command",
    "on_consent_required",
    "on_sign_in_needed",
    "on_token_refreshed",
    "on_login_failed",
}
"""Keys whose values may well contain what looks like a placeholder."""

URL_KEYS = frozenset({"token_url", "permission_url", "redirect_uri", "redirect_listen_address"})

QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»"}
MAX_SHOWN_URL = 200  # characters; longer ones crowd a message out
INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # what web pages put between characters

MARKDOWN_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<target>[^()]*)\)")
URL_TRAIL = re.compile(r"(?:[\\\"'`”’]|%22|%5C)+\Z", re.IGNORECASE)
TRANSPOSED_SMTP = re.compile(r"\bSMPT\.", re.IGNORECASE)

# <Your_Vault_Address> or *** your client id ***, and the names that providers' documents stand in
PLACEHOLDER = re.compile(r"<[^<>]*>|\*{3}.*|(?<![A-Za-z0-9_])(?:TENANT_ID|CLIENT_ID|CLIENT_SECRET)(?![A-Za-z0-9_])")
OPAQUE_PLACEHOLDER = re.compile(r"<[^<>]*>|\*{3}.*|(?:your_)?(?:TENANT_ID|CLIENT_ID|CLIENT_SECRET)", re.IGNORECASE)


Step = Callable[[str], tuple[str, str, str]]
"""Takes a value, and returns it repaired, with what was wrong and the mend."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """A value as it was meant, and what was done to it."""

    value: str
    slips: tuple[tuple[str, str], ...] = ()
    """Pairs of what was wrong, and the mend."""


def repair(key: str, text: str) -> Repaired:
    """Takes away what does not belong to a value of this key."""
    slips: list[tuple[str, str]] = []
    value = text.strip().strip(INVISIBLE).strip()
    if value != text.strip():
        slips.append(("invisible characters around the value were dropped", "remove them"))
    for step in _steps(key):
        repaired, what, mend = step(value)
        if repaired != value:
            slips.append((what, mend))
            value = repaired
    return Repaired(value, tuple(slips))


def placeholder(key: str, value: str) -> str | None:
    """What is still to be filled in in this value, or None.

    Secrets, client ids and programs count as a whole only.
    """
    if key in OPAQUE_KEYS:
        return value if OPAQUE_PLACEHOLDER.fullmatch(value) else None
    match = PLACEHOLDER.search(value)
    return match[0] if match else None


def _steps(key: str) -> tuple[Step, ...]:
    if key in URL_KEYS:
        return (_unlinked, _unquoted, _unbracketed, _without_trail)
    if key == "oauth2_scope":
        return (_unlinked, _unquoted, _without_trail, _untransposed)
    if key == "server_address":
        return (_unlinked, _unquoted)
    return (_unquoted,)


def _unlinked(value: str) -> tuple[str, str, str]:
    bare = MARKDOWN_LINK.sub(_meaning_of_a_link, value)
    return bare, "is a Markdown link: its text is used", f"write {_short(bare)} alone"


def _meaning_of_a_link(link: re.Match[str]) -> str:
    """A link's text where that says it all, for targets get mangled; else its target, without the title."""
    text = link["text"].strip()
    target = link["target"].split()
    host_name = "." in text and "/" not in text
    return text if "://" in text or host_name or not target else target[0]


def _unquoted(value: str) -> tuple[str, str, str]:
    wrapped = len(value) >= 2 and QUOTES.get(value[0]) == value[-1]
    bare = value[1:-1].strip() if wrapped else value
    return bare, "the quotes around the value were dropped", "write it without quotes"


def _unbracketed(value: str) -> tuple[str, str, str]:
    wrapped = value.startswith("<") and value.endswith(">") and "://" in value
    bare = value[1:-1].strip() if wrapped else value
    return bare, "the angle brackets around the URL were dropped", f"write {_short(bare)} alone"


def _without_trail(value: str) -> tuple[str, str, str]:
    what = "quotes or backslashes at the end were dropped"
    return URL_TRAIL.sub("", value), what, "remove what follows the value"


def _untransposed(value: str) -> tuple[str, str, str]:
    return TRANSPOSED_SMTP.sub("SMTP.", value), "SMPT is misspelt: SMTP is used", "write SMTP.Send"


def _short(text: str) -> str:
    return text if text.isprintable() and len(text) <= MAX_SHOWN_URL else "the URL"
