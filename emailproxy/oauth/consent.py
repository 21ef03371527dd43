"""Consents: a person approves at the provider, and any process that shares the state folder completes it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

from emailproxy.config.model import HOURS, SECONDS, Account, FlowName
from emailproxy.errors import (
    AccountUnusable,
    ConsentRequired,
    LoginRefused,
    ProviderUnavailable,
    StateError,
)
from emailproxy.oauth.advice import no_refresh_token
from emailproxy.oauth.asked import Asked, Kept, Redirected, asked_by, protected
from emailproxy.oauth.authorization import authorization_url, short_link
from emailproxy.oauth.clientsecret import lent
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.device import Poller, last_word
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Consent, DeviceAuthorization, DeviceFlow, FlowOf, TokenSet
from emailproxy.oauth.happenings import Event, Happening, Notify, nobody
from emailproxy.oauth.identity import expected, is_owner, must_sign_in, somebody_else
from emailproxy.oauth.records import sealed, with_client_secret
from emailproxy.oauth.waiting import Waiting, Watches
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Lockbox, Pending, PendingStore, Record, TokenStore
from emailproxy.store.sealing import AccountKey

LIFE_S = 24 * HOURS
STATE_OCTETS = 32  # 256 bits
VERIFIER_OCTETS = 32  # RFC 7636 section 4.1 recommends 32, which are 43 characters
REPEAT_S = 60 * SECONDS  # the log repeats a URL that still waits so often at most
MAX_REMEMBERED = 4096  # accounts whose last log line, and consents whose person, is remembered
STATE_FIELD, STATE_GENERATION = "state", 0  # what `Pending.sealed_state` is sealed as

log = logging.getLogger("emailproxy.oauth")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """The consent that a `state` belongs to, decrypted."""

    pending: Pending
    account: Account
    """With the client secret that its record holds, where the configuration has none."""
    state: Secret
    kept: Kept

    @property
    def asked(self) -> Asked:
        return self.kept.asked

    @property
    def url(self) -> str:
        """The provider's page."""
        if isinstance(self.asked, Redirected):
            return self.asked.url
        return page_of(self.asked)


class Consents:
    """All consents of a state folder."""

    def __init__(
        self,
        pending: PendingStore,
        records: TokenStore,
        flows: FlowOf,
        resolve: Callable[[str], Account],
        *,
        notify: Notify = nobody,
        clock: Clock | None = None,
    ) -> None:
        self._pending = pending
        self._records = records
        self._flows = flows
        self._resolve = resolve
        self._notify = notify
        self._clock = clock or Clock()
        self._watches = Watches(self._is_complete)
        self._announced: OrderedDict[str, float] = OrderedDict()
        self._people: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._finishing: Flights[str | None] = Flights()
        self._poller = Poller(self._clock)

    # ---- starting

    async def of(self, account: Account) -> Pending | None:
        """The account's consent that waits, if any."""
        return await self._pending.by_account(account.key)

    async def begin(
        self,
        account: Account,
        lockbox: Lockbox,
        *,
        generation: int = 0,
        client_secret: Secret | None = None,
        replaces: bytes = b"",
    ) -> Waiting:
        """Starts a consent in place of any other of the account. The caller holds the account's lock.

        Args:
            lockbox: what the tokens will be sealed to, unless the account has a record by then.
            generation: of the account's record, 0 where there is none.
            client_secret: the record's, where it has one.
            replaces: the public key of the record that ends with this consent; empty: none does.

        Raises:
            LoginRefused: the provider gives no device code.
        """
        state = Secret(secrets.token_urlsafe(STATE_OCTETS))
        whole = lent(account, client_secret)
        kept = Kept(await self._ask(whole, state), None if whole is account else client_secret)
        pending = self._pending_of(account, lockbox, state, kept, replaces)
        await self._pending.put(pending)
        if isinstance(kept.asked, Redirected):
            log.info("Authorisation request received for %s (local server auth mode)", account.name)
        waiting = self._waiting(Found(pending, whole, state, kept), generation, again=False)
        self._notify(
            Happening(
                Event.CONSENT_REQUIRED,
                expected(account),
                reason=f"{must_sign_in(account)}: {waiting.what_to_do}",
                link=waiting.link,
                url=waiting.url,
                user_code=waiting.user_code,
                expires_at_s=waiting.expires_at_s,
            )
        )
        return waiting

    async def _ask(self, account: Account, state: Secret) -> Asked:
        if account.flow is FlowName.DEVICE:
            return await cast(DeviceFlow, self._flows(account)).begin(account)
        verifier = Secret(secrets.token_urlsafe(VERIFIER_OCTETS))
        return Redirected(verifier, account.redirect_uri, authorization_url(account, account.name, state, verifier))

    def _pending_of(self, account: Account, lockbox: Lockbox, state: Secret, kept: Kept, replaces: bytes) -> Pending:
        now_s = self._clock.now_s()
        device = kept.asked if isinstance(kept.asked, DeviceAuthorization) else None
        return Pending(
            state_hash=sealing.state_hash(state),
            account=account.key,
            display_name=account.name,
            created_s=now_s,
            expires_s=now_s + LIFE_S if device is None else min(now_s + LIFE_S, device.expires_at_s),
            lockbox=lockbox,
            sealed_state=sealing.seal(lockbox.public_key, account.key, STATE_FIELD, STATE_GENERATION, state),
            encrypted=protected(account, state, kept),
            device_url="" if device is None else page_of(device),
            user_code="" if device is None else device.user_code,
            replaces=replaces,
        )

    def resume(self, pending: Pending, key: AccountKey, *, generation: int = 0) -> Waiting | None:
        """The consent that waits already, for who has its key; None where the configuration has changed since.

        Any mailbox that the consent will serve may take it up; it goes on as the one that began it asked.
        """
        if pending.lockbox.public_key != key.public_key:
            return None
        try:
            state = key.open(pending.account, STATE_FIELD, STATE_GENERATION, pending.sealed_state)
            found = self._found(pending, state)
        except (LoginRefused, StateError):
            return None
        return self._waiting(found, generation, again=True)

    def _waiting(self, found: Found, generation: int, *, again: bool) -> Waiting:
        """Says in the log what the person has to do, and begins to ask the provider for an answer that comes there."""
        link, code = found.url, ""
        match found.asked:
            case Redirected(redirect_uri=redirect_uri):
                link = short_link(redirect_uri, found.state)
            case DeviceAuthorization() as device:
                link, code = device.verification_uri, device.user_code
                self._poller.follow(found.pending.state_hash, device.interval_s, lambda: self._poll(found, device))
        ends_s = found.pending.expires_s
        new_key = found.pending.lockbox.public_key if found.pending.replaces else b""
        waiting = Waiting(found.account, found.state, found.url, link, code, ends_s, generation, self, new_key)
        self._announce(waiting, again=again)
        return waiting

    async def accounts(self) -> list[Account]:
        """The accounts whose consent waits, as far as they are still configured."""
        found = []
        for pending in await self._pending.waiting():
            with suppress(LoginRefused):
                found.append(self._resolve(pending.display_name))
            await asyncio.sleep(0)  # there may be a thousand, and logins come first
        return found

    async def discard(self, name: str) -> None:
        """Forgets the consent of the account with this key."""
        await self._pending.discard(name)

    def _announce(self, waiting: Waiting, *, again: bool) -> None:
        now_s, name = self._clock.monotonic_s(), waiting.account.key
        said_at_s = self._announced.get(name)
        if again and said_at_s is not None and now_s - said_at_s < REPEAT_S:
            return
        remember(self._announced, name, now_s)
        whom = expected(waiting.account)
        log.warning("Please visit the following URL to authenticate account %s: %s", whom, waiting.url)
        if waiting.user_code:
            log.warning("Visit %s and use code %s to authenticate account %s", waiting.link, waiting.user_code, whom)

    # ---- completing

    async def find(self, state: Secret) -> Found | None:
        """The consent that this `state` belongs to; None where it is unknown, used or expired. Consumes nothing.

        Raises:
            UnknownAccount, AccountUnusable: the account is not configured any more, or otherwise.
        """
        pending = await self._pending.by_state(state.reveal())
        # Found by the hash, and compared by it: no timing tells anything of the state itself.
        if pending is None or not hmac.compare_digest(pending.state_hash, sealing.state_hash(state)):
            return None
        try:
            return self._found(pending, state)
        except StateError:
            return None

    def _found(self, pending: Pending, state: Secret) -> Found:
        account = self._resolve(pending.display_name)
        kept = asked_by(account, pending, state)
        if kept is None or account.key != pending.account:
            raise AccountUnusable(
                f"the configuration of {account.name} changed after this sign-in began; "
                "let the mail program log in again for a new link"
            )
        return Found(pending, lent(account, kept.client_secret), state, kept)

    async def finish(self, state: Secret, code: Secret) -> str | None:
        """Exchanges the code and stores the tokens. The account's name, or None where the state is not pending.

        Of any number of callers in any number of processes one gets to exchange, once; who asks and leaves
        (a browser that is closed) stops nothing.

        Raises:
            LoginRefused, StateError: no tokens, somebody else's, or not stored; the account's record is as it was,
                and its next login starts a new consent.
        """
        return await self._finishing.run(object(), lambda: self._finish(state, code))

    async def _finish(self, state: Secret, code: Secret) -> str | None:
        found = await self.find(state)
        if found is None or not isinstance(found.asked, Redirected):
            return None
        # The whole exchange under the lock: a login meanwhile waits for its tokens and starts no other consent.
        async with self._records.locked(found.account.key) as record:
            if await self._pending.claim(state.reveal()) is None or not is_for(found, record):
                return None
            try:
                consent = Consent(code, found.asked.verifier, found.asked.redirect_uri)
                tokens = await self._flows(found.account).acquire(found.account, consent)
                await self._keep(found, record, tokens)
            except (LoginRefused, StateError) as error:
                self._failed(found, error)
                raise
        return found.pending.display_name

    async def _poll(self, found: Found, device: DeviceAuthorization) -> None:
        """Asks once whether the person has entered the code, and stores the tokens if so.

        Under the lock: of two processes that poll the same code, one gets the tokens and stores them before the other
        asks, and that one finds nothing left to ask for. A refusal is final, then.

        Raises:
            ProviderUnavailable: not yet, or no sensible answer; the consent goes on waiting.
        """
        state = found.state.reveal()
        async with self._records.locked(found.account.key) as record:
            try:
                now = await self.find(found.state)  # its configuration may have changed, or be gone
                if now is None:
                    return
                if is_for(now, record):
                    tokens = await self._flows(now.account).acquire(now.account, device)
                    if await self._pending.claim(state) is not None:
                        await self._keep(now, record, tokens)
                else:
                    await self._pending.claim(state)
            except ProviderUnavailable:
                raise
            except (LoginRefused, StateError) as error:
                with suppress(StateError):
                    await self._pending.claim(state)
                self._failed(found, last_word(found.account, error))

    async def _keep(self, found: Found, record: Record | None, tokens: TokenSet) -> None:
        """Stores the tokens, if they are of whose sign-in serves the account.

        Raises:
            ConsentRequired: somebody else signed in.
            StateError: they cannot be stored.
        """
        account, lockbox = found.account, found.pending.lockbox
        if not is_owner(account, tokens.identities):
            raise somebody_else(account, tokens.identities)
        if tokens.refresh_token is None:
            log.warning("%s", no_refresh_token(account))
        replaced = record is not None and record.lockbox.public_key != lockbox.public_key
        generation = 0 if record is None else record.generation
        base = record
        if base is None or replaced:
            base = Record(found.pending.account, lockbox, generation)
            if found.kept.client_secret is not None:
                base = with_client_secret(base, found.kept.client_secret)
        await self._records.save(sealed(base, tokens, now_s=self._clock.now_s()))
        remember(self._people, found.pending.state_hash, tokens.identities)
        log.info("account %s is signed in%s", account.name, f" as {tokens.identities[0]}" if tokens.identities else "")
        if replaced:
            log.warning("the passwords that %s had here are gone; that of this sign-in is the only one", account.name)
        self._watches.wake(found.pending.state_hash)

    def _failed(self, found: Found, error: LoginRefused | StateError) -> None:
        log.warning("the sign-in of %s failed: %s", found.account.name, error)
        self._watches.wake(found.pending.state_hash, error)

    # ---- waiting

    async def wait(self, waiting: Waiting, timeout_s: float | None) -> bool:
        """As `Waiting.wait`."""
        return await self._watches.wait(waiting, timeout_s)

    def who(self, waiting: Waiting) -> tuple[str, ...]:
        """As `Waiting.who`."""
        return self._people.get(sealing.state_hash(waiting.state), ())

    async def _is_complete(self, waiting: Waiting) -> bool:
        """Whether the consent is used up and tokens came of it: a refresh alone leaves it waiting.

        Raises:
            ConsentRequired: it is used up, and none came.
        """
        if await self._pending.by_state(waiting.state.reveal()) is not None:
            return False
        name = expected(waiting.account)
        async with self._records.locked(waiting.account.key) as record:  # an exchange under way ends first
            new = record is not None and waiting.new_key in (b"", record.lockbox.public_key)
            if record is not None and new and record.generation > waiting.generation and not record.needs_sign_in:
                return True
        if self._clock.wall_s() >= waiting.expires_at_s:
            what = "code" if waiting.user_code else "link"
            raise ConsentRequired(f"nobody signed {name} in before the {what} ended; try again for a new {what}")
        raise ConsentRequired(f"the sign-in of {name} failed, or another one took its place; try again for a new link")

    async def close(self) -> None:
        """Lets exchanges under way reach the disk."""
        await self._poller.close()
        await self._finishing.close()


def page_of(device: DeviceAuthorization) -> str:
    """Where the person goes: with the code in it already, where the provider has such a page."""
    return device.verification_uri_complete or device.verification_uri


def is_for(found: Found, record: Record | None) -> bool:
    """Whether the account was not set up otherwise since: who began this may not know its password."""
    mine = found.pending
    return record is None or record.lockbox.public_key in (mine.lockbox.public_key, mine.replaces)


def remember(memory: OrderedDict[str, T], key: str, value: T) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
