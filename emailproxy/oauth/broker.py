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
from dataclasses import dataclass
from typing import Self

from emailproxy.config.model import SECONDS, Account, Route, Settings
from emailproxy.errors import (
    AccountUnusable,
    ConsentRequired,
    LoginRefused,
    StateError,
    WrongPassword,
    one_line,
)
from emailproxy.oauth.advice import advise, without_action
from emailproxy.oauth.clientsecret import Lending, completed
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.flow import Approval, FlowOf, TokenSet
from emailproxy.oauth.happenings import Event, Happening, Notify, nobody
from emailproxy.oauth.holdings import Holdings
from emailproxy.oauth.identity import must_sign_in
from emailproxy.oauth.keeper import KEEP_ALIVE_S, Keeper
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.logins import RACES, Logins, Parts, busy
from emailproxy.oauth.newcomers import Newcomers
from emailproxy.oauth.offers import Offers
from emailproxy.oauth.passwords import Passwords
from emailproxy.oauth.secretsealing import SecretSealing
from emailproxy.oauth.signins import Listener, SignIns, may_set_first
from emailproxy.oauth.takeover import CachedOf, Takeover, nothing
from emailproxy.oauth.waiting import Waiting
from emailproxy.oauth.wallet import Refusal, Wallet
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Record, TokenStore
from emailproxy.store.limits import plain_address
from emailproxy.store.sealing import AccountKey
from emailproxy.wire.events import LOCAL, Advice, Credential, Login, Visit

MAX_HANDED = 4096  # sessions whose token is remembered, for the case that the server refuses it
MAX_WHY = 400  # characters of ConsentRequired's text, reason included: with tag and code it fits into a reply of 512
MIN_WHY = 40  # characters; less than that says nothing
CONSENT_WAIT_S = 20 * SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """What a broker at work can be told anew."""

    consent_wait_s: float = CONSENT_WAIT_S
    """How long a login waits for a person."""
    refresh_margin_s: float = MARGIN_S
    """How long before its end an access token is renewed."""
    keep_alive_s: float = KEEP_ALIVE_S
    """How long a refresh token may lie idle."""
    seal_client_secrets: bool = False
    """`encrypt_client_secret_on_first_use`."""
    login_password_is_client_secret: bool = False
    """`use_login_password_as_client_credentials_secret`."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            consent_wait_s=settings.consent_wait,
            refresh_margin_s=settings.refresh_margin,
            keep_alive_s=settings.keep_alive,
            seal_client_secrets=settings.encrypt_client_secret_on_first_use,
            login_password_is_client_secret=settings.use_login_password_as_client_credentials_secret,
        )


DEFAULTS = BrokerSettings()


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
        cached: CachedOf = nothing,
        settings: BrokerSettings = DEFAULTS,
        notify: Notify = nobody,
        clock: Clock | None = None,
        cost: slots.Cost = slots.DEFAULT_COST,
    ) -> None:
        """`resolve` gives the account of a login name, or raises UnknownAccount or AccountUnusable; it is asked again
        each time, as a reload may change what it says. `cached` is what another proxy kept of an account.
        """
        clock = clock or Clock()
        self._resolve = resolve
        self._records = records
        flows = self._flows = Lending(flows)
        self._consents = consents
        self._notify = notify
        self._keyring = Keyring(records, clock=clock, cost=cost)
        offers = Offers(flows, self._keyring, clock=clock)
        self._holdings = Holdings(records, clock=clock)
        self._wallet = Wallet(records, flows, self._holdings, clock=clock, notify=notify)
        self.passwords = Passwords(records, self._keyring, self._key_of, discard=consents.discard)
        self._newcomers = Newcomers(records, flows, self._keyring, offers, self._holdings, self._wallet, clock=clock)
        self._keeper = Keeper(self._holdings, self._wallet, flows, resolve, clock=clock)
        self._takeover = Takeover(records, self._keyring, cached, clock=clock)
        self._sign_ins = SignIns(records, consents, self._keyring, listener=listener)
        self._sealing = SecretSealing(records, self._holdings)
        self._logins = Logins(
            Parts(
                records, flows, self._keyring, self._holdings, self._wallet,
                offers, self._newcomers, self._takeover, self._sign_ins,
            )
        )  # fmt: skip
        self._handed: OrderedDict[str, Secret] = OrderedDict()
        self.configure(settings)

    def configure(self, settings: BrokerSettings) -> None:
        """The settings from now on, also of a broker at work; what `resolve` says of accounts counts anyway."""
        self._settings = settings
        self._flows.login_passwords = settings.login_password_is_client_secret
        self._holdings.renew_before(settings.refresh_margin_s)
        self._keeper.configure(keep_alive_s=settings.keep_alive_s)
        self._wallet.lulls.forget()

    def start(self) -> None:
        """Renews the tokens of unlocked accounts ahead of their end from now on; for a server, once."""
        self._keeper.start()

    # ---- for mail sessions

    def route(self, login: Login, visit: Visit) -> Route:
        """Where this login goes: its account's own server, if any, and how many of its sessions may stand at once.

        Raises:
            LoginRefused: it goes nowhere (UnknownAccount, AccountUnusable, WrongPassword).
        """
        account = self._admitted(login, visit)
        return Route(account.key, account.server_for(visit.protocol), account.max_connections)

    async def token(self, login: Login, visit: Visit, rejected: str | None = None) -> Credential:
        """What to log in upstream with.

        Args:
            rejected: the mail server's refusal of what this session was given last; a fresh token is asked for.

        Raises:
            LoginRefused: one of its kinds; the text says what happened and what to do.
        """
        credential = None if rejected is not None else self.at_once(login, visit)
        if credential is not None:
            return credential
        check_password(login)
        account = self._admitted(login, visit)
        self._keyring.check(account, login.password, visit)
        try:
            tokens = await self._cold(account, login, visit, rejected)
        except StateError as error:
            raise AccountUnusable(str(error)) from error
        return self._hand_out(tokens, account, visit)

    def at_once(self, login: Login, visit: Visit) -> Credential | None:
        """What `token` says where nothing has to be waited for: the account is unlocked, and its token at hand.

        Raises:
            LoginRefused: no password was sent, or the account takes none from there.
        """
        check_password(login)
        account = self._admitted(login, visit)
        tokens = self._logins.ready(account, login.password, visit)
        return None if tokens is None else self._hand_out(tokens, account, visit)

    def _hand_out(self, tokens: TokenSet, account: Account, visit: Visit) -> Credential:
        self._handed[visit.session] = tokens.access_token
        self._handed.move_to_end(visit.session)
        if len(self._handed) > MAX_HANDED:
            self._handed.popitem(last=False)
        return Credential(sasl_user(account, visit.protocol), tokens.access_token)

    def is_settled(self, login: Login, visit: Visit) -> bool:
        """The mail server took the login: whether there is nothing to keep, as nothing was only tried on."""
        self._handed.pop(visit.session, None)
        try:
            account = self._resolve(login.user)
        except LoginRefused:  # it is not configured any more
            return True
        return not (self._settings.seal_client_secrets or self._is_draft(account, login, visit))

    async def accepted(self, login: Login, visit: Visit) -> None:
        """The mail server took the login: what was only tried on is kept.

        Raises:
            AccountUnusable: this was a first login, and its password cannot be stored.
        """
        self._handed.pop(visit.session, None)
        account = self._resolve(login.user)
        if self._is_draft(account, login, visit):
            try:
                await self._newcomers.settle(account, login.password)
            except StateError as error:
                raise AccountUnusable(str(error)) from error
        if self._settings.seal_client_secrets:
            await self._sealing.seal(account)

    def _is_draft(self, account: Account, login: Login, visit: Visit) -> bool:
        return self._newcomers.is_draft(account, login.password, may_set_first=may_set_first(account, visit))

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
        await self._sign_ins.resume()

    # ---- for the command line

    async def sign_in(
        self, name: str, password: Secret, *, replace: bool = False, slot_name: str = slots.FIRST
    ) -> Waiting | None:
        """Signs an account in with no mail client: a consent to visit, or None where no person is needed.

        The password becomes the account's first, or must be one that it has; where the grant is the mailbox's own
        password, it must be that. A consent that waits for the first password of an account is replaced, where it was
        started with another one.

        Args:
            replace: the password becomes the account's only one, once its owner has signed in; until then nothing
                changes. This is how an account is unlocked whose passwords are forgotten.
            slot_name: what the password is called, where it is new.

        Raises:
            LoginRefused, StateError: as the text says.
        """
        check_password(Login(name, password))
        configured = self._resolve(name)
        for _ in range(RACES):
            record = await self._records.load(configured.key)
            account = completed(configured, record)
            if record is None and not replace and await self._taken_over(account, password):
                continue
            approval = self._flows(account).approval
            if approval is not Approval.PERSON:
                if replace and approval is Approval.NONE and record is not None:
                    raise needs_nobody(account)
                await self._without_person(account, record, password, replace=replace)
                return None
            if replace and record is not None:
                waiting = await self._replaced(account, record, password, slot_name)
            else:
                waiting = await self._asked_for(account, record, password, slot_name)
            if waiting is not None:
                return waiting
        raise busy(configured)

    async def _replaced(self, account: Account, record: Record, password: Secret, slot_name: str) -> Waiting | None:
        held = self._holdings.get(account.key)
        secret = None if held is None else held.client_secret
        return await self._sign_ins.replacing(account, record, password, slot_name=slot_name, client_secret=secret)

    async def _without_person(
        self, account: Account, record: Record | None, password: Secret, *, replace: bool
    ) -> None:
        key = None if record is None or replace else await self._logins.unlocked(account, record, password, LOCAL)
        if record is None or key is None:
            await self._newcomers.tokens(account, password, record=record)
            await self._newcomers.settle(account, password)
            record = await self._records.load(account.key)
            if record is None:
                raise busy(account)
            key = await self._keyring.unlock(account, record.lockbox, password)
        await self._wallet.current(account, key, record, None, self._logins.own(account, password, ""))

    async def _asked_for(
        self, account: Account, record: Record | None, password: Secret, slot_name: str
    ) -> Waiting | None:
        if record is not None:
            key = await self._keyring.unlock(account, record.lockbox, password)
            return await self._sign_ins.again(account, record, key, displaces=True)
        try:
            return await self._sign_ins.first(account, password, LOCAL, slot_name=slot_name)
        except WrongPassword:
            await self._sign_ins.start_over(account)
            return None

    async def _taken_over(self, account: Account, password: Secret) -> bool:
        """Whether what another proxy kept has become the account's record; who has another password starts over."""
        try:
            return await self._takeover.claimed(account, password)
        except WrongPassword:
            return False

    # ---- for the control socket

    def is_unlocked(self, key: str) -> bool:
        """Whether this process holds the account's key since a login."""
        return self._holdings.get(key) is not None

    @property
    def unlocked(self) -> frozenset[str]:
        """The keys of the accounts that this process holds the key of."""
        return frozenset(held.account.key for held in self._holdings)

    @property
    def unsaved(self) -> frozenset[str]:
        """The keys of the accounts whose newest tokens are in memory only, as their file cannot be written."""
        return frozenset(held.account.key for held in self._holdings if held.unsaved)

    def forget(self, key: str) -> None:
        """Drops the account's key and tokens: its state was removed. The next login starts from its file."""
        self._wallet.lulls.forget(key)
        held = self._holdings.get(key)
        if held is not None:
            self._holdings.forget(held.account)

    # ---- one login

    def _admitted(self, login: Login, visit: Visit) -> Account:
        """The account, where it takes logins from there. Nothing was derived yet, and nothing is counted."""
        account = self._resolve(login.user)
        if account.allow_from and visit != LOCAL:
            peer = plain_address(visit.address)
            if peer is None or not any(peer in network for network in account.allow_from):
                raise WrongPassword(f"logins of {account.name} are not allowed from {visit.address} (allow_from)")
        return account

    async def _cold(self, account: Account, login: Login, visit: Visit, rejected: str | None) -> TokenSet:
        refusal = None if rejected is None else Refusal(self._handed.get(visit.session), rejected)
        outcome = await self._logins.run(account, login.password, visit, refusal)
        if isinstance(outcome, Waiting) and await outcome.wait(self._settings.consent_wait_s):
            outcome = await self._logins.run(account, login.password, visit, None)
        if isinstance(outcome, TokenSet):
            return outcome
        raise ConsentRequired(self._please(account, outcome), link=outcome.link, url=outcome.url)

    def _please(self, account: Account, waiting: Waiting) -> str:
        """What a mail client is told: the link first, and why, as far as it fits into a reply."""
        text = f"{must_sign_in(account)}: {waiting.what_to_do}, then try again"
        held = self._holdings.get(account.key)
        why = without_action(held.record.last_error) if held is not None and held.record.needs_sign_in else ""
        room = MAX_WHY - len(text) - len(" ()")
        return f"{text} ({one_line(why, room)})" if why and room >= MIN_WHY else text

    def _key_of(self, name: str) -> AccountKey | None:
        held = self._holdings.get(name)
        return None if held is None else held.key

    async def close(self) -> None:
        """Lets renewals and exchanges under way reach the disk, then ends. The listener and flows are the caller's."""
        await asyncio.gather(self._keeper.close(), self._logins.close())  # first: they would start more of the others
        parts = (self._wallet, self._newcomers, self._sealing, self._consents, self._keyring)
        await asyncio.gather(*(part.close() for part in parts))


def check_password(login: Login) -> None:
    if not login.password:
        raise WrongPassword("no password was sent; set one in the mail program")


def sasl_user(account: Account, protocol: str) -> str:
    """As whom to log in upstream: a shared mailbox is named, though the token is its owner's."""
    own = account.smtp_auth_as if protocol == "SMTP" else None
    return own or account.auth_as or account.name


def needs_nobody(account: Account) -> AccountUnusable:
    return AccountUnusable(
        f"nobody signs in for {account.name}, so that no sign-in can replace its passwords: change one with one that "
        f"it has, or run 'emailproxy accounts remove {account.key}' and log in anew"
    )
