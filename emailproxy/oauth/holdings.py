"""What this process knows of the accounts that logins have unlocked: keys, records, tokens and how old they are."""

from __future__ import annotations

import logging
import math
import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from emailproxy.config.model import SECONDS, Account
from emailproxy.errors import StateError
from emailproxy.oauth.clientsecret import completed
from emailproxy.oauth.clock import Clock, Now
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.lifetimes import MARGIN_S, Term
from emailproxy.oauth.records import client_secret_of, opened, sealed, with_secret_of
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore
from emailproxy.store.sealing import AccountKey

MAX_HELD = 10_000  # accounts; beyond, the one used longest ago is read from its file again
SAVE_AGAIN_S = 30 * SECONDS  # after a failed write: tokens that are in memory only must reach the disk soon

log = logging.getLogger("emailproxy.oauth")


@dataclass(slots=True)
class Held:
    """One unlocked account."""

    account: Account
    """As it was configured when last looked at; of the mailboxes that share a record, the one used last."""
    key: AccountKey
    record: Record
    tokens: TokenSet | None
    term: Term
    """Of `tokens`."""
    used_at_s: float
    """The last login (monotonic)."""
    client_secret: Secret | None = None
    """The record's own, for an account whose configuration has none."""
    chance: float = field(default_factory=random.random)
    """The same for as long as the tokens: by how much of what is allowed they are renewed earlier than others."""
    failures: int = 0
    """Renewals that failed in a row."""
    paused_until_s: float = -math.inf
    """No renewal before (monotonic): the last one failed. While the token still works, it is used."""
    spent: bool = False
    """The provider does not know the refresh token any more, and the mailbox's own password may do."""
    unsaved: bool = False
    """The tokens are newer than the file, which could not be written."""
    save_again_at_s: float = -math.inf
    """When writing them is tried again (monotonic)."""


class Watcher(Protocol):
    """Who renews tokens ahead of their end."""

    def watch(self, held: Held) -> None:
        """An account was unlocked, or what is known of it has changed."""

    def keeps(self, held: Held) -> bool:
        """Whether its token is renewed with no login's help."""


class Holdings:
    """The accounts that are unlocked, those used last at the end."""

    def __init__(self, records: TokenStore, *, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._margin_s: float = MARGIN_S
        self._held: OrderedDict[str, Held] = OrderedDict()
        self.watcher: Watcher | None = None

    def used(self, account: Account) -> Held | None:
        """What is known of an account that somebody logs in to."""
        held = self._held.get(account.key)
        if held is not None:
            held.account = completed(account, held.record)
            held.used_at_s = self._clock.monotonic_s()
            self._held.move_to_end(account.key)
        return held

    def get(self, name: str) -> Held | None:
        return self._held.get(name)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def forget(self, account: Account) -> None:
        self._held.pop(account.key, None)

    # ---- tokens

    def is_live(self, held: Held) -> bool:
        return held.tokens is not None and held.term.is_live(self._clock.now())

    def is_fresh(self, held: Held) -> bool:
        """Whether its token is not to be renewed now."""
        if held.tokens is None or held.record.needs_sign_in:
            return False
        now = self._clock.now()
        if held.unsaved and now.monotonic_s >= held.save_again_at_s:
            return False
        if not held.spent and held.term.is_fresh(now):
            return True
        return now.monotonic_s < held.paused_until_s and held.term.is_live(now)

    def is_ready(self, held: Held) -> bool:
        """Whether a login is given its token at once: it is fresh, or works still and is renewed without the login."""
        return self.is_fresh(held) or self._is_kept(held)

    def _is_kept(self, held: Held) -> bool:
        if self.watcher is None or held.record.needs_sign_in or held.spent or not self.is_live(held):
            return False
        return self.watcher.keeps(held)

    def renew_before(self, margin_s: float) -> None:
        """From now on tokens are renewed so long before their end."""
        self._margin_s = margin_s
        for held in self:
            held.term = held.term.with_margin(margin_s)

    def term_of(self, tokens: TokenSet, asked: Now) -> Term:
        """The life of tokens that this process was granted."""
        return Term.of(tokens, asked, self._margin_s)

    def adopt(self, account: Account, key: AccountKey, record: Record) -> Held:
        """The newer of what is in memory and what was just read.

        Raises:
            StateDamaged: the record's tokens do not open.
        """
        held = self._held.get(account.key)
        if held is None or held.record.lockbox.public_key != record.lockbox.public_key:
            return self._open(account, key, record, self._clock.monotonic_s())
        held.account = completed(account, record)
        mine = held.record
        if mine.generation > record.generation or (held.unsaved and mine.sealed == record.sealed):
            # our tokens, the file's passwords and client secret
            held.record = replace(with_secret_of(mine, record), lockbox=record.lockbox, stamp=record.stamp)
            held.client_secret = client_secret_of(record, key)
        elif mine.sealed == record.sealed:
            held.record = record  # its slots, or whether its owner must sign in, may have changed
        else:
            held = self._open(account, key, record, held.used_at_s)
        return held

    def _open(self, account: Account, key: AccountKey, record: Record, used_at_s: float) -> Held:
        tokens, now = opened(record, key), self._clock.now()
        ended = Term(now, 0.0, 0.0)
        term = ended if tokens is None else Term.read(tokens, record.obtained_at_s, now, self._margin_s)
        secret = client_secret_of(record, key)
        return self.hold(Held(completed(account, record), key, record, tokens, term, used_at_s, secret))

    def granted(self, account: Account, key: AccountKey, record: Record, tokens: TokenSet, asked: Now) -> Held:
        """The account with new tokens; neither saved nor in use yet.

        Args:
            record: the one whose tokens these replace.
            asked: when the provider was asked for them.
        """
        before = self._held.get(account.key)
        used_at_s = asked.monotonic_s if before is None else before.used_at_s
        secret = client_secret_of(record, key)
        record = sealed(record, tokens, now_s=int(asked.wall_s))
        return Held(account, key, record, tokens, self.term_of(tokens, asked), used_at_s, secret)

    def hold(self, held: Held) -> Held:
        self._held[held.account.key] = held
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        self.changed(held)
        return held

    def changed(self, held: Held) -> None:
        if self.watcher is not None:
            self.watcher.watch(held)

    # ---- the file

    async def save(self, held: Held) -> None:
        """Before anybody uses them. On a full disk they are used all the same: the old ones may be void by now."""
        try:
            held.record = await self._records.save(held.record)
            held.unsaved = False
        except StateError as error:
            held.unsaved = True
            held.save_again_at_s = self._clock.monotonic_s() + SAVE_AGAIN_S
            log.error("what is new of %s is in memory only, and lost at a restart: %s", held.account.name, error)
