"""Passwords that no slot knows, where no person is asked: nothing is stored until the mail server took the login."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

from emailproxy.config.model import Account
from emailproxy.oauth.clientsecret import lent
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Approval, FlowOf, TokenSet
from emailproxy.oauth.holdings import Holdings
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.lifetimes import Term
from emailproxy.oauth.offers import Offers, Tag
from emailproxy.oauth.records import with_client_secret
from emailproxy.oauth.wallet import Refusal, Wallet
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore

MAX_DRAFTS = 1000  # with a catch-all, strangers choose the names
ANYBODYS: Tag = b""  # the draft is the account's, whoever logs in: its tokens were not had for a password

log = logging.getLogger("emailproxy.oauth")

Name = tuple[str, Tag]
"""Account and, where its grant is the mailbox's own password, which one."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that no slot's password protects yet."""

    tokens: TokenSet
    term: Term
    replaces: bytes | None
    """The public key of the record that this password did not open; None where there was none."""


class Newcomers:
    """First logins, and those with a mailbox's new password: once accepted, the password becomes the one slot.

    Where the grant is client credentials and the like, any password may be the first, and later ones must be it.
    Where it is the mailbox's own password, the provider says which is right: one that it takes replaces the account's
    record, key pair and all, so that a password which was changed at the provider does not work here any more.
    """

    def __init__(
        self,
        records: TokenStore,
        flows: FlowOf,
        keyring: Keyring,
        offers: Offers,
        holdings: Holdings,
        wallet: Wallet,
        *,
        clock: Clock,
    ) -> None:
        self._records = records
        self._flows = flows
        self._keyring = keyring
        self._offers = offers
        self._holdings = holdings
        self._wallet = wallet
        self._clock = clock
        self._drafts: OrderedDict[Name, Draft] = OrderedDict()
        self._acquiring: Flights[TokenSet | None] = Flights()
        self._settling: Flights[None] = Flights()

    async def tokens(
        self,
        account: Account,
        password: Secret,
        refusal: Refusal | None = None,
        *,
        address: str = "",
        record: Record | None = None,
    ) -> TokenSet | None:
        """Tokens for a login whose password is not known yet; None where the account's record is another one by now.

        Args:
            record: the account's, which this password does not open.

        Raises:
            ProviderUnavailable, ProviderRefused, AccountUnusable, TokenRefused: as `Wallet.current` says.
            WrongPassword, TooManyLogins: as `Offers.acquire` says.
        """
        name = self._name(account, password)
        settling = self._settling.join(name)
        if settling is not None and name[1] == ANYBODYS:
            await asyncio.wait([settling])  # the first login's password is just becoming the account's: is this it?
            return None
        replaces = key_of(record)
        draft = self._drafts.get(name)
        usable = draft is not None and draft.replaces == replaces and draft.term.is_fresh(self._clock.now())
        if draft is not None and usable and not (refusal and refusal.means(draft.tokens)):
            return draft.tokens
        acquiring = self._acquiring.join(name)
        if acquiring is not None:
            return await asyncio.shield(acquiring)
        if refusal is not None:
            self._wallet.check_forced(account, refusal)
        return await self._acquiring.run(name, lambda: self._acquire(account, name, password, address, replaces))

    def _name(self, account: Account, password: Secret) -> Name:
        own = self._flows(account).approval is Approval.PASSWORD
        return account.key, self._offers.tag(account, password) if own else ANYBODYS

    async def _acquire(
        self, account: Account, name: Name, password: Secret, address: str, replaces: bytes | None
    ) -> TokenSet | None:
        # Whoever was faster with the same password may have settled it since the record was read: its draft is gone.
        if key_of(await self._records.load(account.key)) != replaces:
            return None
        asked, held = self._clock.now(), self._holdings.get(account.key)
        account = lent(account, None if held is None else held.client_secret)
        with self._wallet.lulls.asking(account):
            if name[1] == ANYBODYS:
                tokens = await self._flows(account).acquire(account, None)
            else:
                tokens = await self._offers.acquire(account, password, address)
        self._drafts[name] = Draft(tokens, self._holdings.term_of(tokens, asked), replaces)
        self._drafts.move_to_end(name)
        if len(self._drafts) > MAX_DRAFTS:
            self._drafts.popitem(last=False)
        return tokens

    def is_draft(self, account: Account, password: Secret, *, may_set_first: bool) -> bool:
        """Whether this login's password is to become the slot."""
        if not self._drafts:
            return False  # as nearly always
        draft = self._drafts.get(self._name(account, password))
        return draft is not None and (may_set_first or draft.replaces is not None)

    async def settle(self, account: Account, password: Secret) -> None:
        """The login stands: its password becomes the one slot, unless another one did meanwhile.

        Raises:
            StateError: the record cannot be stored; the account stays as it was.
        """
        await self._settling.run(self._name(account, password), lambda: self._settle(account, password))

    async def _settle(self, account: Account, password: Secret) -> None:
        name = self._name(account, password)
        lockbox, key = await self._keyring.new_lockbox(account, password)
        async with self._records.locked(account.key) as record:
            draft = self._drafts.get(name)
            if draft is None or draft.replaces != key_of(record):
                self._drafts.pop(name, None)
                return
            new = Record(account.key, lockbox, generation=0 if record is None else record.generation)
            known = self._holdings.get(account.key)
            if known is not None and known.client_secret is not None:
                new = with_client_secret(new, known.client_secret)
            held = self._holdings.granted(account, key, new, draft.tokens, draft.term.since)
            held.record = await self._records.save(held.record)
        self._drafts.pop(name, None)  # now, and not before: until it was on disk, other logins needed it
        self._holdings.hold(held)
        self._keyring.remember(account, lockbox, password, key)
        what = "first login" if record is None else "last login, which the provider took,"
        log.info("account %s is set up: the password of its %s is its password here", account.name, what)

    async def close(self) -> None:
        await self._acquiring.close()
        await self._settling.close()


def key_of(record: Record | None) -> bytes | None:
    """Which key pair an account has; None where it has none."""
    return None if record is None else record.lockbox.public_key
