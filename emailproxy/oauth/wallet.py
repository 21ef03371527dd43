"""Each account's tokens: in memory for the next login, renewed under the account's lock, durable before used."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from emailproxy.config.model import SECONDS, Account, FlowName
from emailproxy.errors import (
    AccountUnusable,
    ProviderRefused,
    ProviderUnavailable,
    StateError,
    TokenRefused,
    one_line,
)
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Flow, TokenSet
from emailproxy.oauth.records import is_fresh, is_live, opened, sealed
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore
from emailproxy.store.sealing import AccountKey
from emailproxy.wire.dialogue import REFUSED_TWICE

MAX_HELD = 10_000  # accounts; beyond, the one used longest ago is read from its file again
PATIENCE_S = 5 * SECONDS  # how long a login whose token still works waits for a renewal before it goes ahead
PAUSE_S = 30 * SECONDS  # after a failed renewal, while the token still works
FORCED_EVERY_S = 60 * SECONDS  # a mail server that refuses every token must not cost the provider one each login

# RFC 6749 section 5.2; OpenID Connect Core section 3.1.2.6, which Microsoft answers refreshes with
NEEDS_PERSON = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A mail server's no to an access token."""

    token: Secret | None
    """Which one; None where that is not known any more: then it is the present one."""
    text: str

    def means(self, tokens: TokenSet) -> bool:
        return self.token is None or self.token == tokens.access_token


@dataclass(slots=True)
class Held:
    """What this process knows of an account."""

    record: Record
    tokens: TokenSet | None
    unsaved: bool = False
    """The tokens are newer than the file, which could not be written."""
    save_again_at_s: float = -math.inf
    """When writing them is tried again (monotonic)."""
    paused_until_s: float = -math.inf
    """No renewal before (monotonic): the last one failed, and the token still works."""


class Wallet:
    """The accounts that have a record."""

    def __init__(self, records: TokenStore, flows: Mapping[FlowName, Flow], *, clock: Clock) -> None:
        self._records = records
        self._flows = flows
        self._clock = clock
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._forced: OrderedDict[str, float] = OrderedDict()
        self._renewals: Flights[TokenSet | None] = Flights()

    def held(self, account: Account) -> Held | None:
        held = self._held.get(account.key)
        if held is not None:
            self._held.move_to_end(account.key)
        return held

    def forget(self, account: Account) -> None:
        self._held.pop(account.key, None)

    def is_fresh(self, held: Held) -> bool:
        """Whether its token can be handed out without further ado."""
        tokens = held.tokens
        if tokens is None or held.record.needs_sign_in:
            return False
        if held.unsaved and self._clock.monotonic_s() >= held.save_again_at_s:
            return False
        if is_fresh(tokens, held.record.obtained_at_s, self._clock.wall_s()):
            return True
        paused = self._clock.monotonic_s() < held.paused_until_s
        return paused and is_live(tokens, self._clock.wall_s())

    async def current(
        self, account: Account, key: AccountKey, record: Record, refusal: Refusal | None
    ) -> TokenSet | None:
        """Tokens for a login; None where the account's owner must sign in first.

        Args:
            record: just read.
            refusal: the mail server's no to the last token; asks for another one.

        Raises:
            ProviderUnavailable, ProviderRefused: no token is to be had, and none is left that works.
            TokenRefused: the mail server refused a token, and the next may not be asked for yet.
        """
        held = self.adopt(key, record)
        if held.tokens is not None and not (refusal and refusal.means(held.tokens)) and self.is_fresh(held):
            return held.tokens
        if refusal is not None:
            self.check_forced(account, refusal)
        renewal = self._renewals.start(account.key, lambda: self._renew(account, key, refusal))
        if held.tokens is not None and refusal is None and is_live(held.tokens, self._clock.wall_s()):
            done, _ = await asyncio.wait({renewal}, timeout=PATIENCE_S)
            if not done:
                return held.tokens
        return await asyncio.shield(renewal)

    def check_forced(self, account: Account, refusal: Refusal) -> None:
        """Counts a renewal that a mail server's refusal asks for; joining one under way is free.

        Raises:
            TokenRefused: there was one within the last minute.
        """
        if self._renewals.join(account.key) is not None:
            return
        now_s, last_s = self._clock.monotonic_s(), self._forced.get(account.key, -math.inf)
        if now_s - last_s < FORCED_EVERY_S:
            raise TokenRefused(
                f"the mail server refused the access token of {account.name}, a fresh one too "
                f"({one_line(refusal.text) or 'no reason given'}); {REFUSED_TWICE}"
            )
        self._forced[account.key] = now_s
        self._forced.move_to_end(account.key)
        if len(self._forced) > MAX_HELD:
            self._forced.popitem(last=False)

    def adopt(self, key: AccountKey, record: Record) -> Held:
        """The newer of what is in memory and what was just read.

        Raises:
            StateDamaged: the record's tokens do not open.
        """
        held = self._held.get(record.account)
        if held is None or held.record.lockbox.public_key != record.lockbox.public_key:
            return self.hold(Held(record, opened(record, key)))
        mine = held.record
        if mine.generation > record.generation or (held.unsaved and mine.sealed == record.sealed):
            held.record = replace(mine, lockbox=record.lockbox, stamp=record.stamp)  # our tokens, the file's passwords
        elif mine.sealed == record.sealed:
            held.record = record  # its slots, or whether its owner must sign in, may have changed
        else:
            held = self.hold(Held(record, opened(record, key)))
        return held

    def hold(self, held: Held) -> Held:
        self._held[held.record.account] = held
        self._held.move_to_end(held.record.account)
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        return held

    # ---- renewing

    async def _renew(self, account: Account, key: AccountKey, refusal: Refusal | None) -> TokenSet | None:
        async with self._records.locked(account.key) as record:
            if record is None or record.lockbox.public_key != key.public_key:
                raise AccountUnusable(f"the state of {account.name} was replaced meanwhile; log in again")
            held = self.adopt(key, record)
            if held.unsaved:
                await self._save(account, held)
            tokens = held.tokens
            if tokens is not None and not (refusal and refusal.means(tokens)) and self.is_fresh(held):
                return tokens  # another process was faster
            return await self._ask(account, key, held, refusal)

    async def _ask(self, account: Account, key: AccountKey, held: Held, refusal: Refusal | None) -> TokenSet | None:
        """Asks the provider, or says why not; None where the owner must sign in."""
        flow, tokens = self._flows[account.flow], held.tokens
        usable = tokens is not None and refusal is None and is_live(tokens, self._clock.wall_s())
        if flow.needs_consent and (held.record.needs_sign_in or tokens is None):
            return None
        if flow.needs_consent and tokens is not None and tokens.refresh_token is None:
            if refusal is None:
                return tokens if usable else None
            raise TokenRefused(
                f"the mail server refused the access token of {account.name}, and there is no refresh token "
                f"for a fresh one ({one_line(refusal.text)}); run 'emailproxy authorize {account.name}'"
            )
        try:
            now_s = self._clock.now_s()
            fresh = await (flow.acquire(account, None) if tokens is None else flow.refresh(account, tokens))
        except (ProviderUnavailable, ProviderRefused) as error:
            if isinstance(error, ProviderRefused) and flow.needs_consent and error.code in NEEDS_PERSON:
                return await self._disowned(account, key, held, error)
            if not usable:
                log.warning("the token of %s was not renewed: %s", account.name, error)
                raise
            held.paused_until_s = self._clock.monotonic_s() + PAUSE_S
            log.warning("the token of %s was not renewed, and the old one still works: %s", account.name, error)
            return tokens
        held = Held(sealed(held.record, fresh, now_s=now_s), fresh)
        await self._save(account, held)
        self.hold(held)  # now, and not before: no other login may use what is not on disk
        life = "" if fresh.expires_at_s is None else f", good for {fresh.expires_at_s - now_s} s"
        log.info("the token of %s was renewed%s", account.name, life)
        return fresh

    async def _save(self, account: Account, held: Held) -> None:
        """Before anybody uses them. On a full disk they are used all the same: the old ones may be void by now."""
        try:
            held.record = await self._records.save(held.record)
            held.unsaved = False
        except StateError as error:
            held.unsaved = True
            held.save_again_at_s = self._clock.monotonic_s() + PAUSE_S
            log.error("what is new of %s is in memory only, and lost at a restart: %s", account.name, error)

    async def _disowned(self, account: Account, key: AccountKey, held: Held, error: ProviderRefused) -> TokenSet | None:
        """The provider does not know the refresh token any more. Tokens are kept; the owner must sign in."""
        now = await self._records.load(account.key)  # did somebody without our lock replace it?
        if now is not None and now.generation > held.record.generation:
            return self.adopt(key, now).tokens
        log.warning("the owner of %s must sign in again: %s", account.name, error)
        held.record = replace(held.record, needs_sign_in=True, last_error=one_line(str(error)))
        await self._save(account, held)
        return None

    async def close(self) -> None:
        await self._renewals.close()
