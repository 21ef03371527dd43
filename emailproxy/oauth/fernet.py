"""What another proxy keeps of an account, opened with the account's login password.

Each value is a Fernet token (AES-128-CBC and HMAC-SHA256, https://github.com/fernet/spec) under a key that
PBKDF2-HMAC-SHA256 (RFC 8018 section 5.2) makes of the password. `opened` blocks for about a second where the password
is wrong, and for 0.4 s where it is right: call it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emailproxy.config.model import Cached
from emailproxy.errors import WrongPassword
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.records import ACCESS, CLIENT_SECRET, REFRESH
from emailproxy.oauth.replies import ACCESS_TOKEN, REFRESH_TOKEN
from emailproxy.secret import Secret

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

TODAYS_ITERATIONS = 1_200_000
FORMER_ITERATIONS = 100_000  # where the file does not say
MAX_ITERATIONS = 10_000_000  # 4 s; a forged count must not take the machine down
KEY_OCTETS = 32  # 16 for HMAC, 16 for AES

VERSION = b"\x80"
OVERHEAD = 1 + 8 + 16 + 32  # octets: version, time stamp, initialisation vector, HMAC
BLOCK = 16  # octets of AES

SHAPES = {ACCESS: ACCESS_TOKEN, REFRESH: REFRESH_TOKEN, CLIENT_SECRET: re.compile(r".+", re.DOTALL)}
"""What may be in a value, by its name."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the password opened; that it opened anything proves it."""

    tokens: TokenSet | None
    client_secret: Secret | None
    damaged: tuple[str, ...]
    """The names of values that are of no use; they are as if absent."""


def values_of(cached: Cached) -> dict[str, str]:
    """The encrypted values by name, as far as there are any."""
    given = {
        ACCESS: cached.access_token,
        REFRESH: cached.refresh_token,
        CLIENT_SECRET: cached.client_secret,
    }
    return {field: value for field, value in given.items() if value}


def whole_in(cached: Cached) -> dict[str, str]:
    """Those that have the shape of a Fernet token: what has not opens with no password."""
    return {field: value for field, value in values_of(cached).items() if is_whole(value)}


def opened(cached: Cached, name: str, password: Secret) -> Opened:
    """The values of the account `name`, of which one is whole at least.

    Raises:
        WrongPassword: this password opens none of them.
    """
    whole = whole_in(cached)
    texts: dict[str, str | None] = {}
    for fernet in _keys(cached, password):
        texts |= {field: _text(fernet, value) for field, value in whole.items() if _opens(fernet, value)}
        if texts.keys() == whole.keys():
            break
    if not texts:
        raise WrongPassword(
            f"the password does not open the tokens that another proxy kept for {name}; use the one that it was used "
            f"with, or run 'emailproxy authorize {name}' to start over"
        )
    sound = {field: text for field, text in texts.items() if text and SHAPES[field].fullmatch(text)}
    secret = sound.get(CLIENT_SECRET)
    return Opened(
        tokens=_tokens(sound.get(ACCESS), sound.get(REFRESH), cached.access_token_expiry_s),
        client_secret=None if secret is None else Secret(secret),
        damaged=tuple(field for field in values_of(cached) if field not in sound),
    )


def _tokens(access: str | None, refresh: str | None, expires_at_s: int | None) -> TokenSet | None:
    """Where the end of the access token is not known, or there is none, the next login renews it."""
    if access is None and refresh is None:
        return None
    ends_s = 0 if access is None or expires_at_s is None else expires_at_s
    return TokenSet(Secret(access or ""), ends_s, None if refresh is None else Secret(refresh))


def is_whole(token: str) -> bool:
    try:
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    octets = len(data) - OVERHEAD
    return data[:1] == VERSION and octets >= BLOCK and octets % BLOCK == 0


def _keys(cached: Cached, password: Secret) -> Iterator[Fernet]:
    """The keys of every count of iterations that a value may be under, the likeliest first."""
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    counts = dict.fromkeys((cached.iterations, TODAYS_ITERATIONS, FORMER_ITERATIONS))
    for count in counts:
        if count is not None and 0 < count <= MAX_ITERATIONS:
            derivation = PBKDF2HMAC(algorithm=SHA256(), length=KEY_OCTETS, salt=cached.salt, iterations=count)
            key = derivation.derive(password.reveal().encode("utf-8", "surrogatepass"))
            yield Fernet(base64.urlsafe_b64encode(key))


def _opens(fernet: Fernet, token: str) -> bool:
    from cryptography.fernet import InvalidToken

    try:
        fernet.extract_timestamp(token)
    except InvalidToken:
        return False
    return True


def _text(fernet: Fernet, token: str) -> str | None:
    """What the token holds; None where it is no text, though the key is right."""
    from cryptography.fernet import InvalidToken

    try:
        return fernet.decrypt(token).decode("utf-8")
    except (InvalidToken, UnicodeDecodeError):
        return None
