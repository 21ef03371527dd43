"""One login, from its password to tokens, or to the consent that must come first."""

from __future__ import annotations

from dataclasses import dataclass

from emailproxy.config.model import Account
from emailproxy.errors import AccountUnusable, PasswordNotPermitted, WrongPassword
from emailproxy.oauth.clientsecret import completed
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Approval, FlowOf, TokenSet
from emailproxy.oauth.holdings import Holdings
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.newcomers import Newcomers
from emailproxy.oauth.offers import Offers
from emailproxy.oauth.signins import SignIns, may_set_first, not_set_up
from emailproxy.oauth.takeover import Takeover
from emailproxy.oauth.waiting import Waiting
from emailproxy.oauth.wallet import Own, Refusal, Wallet
from emailproxy.secret import Secret
from emailproxy.store.base import Record, TokenStore
from emailproxy.store.sealing import AccountKey
from emailproxy.wire.events import Visit

RACES = 5  # how often another process may get in between before a login gives up


@dataclass(frozen=True, slots=True)
class Parts:
    """What a login needs of the broker."""

    records: TokenStore
    flows: FlowOf
    keyring: Keyring
    holdings: Holdings
    wallet: Wallet
    offers: Offers
    newcomers: Newcomers
    takeover: Takeover
    sign_ins: SignIns


class Logins:
    """All logins of a process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._under_way: Flights[TokenSet | Waiting] = Flights()

    def ready(self, account: Account, password: Secret, visit: Visit) -> TokenSet | None:
        """The warm way: no derivation, and of the file no more than whether it is the one that we know."""
        parts = self._parts
        held = parts.holdings.used(account)
        if held is None or not parts.holdings.is_ready(held):
            return None
        key = parts.keyring.find(account, held.record.lockbox, password, visit)
        return held.tokens if key is not None and parts.records.is_current(held.record) else None

    async def run(
        self, account: Account, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting:
        """One attempt for all logins that are alike, to whichever of the mailboxes that share a record: ten at once
        cost one derivation and one request."""
        alike = (
            account.key,
            password,
            may_set_first(account, visit),
            visit.protocol,
            visit.address,
            None if refusal is None else (refusal.token,),
        )
        return await self._under_way.run(alike, lambda: self._login(account, password, visit, refusal))

    async def _login(
        self, account: Account, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting:
        for _ in range(RACES):
            record = await self._parts.records.load(account.key)
            whole = completed(account, record)
            if record is None:
                outcome = await self._first(whole, password, visit, refusal)
            else:
                outcome = await self._known(whole, record, password, visit, refusal)
            if outcome is not None:
                return outcome
        raise busy(account)

    async def _known(
        self, account: Account, record: Record, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting | None:
        """A login of an account with a record; None where another process got in between."""
        parts = self._parts
        key = await self.unlocked(account, record, password, visit)
        if key is None:
            return await parts.newcomers.tokens(account, password, refusal, address=visit.address, record=record)
        parts.keyring.upgrade_if_behind(account, record, password, key)
        own = self.own(account, password, visit.address)
        tokens = await parts.wallet.current(account, key, record, refusal, own)
        if tokens is not None:
            return tokens
        held = parts.holdings.get(account.key)
        return await parts.sign_ins.again(account, record if held is None else held.record, key)

    async def _first(
        self, account: Account, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting | None:
        """A login of an account that has no slot yet, or none any more."""
        parts = self._parts
        parts.holdings.forget(account)
        if await self._taken_over(account, password, visit):
            return None  # look again: it has a record now
        if parts.flows(account).approval is Approval.PERSON:
            return await parts.sign_ins.first(account, password, visit)
        if not may_set_first(account, visit):
            raise not_set_up(account)
        return await parts.newcomers.tokens(account, password, refusal, address=visit.address)

    async def _taken_over(self, account: Account, password: Secret, visit: Visit) -> bool:
        """Whether what another proxy kept of the account has become its record.

        Raises:
            WrongPassword: the password does not open it; but where the mailbox's own password is wanted, its provider
                says whether it is wrong.
        """
        parts = self._parts
        if not parts.takeover.knows(account) or await parts.sign_ins.is_begun(account):
            return False
        own = parts.flows(account).approval is Approval.PASSWORD
        try:
            return await parts.takeover.claimed(account, password, visit, counts=not own)
        except WrongPassword:
            if not own:
                raise
            return False

    async def unlocked(self, account: Account, record: Record, password: Secret, visit: Visit) -> AccountKey | None:
        """The account's key; None where the password opens no slot, and its provider is to say whether it is right.

        Raises:
            WrongPassword, TooManyLogins, StateDamaged: as `Keyring.unlock` says.
        """
        own = self._parts.flows(account).approval is Approval.PASSWORD
        try:
            return await self._parts.keyring.unlock(account, record.lockbox, password, visit, counts=not own)
        except PasswordNotPermitted:
            raise  # one of ours: nobody else is to be asked about it
        except WrongPassword:
            if not own:
                raise
            return None

    def own(self, account: Account, password: Secret, address: str) -> Own | None:
        """How the mailbox's own password is offered to its provider; None where the grant is another one."""
        if self._parts.flows(account).approval is not Approval.PASSWORD:
            return None
        return lambda whole: self._parts.offers.acquire(whole, password, address)

    async def close(self) -> None:
        """At once: they would start more of what others let end."""
        await self._under_way.close(0)


def busy(account: Account) -> AccountUnusable:
    return AccountUnusable(f"several processes change the state of {account.name} at once; try again")
