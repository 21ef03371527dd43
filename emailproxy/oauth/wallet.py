"""Each account's tokens: in memory for the next login, renewed under the account's lock, durable before used."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from emailproxy.config.model import MINUTES, SECONDS, Account
from emailproxy.errors import (
    AccountUnusable,
    LoginRefused,
    ProviderRefused,
    ProviderUnavailable,
    StateError,
    TokenRefused,
    TooManyLogins,
    WrongPassword,
    addressed,
    one_line,
)
from emailproxy.oauth.advice import advise
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.clientsecret import lent
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Approval, FlowOf, TokenSet
from emailproxy.oauth.happenings import Event, Happening, Notify, nobody
from emailproxy.oauth.holdings import MAX_HELD, Held, Holdings
from emailproxy.oauth.identity import expected
from emailproxy.oauth.lulls import Lulls
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore
from emailproxy.store.sealing import AccountKey
from emailproxy.wire.dialogue import REFUSED_TWICE

PATIENCE_S = 5 * SECONDS  # how long a login whose token still works waits for a renewal before it goes ahead
FIRST_PAUSE_S = 30 * SECONDS  # after a failed renewal; doubled each time
LONGEST_PAUSE_S = 15 * MINUTES
SHORTEST_PAUSE_S = 1 * SECONDS
PAUSE_OF_LIFE = 0.25  # of what is left of a token that still works: it should be replaced before it ends
MAX_DOUBLINGS = 10  # by then the longest pause has been reached
FORCED_EVERY_S = 60 * SECONDS  # a mail server that refuses every token must not cost the provider one each login

# RFC 6749 section 5.2; OpenID Connect Core section 3.1.2.6, which Microsoft answers refreshes with
NEEDS_PERSON = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})

log = logging.getLogger("emailproxy.oauth")

Own = Callable[[Account], Awaitable[TokenSet]]
"""Offers the mailbox's own password, which a login brought, to the provider."""


class Replaced(AccountUnusable):
    """The account's record is gone, or has another key pair by now."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A mail server's no to an access token."""

    token: Secret | None
    """Which one; None where that is not known any more: then it is the present one."""
    text: str

    def means(self, tokens: TokenSet) -> bool:
        return self.token is None or self.token == tokens.access_token


class Wallet:
    """The accounts that have a record."""

    def __init__(
        self, records: TokenStore, flows: FlowOf, holdings: Holdings, *, clock: Clock, notify: Notify = nobody
    ) -> None:
        self._records = records
        self._flows = flows
        self._holdings = holdings
        self._clock = clock
        self._notify = notify
        self._forced: OrderedDict[str, float] = OrderedDict()
        self._renewals: Flights[TokenSet | None] = Flights()
        self.lulls = Lulls(clock.monotonic_s)
        """For whoever else asks providers for an account's tokens, too."""

    async def current(
        self, account: Account, key: AccountKey, record: Record, refusal: Refusal | None, own: Own | None = None
    ) -> TokenSet | None:
        """Tokens for a login; None where the account's owner must sign in first.

        Args:
            record: just read.
            refusal: the mail server's no to the last token; asks for another one.
            own: for an account whose grant is the mailbox's own password.

        Raises:
            ProviderUnavailable, ProviderRefused, AccountUnusable: no token is to be had, and none is left that works.
            WrongPassword: the provider does not take the mailbox's own password any more.
            TokenRefused: the mail server refused a token, and the next may not be asked for yet.
        """
        held = self._holdings.adopt(account, key, record)
        if held.tokens is not None and not (refusal and refusal.means(held.tokens)) and self._holdings.is_ready(held):
            return held.tokens
        if refusal is not None:
            self.check_forced(account, refusal)
        joined = self._renewals.join(account.key) is not None
        renewal = self._renewals.start(account.key, lambda: self._renew(account, key, refusal=refusal, own=own))
        if refusal is None and not held.record.needs_sign_in and self._holdings.is_live(held):
            done, _ = await asyncio.wait({renewal}, timeout=PATIENCE_S)
            if not done:
                return held.tokens
        try:
            return await asyncio.shield(renewal)
        except ProviderRefused:
            if own is None or not (joined and held.spent):
                raise
        # Who began that renewal brought no password; this login does.
        return await self._renewals.run(account.key, lambda: self._renew(account, key, refusal=refusal, own=own))

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
                f"({one_line(refusal.text) or 'no reason given'}); {advise(refusal.text) or REFUSED_TWICE}"
            )
        self._forced[account.key] = now_s
        self._forced.move_to_end(account.key)
        if len(self._forced) > MAX_HELD:
            self._forced.popitem(last=False)

    async def renew_ahead(self, held: Held) -> None:
        """Replaces the tokens that an account has now, unless another process did; or saves those that could not be.

        Raises:
            Replaced: nobody who knows its password has unlocked this account here.
            LoginRefused: the provider gives none; `held` says when to ask again.
        """
        stale = None if held.unsaved else held.record.generation
        work = lambda: self._renew(held.account, held.key, stale=stale)  # noqa: E731
        await self._renewals.run(held.account.key, work)

    # ---- renewing

    async def _renew(
        self,
        account: Account,
        key: AccountKey,
        *,
        refusal: Refusal | None = None,
        own: Own | None = None,
        stale: int | None = None,
    ) -> TokenSet | None:
        """Fresh tokens; those of the generation `stale` are not, however young."""
        async with self._records.locked(account.key) as record:
            if record is None or record.lockbox.public_key != key.public_key:
                raise Replaced(f"the state of {account.name} was replaced meanwhile; log in again")
            held = self._holdings.adopt(account, key, record)
            if held.unsaved:
                await self._holdings.save(held)
            tokens, refused = held.tokens, False
            if tokens is not None:
                refused = refusal is not None and refusal.means(tokens)
                if not refused and held.record.generation != stale and self._holdings.is_fresh(held):
                    return tokens  # another process was faster
            return await self._ask(held.account, held, refusal, own)

    async def _ask(self, account: Account, held: Held, refusal: Refusal | None, own: Own | None) -> TokenSet | None:
        """Asks the provider, or says why not; None where the owner must sign in."""
        tokens = held.tokens
        usable = refusal is None and self._holdings.is_live(held)
        if self._flows(account).approval is Approval.PERSON:
            if held.record.needs_sign_in or tokens is None:
                return None
            if tokens.refresh_token is None:
                return self._without_refresh_token(account, tokens if usable else None, refusal)
        asked = self._clock.now()
        try:
            with nullcontext() if usable else self.lulls.asking(account):  # else its pauses are as long as it has
                fresh = await self._fetch(account, held, own)
        except LoginRefused as error:
            return await self._not_renewed(account, held, error, usable=usable)
        held = self._holdings.granted(account, held.key, held.record, fresh, asked)
        await self._holdings.save(held)
        self._holdings.hold(held)  # now, and not before: no other login may use what is not on disk
        life = "" if fresh.expires_at_s is None else f", good for {fresh.expires_at_s - int(asked.wall_s)} s"
        log.info("the token of %s was renewed%s", expected(account), life)
        self._notify(Happening(Event.TOKEN_REFRESHED, expected(account), expires_at_s=fresh.expires_at_s))
        return fresh

    @staticmethod
    def _without_refresh_token(account: Account, usable: TokenSet | None, refusal: Refusal | None) -> TokenSet | None:
        if refusal is None:
            return usable
        raise TokenRefused(
            f"the mail server refused the access token of {account.name}, and there is no refresh token "
            f"for a fresh one ({one_line(refusal.text)}); run 'emailproxy authorize {account.name}'"
        )

    async def _fetch(self, account: Account, held: Held, own: Own | None) -> TokenSet:
        """What the provider gives for what we have."""
        flow, tokens = self._flows(account), held.tokens
        account = lent(account, held.client_secret)
        if flow.approval is not Approval.PASSWORD:
            return await (flow.acquire(account, None) if tokens is None else flow.refresh(account, tokens))
        if tokens is not None and tokens.refresh_token is not None and not held.spent:
            try:
                return await flow.refresh(account, tokens)
            except ProviderRefused as error:
                if error.code not in NEEDS_PERSON:
                    raise
                held.spent = True
                if own is None:
                    raise
        if own is None:
            raise ProviderRefused(
                f"only the mailbox's own password renews the token of {account.name}; log in with it",
                code="invalid_grant",
            )
        return await own(account)

    # ---- when it fails

    async def _not_renewed(self, account: Account, held: Held, error: LoginRefused, *, usable: bool) -> TokenSet | None:
        """Keeps every token; the present one is used while it works, unless the refusal is for good."""
        final = isinstance(error, ProviderRefused) and error.code in NEEDS_PERSON
        if final and self._flows(account).approval is Approval.PERSON:
            return await self._disowned(account, held, error)
        await self._note(held, error)
        if isinstance(error, WrongPassword) or (final and held.spent):
            log.warning("the token of %s was not renewed: %s", expected(account), addressed(error, account.name))
            raise error
        self.pause(held, error)
        if not usable:
            # Nothing was asked, perhaps of any number of logins: the line of each says as much.
            level = logging.DEBUG if isinstance(error, Refrain) else logging.WARNING
            log.log(level, "the token of %s was not renewed: %s", expected(account), addressed(error, account.name))
            raise error
        level = logging.WARNING if held.failures == 1 else logging.INFO
        told = addressed(error, account.name)
        log.log(level, "the token of %s was not renewed, and the old one still works: %s", expected(account), told)
        return held.tokens

    def pause(self, held: Held, error: Exception | None = None) -> None:
        """Lets the provider be for a while: for as long as it asks, or longer each time."""
        now = self._clock.now()
        if now.monotonic_s >= held.paused_until_s:
            held.failures += 1
        asked_s = error.retry_after_s if isinstance(error, ProviderUnavailable) else None
        wait_s = pause_s(held.failures, held.term.left_s(now)) if asked_s is None else asked_s
        held.paused_until_s = max(held.paused_until_s, now.monotonic_s + wait_s)

    async def _note(self, held: Held, error: LoginRefused) -> None:
        """The reason into the record, where `accounts list` finds it. What cannot be written is in the log."""
        reason, known = one_line(str(error)), held.record.last_error
        ours = isinstance(error, TooManyLogins) or (isinstance(error, Refrain) and known)  # nothing was sent
        if ours or held.unsaved or reason == known:
            return
        try:
            held.record = await self._records.save(replace(held.record, last_error=reason))
        except StateError as failure:
            log.debug("the last error of %s is not in its file: %s", held.account.name, failure)

    async def _disowned(self, account: Account, held: Held, error: LoginRefused) -> TokenSet | None:
        """The provider does not know the refresh token any more. Tokens are kept; the owner must sign in."""
        now = await self._records.load(account.key)  # did somebody without our lock replace it?
        if now is not None and now.generation > held.record.generation:
            return self._holdings.adopt(account, held.key, now).tokens
        log.warning("the owner of %s must sign in again: %s", expected(account), addressed(error, account.name))
        held.record = replace(held.record, needs_sign_in=True, last_error=one_line(str(error)))
        await self._holdings.save(held)
        self._holdings.changed(held)
        self._notify(Happening(Event.SIGN_IN_NEEDED, expected(account), reason=str(error)))
        return None

    async def close(self) -> None:
        await self._renewals.close()


def pause_s(failures: int, left_s: float) -> float:
    """How long to wait after so many failures, where the token works for another `left_s` seconds."""
    longest_s = LONGEST_PAUSE_S if left_s <= 0 else min(LONGEST_PAUSE_S, left_s * PAUSE_OF_LIFE)
    doubled_s: float = FIRST_PAUSE_S * 2 ** min(failures - 1, MAX_DOUBLINGS)
    spread = random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, hides nothing
    return spread * max(min(doubled_s, longest_s), SHORTEST_PAUSE_S)
