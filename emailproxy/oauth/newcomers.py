"""Accounts without a key slot whose flow asks no person: nothing is stored until the mail server took the login."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Flow, TokenSet
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.records import is_fresh, sealed
from emailproxy.oauth.wallet import Held, Refusal, Wallet
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore

MAX_DRAFTS = 1000  # with a catch-all, strangers choose the names

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens of an account that nobody's password protects yet."""

    tokens: TokenSet
    obtained_at_s: int


class Newcomers:
    """First logins of the client_credentials kind: the password of the first accepted one becomes the first slot."""

    def __init__(
        self,
        records: TokenStore,
        flows: Mapping[FlowName, Flow],
        keyring: Keyring,
        wallet: Wallet,
        *,
        clock: Clock,
    ) -> None:
        self._records = records
        self._flows = flows
        self._keyring = keyring
        self._wallet = wallet
        self._clock = clock
        self._drafts: OrderedDict[str, Draft] = OrderedDict()
        self._acquiring: Flights[TokenSet] = Flights()
        self._settling: Flights[None] = Flights()

    async def tokens(self, account: Account, refusal: Refusal | None) -> TokenSet:
        """Tokens for a login whose password is not known yet.

        Raises:
            ProviderUnavailable, ProviderRefused, TokenRefused: as `Wallet.current` says.
        """
        draft = self._drafts.get(account.key)
        if draft is not None and not (refusal and refusal.means(draft.tokens)) and self._is_fresh(draft):
            return draft.tokens
        acquiring = self._acquiring.join(account.key)
        if acquiring is not None:
            return await asyncio.shield(acquiring)
        if refusal is not None:
            self._wallet.check_forced(account, refusal)
        return await self._acquiring.run(account.key, lambda: self._acquire(account))

    def _is_fresh(self, draft: Draft) -> bool:
        return is_fresh(draft.tokens, draft.obtained_at_s, self._clock.wall_s())

    async def _acquire(self, account: Account) -> TokenSet:
        now_s = self._clock.now_s()
        tokens = await self._flows[account.flow].acquire(account, None)
        self._drafts[account.key] = Draft(tokens, now_s)
        self._drafts.move_to_end(account.key)
        if len(self._drafts) > MAX_DRAFTS:
            self._drafts.popitem(last=False)
        return tokens

    def is_draft(self, account: Account) -> bool:
        return account.key in self._drafts

    async def settle(self, account: Account, password: Secret) -> None:
        """The login stands: its password becomes the first slot, unless another one did meanwhile.

        Raises:
            StateError: the record cannot be stored; the account stays without a slot.
        """
        await self._settling.run((account.key, password), lambda: self._settle(account, password))

    async def _settle(self, account: Account, password: Secret) -> None:
        lockbox, key = await self._keyring.new_lockbox(account, password)
        async with self._records.locked(account.key) as record:
            draft = self._drafts.pop(account.key, None)
            if record is not None or draft is None:
                return
            new = Record(account=account.key, lockbox=lockbox)
            new = sealed(new, draft.tokens, now_s=draft.obtained_at_s)
            try:
                new = await self._records.save(new)
            except BaseException:
                self._drafts[account.key] = draft
                raise
        self._wallet.hold(Held(new, draft.tokens))
        self._keyring.remember(account, lockbox, password, key)
        log.info("account %s is set up: the password of its first login is its password here", account.name)

    async def close(self) -> None:
        await self._acquiring.close()
        await self._settling.close()
