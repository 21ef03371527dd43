"""A mailbox's own password, offered to its provider (RFC 6749 section 4.3): throttled, and not twice in a minute.

Providers lock mailboxes whose password is wrong too often, and a mail program tries an old one again and again.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict

from emailproxy.config.model import SECONDS, Account
from emailproxy.errors import ProviderRefused, WrongPassword
from emailproxy.oauth.advice import advise
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import FlowOf, OwnPassword, TokenSet
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.wallet import NEEDS_PERSON
from emailproxy.secret import Secret

AGAIN_S = 60 * SECONDS  # a password that was refused is not offered again before
MAX_REFUSED = 4096  # passwords remembered as refused; strangers choose them, so the oldest make room
KEY_OCTETS = 32  # as many as SHA-256 has

Tag = bytes
"""A password of an account, known again by this process and nobody else: no password is kept."""


class Offers:
    """All offers of a process."""

    def __init__(self, flows: FlowOf, keyring: Keyring, *, clock: Clock) -> None:
        self._flows = flows
        self._keyring = keyring
        self._clock = clock
        self._process_key = secrets.token_bytes(KEY_OCTETS)
        self._refused: OrderedDict[Tag, tuple[float, str]] = OrderedDict()
        """When (monotonic), and in which words."""

    def tag(self, account: Account, password: Secret) -> Tag:
        text = f"{len(account.key)} {account.key}{password.reveal()}"
        return hmac.digest(self._process_key, text.encode("utf-8", "surrogatepass"), "sha256")

    async def acquire(self, account: Account, password: Secret, address: str = "") -> TokenSet:
        """What the provider gives for this password.

        Raises:
            WrongPassword: it does not take the password.
            TooManyLogins: too many were wrong; the provider was not asked.
            ProviderUnavailable, ProviderRefused, AccountUnusable: as for `Flow.acquire`.
        """
        tag = self.tag(account, password)
        with self._keyring.guess(account, address):
            self._check(tag)
            try:
                tokens = await self._flows(account).acquire(account, OwnPassword(password))
            except ProviderRefused as error:
                if error.code not in NEEDS_PERSON:
                    raise
                raise WrongPassword(self._remember(account, tag, error)) from None
        self._refused.pop(tag, None)
        return tokens

    def _check(self, tag: Tag) -> None:
        at_s, text = self._refused.get(tag, (0.0, ""))
        if text and self._clock.monotonic_s() - at_s < AGAIN_S:
            raise WrongPassword(text)

    def _remember(self, account: Account, tag: Tag, error: ProviderRefused) -> str:
        text = f"the provider does not take this password for {account.name}: {why(error)}"
        self._refused[tag] = self._clock.monotonic_s(), text
        self._refused.move_to_end(tag)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)
        return text


def why(error: ProviderRefused) -> str:
    """What is known of this very refusal; what is said of its code in general is not meant for passwords."""
    if advise(error.words) in (None, advise(error.code)):
        return f"{error.words or error}; enter the mailbox's present password in the mail program"
    return str(error)
