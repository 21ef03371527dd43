"""The token broker: a login's password in, an access token out.

The way of one login: warm check; then throttle, then KDF; then the token from memory or the record, renewed under
the account's lock where it is near its end; or a consent, which the login waits for a while. What several logins
ask for at once is done once, and a client that leaves cancels nothing that others wait for. In a server, which calls
`start`, tokens of unlocked accounts are renewed ahead of their end, and logins wait for none that still works.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from emailproxy.config.model import Account
from emailproxy.errors import AccountUnusable, ConsentRequired, LoginRefused, StateError, WrongPassword, one_line
from emailproxy.oauth.advice import advise, without_action
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Approval, FlowOf, TokenSet
from emailproxy.oauth.happenings import Event, Happening, Notify, nobody
from emailproxy.oauth.holdings import Holdings
from emailproxy.oauth.keeper import KEEP_ALIVE_S, Keeper
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.newcomers import Newcomers
from emailproxy.oauth.offers import Offers
from emailproxy.oauth.waiting import Waiting
from emailproxy.oauth.wallet import Own, Refusal, Wallet
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Lockbox, Record, TokenStore
from emailproxy.store.sealing import AccountKey
from emailproxy.wire.events import Advice, Credential, Login, Visit

MAX_HANDED = 4096  # sessions whose token is remembered, for the case that the server refuses it
MAX_WHY = 400  # characters of ConsentRequired's text, reason included: with tag and code it fits into a reply of 512
MIN_WHY = 40  # characters; less than that says nothing
RACES = 5  # how often another process may get in between before a login gives up


class Listener(Protocol):
    """Takes the provider's redirects."""

    async def ensure(self, account: Account) -> None:
        """Listens where this account's redirects arrive, if nobody does."""


class TokenBroker:
    """Logins become credentials."""

    def __init__(
        self,
        resolve: Callable[[str], Account],
        records: TokenStore,
        consents: Consents,
        flows: FlowOf,
        *,
        listener: Listener | None = None,
        consent_wait_s: float = 20.0,
        refresh_margin_s: float = MARGIN_S,
        keep_alive_s: float = KEEP_ALIVE_S,
        notify: Notify = nobody,
        clock: Clock | None = None,
        cost: sealing.Cost = sealing.DEFAULT_COST,
    ) -> None:
        """`resolve` gives the account of a login name, or raises UnknownAccount or AccountUnusable."""
        clock = clock or Clock()
        self._resolve = resolve
        self._records = records
        self._consents = consents
        self._flows = flows
        self._listener = listener
        self._notify = notify
        self._consent_wait_s = consent_wait_s
        self._keyring = Keyring(records, clock=clock, cost=cost)
        self._offers = Offers(flows, self._keyring, clock=clock)
        self._holdings = Holdings(records, clock=clock, margin_s=refresh_margin_s)
        self._wallet = Wallet(records, flows, self._holdings, clock=clock, notify=notify)
        self._newcomers = Newcomers(
            records, flows, self._keyring, self._offers, self._holdings, self._wallet, clock=clock
        )
        self._keeper = Keeper(self._holdings, self._wallet, flows, resolve, clock=clock, keep_alive_s=keep_alive_s)
        self._logins: Flights[TokenSet | Waiting] = Flights()
        self._handed: OrderedDict[str, Secret] = OrderedDict()

    def start(self) -> None:
        """Renews the tokens of unlocked accounts ahead of their end from now on; for a server, once."""
        self._keeper.start()

    # ---- for mail sessions

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        """What to log in upstream with.

        Args:
            rejected: the mail server's refusal of what this session was given last; a fresh token is asked for.

        Raises:
            LoginRefused: one of its kinds; the text says what happened and what to do.
        """
        account = self._account(login)
        tokens = None if rejected is not None else self._ready(account, login.password)
        if tokens is None:
            try:
                tokens = await self._cold(account, login, visit, rejected)
            except StateError as error:
                raise AccountUnusable(str(error)) from error
        self._handed[visit.session] = tokens.access_token
        self._handed.move_to_end(visit.session)
        if len(self._handed) > MAX_HANDED:
            self._handed.popitem(last=False)
        return Credential(account.name, tokens.access_token)

    async def accepted(self, login: Login, visit: Visit) -> None:
        """The mail server took the login: what was only tried on may be kept.

        Raises:
            AccountUnusable: this was a first login, and its password cannot be stored.
        """
        self._handed.pop(visit.session, None)
        account = self._account(login)
        if not self._newcomers.is_draft(account, login.password, may_set_first=visit.may_set_first_password):
            return
        try:
            await self._newcomers.settle(account, login.password)
        except StateError as error:
            raise AccountUnusable(str(error)) from error

    def refused(self, login: Login, visit: Visit, error: LoginRefused) -> None:
        """A mail client was told that its login does not go ahead."""
        self._handed.pop(visit.session, None)
        self._notify(
            Happening(Event.LOGIN_FAILED, login.user, reason=str(error), protocol=visit.protocol, address=visit.address)
        )

    def advise(self, text: str) -> Advice | None:
        return advise(text)

    async def resume(self) -> None:
        """Listens where consents of an earlier run may arrive: a person may finish them before any login.

        Raises:
            StateError: the state folder cannot be used.
        """
        if self._listener is not None:
            for account in await self._consents.accounts():
                await self._listener.ensure(account)

    # ---- for the command line

    async def sign_in(self, name: str, password: Secret) -> Waiting | None:
        """Signs an account in with no mail client: a consent to visit, or None where no person is needed.

        The password becomes the account's first, or must be one that it has; where the grant is the mailbox's own
        password, it must be that. A consent that waits for the first password of an account is replaced, where it was
        started with another one.

        Raises:
            LoginRefused, StateError: as the text says.
        """
        account = self._account(Login(name, password))
        for _ in range(RACES):
            record = await self._records.load(account.key)
            if self._flows(account).approval is not Approval.PERSON:
                await self._without_person(account, record, password)
                return None
            waiting = await self._asked_for(account, record, password)
            if waiting is not None:
                return waiting
        raise busy(account)

    async def _without_person(self, account: Account, record: Record | None, password: Secret) -> None:
        key = None if record is None else await self._unlocked(account, record, password, "")
        if record is None or key is None:
            await self._newcomers.tokens(account, password, record=record)
            await self._newcomers.settle(account, password)
            record = await self._records.load(account.key)
            if record is None:
                raise busy(account)
            key = await self._keyring.unlock(account, record.lockbox, password)
        await self._wallet.current(account, key, record, None, self._own(account, password, ""))

    async def _asked_for(self, account: Account, record: Record | None, password: Secret) -> Waiting | None:
        if record is not None:
            key = await self._keyring.unlock(account, record.lockbox, password)
            return await self._consent(account, record, record.lockbox, key)
        try:
            return await self._first_consent(account, password, address="", may_set=True)
        except WrongPassword:
            async with self._records.locked(account.key) as now:
                if now is None:
                    await self._consents.discard(account)
            return None

    # ---- one login

    def _account(self, login: Login) -> Account:
        if not login.password:
            raise WrongPassword("no password was sent; set one in the mail program")
        return self._resolve(login.user)

    def _ready(self, account: Account, password: Secret) -> TokenSet | None:
        """The warm way: no derivation, and of the file no more than whether it is the one that we know."""
        held = self._holdings.used(account)
        if held is None or not self._holdings.is_ready(held):
            return None
        key = self._keyring.find(account, held.record.lockbox, password)
        return held.tokens if key is not None and self._records.is_current(held.record) else None

    async def _cold(self, account: Account, login: Login, visit: Visit, rejected: str | None) -> TokenSet:
        refusal = None if rejected is None else Refusal(self._handed.get(visit.session), rejected)
        outcome = await self._shared(account, login.password, visit, refusal)
        if isinstance(outcome, Waiting) and await outcome.wait(self._consent_wait_s):
            outcome = await self._shared(account, login.password, visit, None)
        if isinstance(outcome, TokenSet):
            return outcome
        raise ConsentRequired(self._please(account, outcome), link=outcome.link, url=outcome.url)

    def _please(self, account: Account, waiting: Waiting) -> str:
        """What a mail client is told: the link first, and why, as far as it fits into a reply."""
        text = f"{account.name} must be signed in: {waiting.what_to_do}, then try again"
        held = self._holdings.get(account.key)
        why = without_action(held.record.last_error) if held is not None and held.record.needs_sign_in else ""
        room = MAX_WHY - len(text) - len(" ()")
        return f"{text} ({one_line(why, room)})" if why and room >= MIN_WHY else text

    async def _shared(
        self, account: Account, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting:
        """One attempt for all logins that are alike: ten at once cost one derivation and one request."""
        alike = (
            account.key,
            password,
            visit.may_set_first_password,
            None if refusal is None else (refusal.token,),
        )
        return await self._logins.run(alike, lambda: self._login(account, password, visit, refusal))

    async def _login(
        self, account: Account, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting:
        for _ in range(RACES):
            record = await self._records.load(account.key)
            if record is None:
                outcome = await self._first(account, password, visit, refusal)
            else:
                outcome = await self._known(account, record, password, visit, refusal)
            if outcome is not None:
                return outcome
        raise busy(account)

    async def _known(
        self, account: Account, record: Record, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting | None:
        """A login of an account with a record; None where another process got in between."""
        key = await self._unlocked(account, record, password, visit.address)
        if key is None:
            return await self._newcomers.tokens(account, password, refusal, address=visit.address, record=record)
        self._keyring.upgrade_if_behind(account, record, password, key)
        own = self._own(account, password, visit.address)
        tokens = await self._wallet.current(account, key, record, refusal, own)
        if tokens is not None:
            return tokens
        held = self._holdings.get(account.key)
        return await self._consent(account, record if held is None else held.record, record.lockbox, key)

    async def _first(
        self, account: Account, password: Secret, visit: Visit, refusal: Refusal | None
    ) -> TokenSet | Waiting | None:
        """A login of an account that has no slot yet, or none any more."""
        self._holdings.forget(account)
        if self._flows(account).approval is Approval.PERSON:
            return await self._first_consent(
                account, password, address=visit.address, may_set=visit.may_set_first_password
            )
        if not visit.may_set_first_password:
            raise not_set_up(account)
        return await self._newcomers.tokens(account, password, refusal, address=visit.address)

    async def _unlocked(self, account: Account, record: Record, password: Secret, address: str) -> AccountKey | None:
        """The account's key; None where the password opens no slot, and its provider is to say whether it is right.

        Raises:
            WrongPassword, TooManyLogins, StateDamaged: as `Keyring.unlock` says.
        """
        own = self._flows(account).approval is Approval.PASSWORD
        try:
            return await self._keyring.unlock(account, record.lockbox, password, address, counts=not own)
        except WrongPassword:
            if not own:
                raise
            return None

    def _own(self, account: Account, password: Secret, address: str) -> Own | None:
        if self._flows(account).approval is not Approval.PASSWORD:
            return None
        return lambda: self._offers.acquire(account, password, address)

    # ---- consents

    async def _first_consent(
        self, account: Account, password: Secret, *, address: str, may_set: bool
    ) -> Waiting | None:
        """A consent bound to this password; None where another process got in between."""
        pending = await self._consents.of(account)
        if pending is not None:
            try:
                key = await self._keyring.unlock(account, pending.lockbox, password, address)
            except WrongPassword:
                raise WrongPassword(
                    f"a sign-in of {account.name} waits that was begun with another password; use that one, "
                    f"or run 'emailproxy authorize {account.name}' to start over"
                ) from None
            return await self._consent(account, None, pending.lockbox, key)
        if not may_set:
            raise not_set_up(account)
        lockbox, key = await self._keyring.new_lockbox(account, password, address)
        waiting = await self._consent(account, None, lockbox, key)
        if waiting is not None:
            self._keyring.remember(account, lockbox, password, key)
        return waiting

    async def _consent(
        self, account: Account, seen: Record | None, lockbox: Lockbox, key: AccountKey
    ) -> Waiting | None:
        """The account's consent, begun where none waits; None where `seen` is not the present record."""
        if self._listener is not None:
            await self._listener.ensure(account)  # before anybody reads the URL in the log
        generation = 0 if seen is None else seen.generation
        async with self._records.locked(account.key) as record:
            if (record is None) != (seen is None) or (record is not None and record.generation != generation):
                return None
            pending = await self._consents.of(account)
            if pending is not None and pending.lockbox.public_key == lockbox.public_key:
                waiting = self._consents.resume(account, pending, key, generation=generation)
                if waiting is not None:
                    return waiting
            elif pending is not None and seen is None:
                return None  # another first login was faster: its password counts
            return await self._consents.begin(account, lockbox, generation=generation)

    async def close(self) -> None:
        """Lets renewals and exchanges under way reach the disk, then ends. The listener and flows are the caller's."""
        await asyncio.gather(self._keeper.close(), self._logins.close(0))  # first: they would start more of the others
        parts = (self._wallet, self._newcomers, self._consents, self._keyring)
        await asyncio.gather(*(part.close() for part in parts))


def not_set_up(account: Account) -> WrongPassword:
    return WrongPassword(
        f"{account.name} has no password here yet, and this port does not set the first one; "
        f"run 'emailproxy authorize {account.name}'"
    )


def busy(account: Account) -> AccountUnusable:
    return AccountUnusable(f"several processes change the state of {account.name} at once; try again")
