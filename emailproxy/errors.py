"""Every error that emailproxy raises on purpose, on one screen.

::

    EmailProxyError
    ├── ConfigError                 the configuration file is wrong (all faults at once)
    ├── StateError                  the state folder or one of its files cannot be used
    │   ├── StateDamaged            a file does not parse, or its figures are out of bounds
    │   └── StateExposed            a file or folder may be read by others
    ├── ServiceError                the server cannot start or go on (port in use, bad certificate)
    ├── PasswordsUnchanged          a local password is not added, changed or removed; the text says why
    ├── ProtocolError               a peer broke its protocol's rules; only wire/ raises and catches it
    └── LoginRefused                a login does not go ahead; its `kind` says what the client hears
        ├── WrongPassword           the local password opens no key slot
        │   └── PasswordNotPermitted  it opens one that is not for this protocol, network or time
        ├── UnknownAccount          no account section matches the user name
        ├── ConsentRequired         the account's owner must sign in at the provider first
        ├── ProviderUnavailable     the OAuth 2.0 provider does not answer sensibly; try later
        │   └── AuthorizationPending  a device authorization waits for its person still
        ├── ProviderRefused         the provider says that our configuration is wrong
        ├── ServerUnavailable       the mail server cannot be reached, or refuses us
        ├── TokenRefused            the mail server refused the access token, a fresh one too
        ├── AccountUnusable         this account's configuration or state must be mended first
        ├── TooManyLogins           too many attempts or connections
        └── TooManySessions         the account has as many sessions as it may; try again when one has ended

`wire/` alone turns a `Kind` into protocol bytes.
"""

from __future__ import annotations

import errno
import os
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

MAX_FOREIGN_TEXT = 300  # characters of a provider's or server's own words that we repeat


def one_line(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Somebody else's words, fit for a line that we build: no control characters, white space folded, capped."""
    folded = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."


def system_words(error: BaseException) -> str:
    """Why the system could not do it, e.g. "Connection refused", without what libraries put around that."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno is not None and error.errno in errno.errorcode:
            return os.strerror(error.errno)
        if error.strerror:
            return error.strerror
    return type(error).__name__


def addressed(error: object, account: str) -> str:
    """An error's text whose advice speaks of ACCOUNT, with the account's name there: fit for a shell."""
    return str(error).replace("authorize ACCOUNT", f"authorize {account}")


class EmailProxyError(Exception):
    """Whatever emailproxy raises on purpose; its text is one readable sentence without secrets."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a configuration file, and its mend."""

    file: str
    line: int | None
    section: str | None
    key: str | None
    what: str
    mend: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = "".join(
            part for part in (f" [{self.section}]" if self.section else "", f" {self.key}" if self.key else "")
        )
        return f"{place}:{where}{':' if where else ''} {self.what}; {self.mend}"


class ConfigError(EmailProxyError):
    """The configuration file is wrong; `faults` holds every fault found, in the order of the file."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class StateError(EmailProxyError):
    """The state folder or one of its files cannot be used."""


class StateDamaged(StateError):
    """A state file does not parse, or holds figures out of bounds; it is left as it is."""


class StateExposed(StateError):
    """A state file or folder may be read or written by others; it is left as it is."""


class ServiceError(EmailProxyError):
    """The server cannot start or go on."""


class PasswordsUnchanged(EmailProxyError):
    """An account's local passwords stay as they are; the text says why, and what to do."""


class ProtocolError(EmailProxyError):
    """A peer broke its protocol's rules."""


class Kind(Enum):
    """Why a login does not go ahead, as far as a client can tell; each protocol has a code for it."""

    WRONG_LOGIN = "wrong login"
    CONSENT_NEEDED = "consent needed"
    UNAVAILABLE = "unavailable"
    TOKEN_REFUSED = "token refused"  # noqa: S105 - a name, not a secret
    MISCONFIGURED = "misconfigured"
    TOO_MANY = "too many"
    TOO_MANY_SESSIONS = "too many sessions"


class LoginRefused(EmailProxyError):
    """A login does not go ahead.

    The text goes to the mail client and to the log: one sentence that says what happened and what to do.
    """

    kind: ClassVar[Kind]


class WrongPassword(LoginRefused):
    """The local password opens no key slot of the account; nothing was changed."""

    kind = Kind.WRONG_LOGIN


class PasswordNotPermitted(WrongPassword):
    """The local password is right, but its key slot is not for this protocol, network or time."""


class UnknownAccount(LoginRefused):
    """No account section, and no catch-all, matches the user name."""

    kind = Kind.WRONG_LOGIN


class ConsentRequired(LoginRefused):
    """The account's owner must sign in first; `link` is the short link, `url` the provider's."""

    kind = Kind.CONSENT_NEEDED

    def __init__(self, message: str, *, link: str = "", url: str = "") -> None:
        super().__init__(message)
        self.link = link
        self.url = url


class ProviderUnavailable(LoginRefused):
    """The provider does not answer, or not sensibly; tokens are kept.

    `retry_after_s` is what the provider asked for (`Retry-After`), in seconds, where it did.
    """

    kind = Kind.UNAVAILABLE

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AuthorizationPending(ProviderUnavailable):
    """The person has not entered the device's code yet (RFC 8628 section 3.5: authorization_pending, slow_down).

    `slow_down` says that the interval between polls grows by five seconds from now on.
    """

    def __init__(self, message: str, *, slow_down: bool = False) -> None:
        super().__init__(message)
        self.slow_down = slow_down


class ProviderRefused(LoginRefused):
    """The provider says that the request itself is wrong: client, secret, scope, or consent.

    `code` is the OAuth 2.0 error code (RFC 6749 section 5.2), e.g. ``invalid_grant``; `words` are the provider's own,
    cleaned.
    """

    kind = Kind.MISCONFIGURED

    def __init__(self, message: str, *, code: str = "", words: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.words = words


class ServerUnavailable(LoginRefused):
    """The mail server cannot be reached, fails verification, or greets with a refusal."""

    kind = Kind.UNAVAILABLE


class TokenRefused(LoginRefused):
    """The mail server refused the access token, and a fresh one is refused too or cannot be had yet."""

    kind = Kind.TOKEN_REFUSED


class AccountUnusable(LoginRefused):
    """This account's configuration or state must be mended first; the text names the key or file."""

    kind = Kind.MISCONFIGURED


class TooManyLogins(LoginRefused):
    """Too many attempts or connections."""

    kind = Kind.TOO_MANY


class TooManySessions(LoginRefused):
    """The account has as many sessions as it may have, and none ended in time."""

    kind = Kind.TOO_MANY_SESSIONS
