"""Consents: a person approves at the provider, and any process that shares the state folder completes it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from oauthlib.oauth2 import WebApplicationClient

from emailproxy.config.model import HOURS, SECONDS, Account, FlowName
from emailproxy.errors import AccountUnusable, ConsentRequired, LoginRefused, StateError
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.flow import Consent, Flow, TokenSet
from emailproxy.oauth.records import sealed
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Lockbox, Pending, PendingStore, Record, TokenStore
from emailproxy.store.sealing import AccountKey

LIFE_S = 24 * HOURS
STATE_OCTETS = 32  # 256 bits
VERIFIER_OCTETS = 32  # RFC 7636 section 4.1 recommends 32, which are 43 characters
POLL_S = 0.5 * SECONDS  # how soon a login notices that another process completed its consent
REPEAT_S = 60 * SECONDS  # the log repeats a URL that still waits so often at most
MAX_ANNOUNCED = 4096  # accounts whose last log line is remembered
STATE_FIELD, STATE_GENERATION = "state", 0  # what `Pending.sealed_state` is sealed as
LABEL = "consent"  # what `Pending.encrypted` is protected as

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A consent that waits for a person."""

    account: Account
    state: Secret
    url: str = field(repr=False)
    """The provider's page."""
    link: str = field(repr=False)
    """The short link to it, under the account's `redirect_uri`."""
    generation: int
    """Of the account's record when this was looked at: a later one without a fault means that it is complete."""
    _consents: Consents = field(repr=False, compare=False)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was completed, by whichever process, before `timeout_s` seconds passed.

        Raises:
            LoginRefused: no tokens will come of it: they were refused, or another consent took its place.
            StateError: the state folder cannot be used.
        """
        return await self._consents.wait(self, timeout_s)


@dataclass(frozen=True, slots=True)
class Found:
    """The consent that a `state` belongs to, decrypted."""

    pending: Pending
    account: Account
    verifier: Secret
    redirect_uri: str
    url: str = field(repr=False)


@dataclass(slots=True)
class Watch:
    """Those in this process who wait for one consent."""

    done: asyncio.Future[None]
    waiting: Waiting
    waiters: int = 0
    poll: asyncio.Task[None] | None = None

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # all may have left meanwhile: that is no "exception was never retrieved"


class Consents:
    """All consents of a state folder."""

    def __init__(
        self,
        pending: PendingStore,
        records: TokenStore,
        flows: Mapping[FlowName, Flow],
        resolve: Callable[[str], Account],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._pending = pending
        self._records = records
        self._flows = flows
        self._resolve = resolve
        self._clock = clock or Clock()
        self._watches: dict[str, Watch] = {}
        self._announced: OrderedDict[str, float] = OrderedDict()
        self._finishing: Flights[str | None] = Flights()

    # ---- starting

    async def of(self, account: Account) -> Pending | None:
        """The account's consent that waits, if any."""
        return await self._pending.by_account(account.key)

    async def begin(self, account: Account, lockbox: Lockbox, *, generation: int = 0) -> Waiting:
        """Starts a consent in place of any other of the account. The caller holds the account's lock.

        Args:
            lockbox: what the tokens will be sealed to, unless the account has a record by then.
            generation: of the account's record, 0 where there is none.
        """
        state = Secret(secrets.token_urlsafe(STATE_OCTETS))
        verifier = Secret(secrets.token_urlsafe(VERIFIER_OCTETS))
        url = authorization_url(account, account.name, state, verifier)
        details = {"verifier": verifier.reveal(), "redirect_uri": account.redirect_uri, "url": url}
        now_s = self._clock.now_s()
        await self._pending.put(
            Pending(
                state_hash=sealing.state_hash(state),
                account=account.key,
                display_name=account.name,
                created_s=now_s,
                expires_s=now_s + LIFE_S,
                lockbox=lockbox,
                sealed_state=sealing.seal(lockbox.public_key, account.key, STATE_FIELD, STATE_GENERATION, state),
                encrypted=sealing.protect(state, LABEL, json.dumps(details).encode()),
            )
        )
        waiting = Waiting(account, state, url, short_link(account.redirect_uri, state), generation, self)
        self._announce(waiting, again=False)
        return waiting

    def resume(self, account: Account, pending: Pending, key: AccountKey, *, generation: int = 0) -> Waiting | None:
        """The consent that waits already, for who has its key; None where the configuration has changed since."""
        if pending.lockbox.public_key != key.public_key:
            return None
        try:
            state = key.open(account.key, STATE_FIELD, STATE_GENERATION, pending.sealed_state)
            found = decrypted(account, pending, state)
        except StateError:
            return None
        if found is None:
            return None
        waiting = Waiting(account, state, found.url, short_link(found.redirect_uri, state), generation, self)
        self._announce(waiting, again=True)
        return waiting

    async def accounts(self) -> list[Account]:
        """The accounts whose consent waits, as far as they are still configured."""
        found = []
        for pending in await self._pending.waiting():
            with suppress(LoginRefused):
                found.append(self._resolve(pending.display_name))
        return found

    async def discard(self, account: Account) -> None:
        await self._pending.discard(account.key)

    def _announce(self, waiting: Waiting, *, again: bool) -> None:
        now_s, name = self._clock.monotonic_s(), waiting.account.key
        said_at_s = self._announced.get(name)
        if again and said_at_s is not None and now_s - said_at_s < REPEAT_S:
            return
        self._announced[name] = now_s
        self._announced.move_to_end(name)
        if len(self._announced) > MAX_ANNOUNCED:
            self._announced.popitem(last=False)
        log.warning("Please visit the following URL to authenticate account %s: %s", waiting.account.name, waiting.url)

    # ---- completing

    async def find(self, state: Secret) -> Found | None:
        """The consent that this `state` belongs to; None where it is unknown, used or expired. Consumes nothing.

        Raises:
            UnknownAccount, AccountUnusable: the account is not configured any more, or otherwise.
        """
        pending = await self._pending.by_state(state.reveal())
        if pending is None:
            return None
        account = self._resolve(pending.display_name)
        try:
            found = decrypted(account, pending, state)
        except StateError:
            return None
        if found is None:
            raise AccountUnusable(
                f"the configuration of {account.name} changed after this sign-in began; "
                "let the mail program log in again for a new link"
            )
        return found

    async def finish(self, state: Secret, code: Secret) -> str | None:
        """Exchanges the code and stores the tokens. The account's name, or None where the state is not pending.

        Of any number of callers in any number of processes one gets to exchange, once; who asks and leaves
        (a browser that is closed) stops nothing.

        Raises:
            LoginRefused, StateError: no tokens, or not stored; the account's record is as it was, and its next
                login starts a new consent.
        """
        return await self._finishing.run(object(), lambda: self._finish(state, code))

    async def _finish(self, state: Secret, code: Secret) -> str | None:
        found = await self.find(state)
        if found is None:
            return None
        account = found.account
        # The whole exchange under the lock: a login meanwhile waits for its tokens and starts no other consent.
        async with self._records.locked(account.key) as record:
            if await self._pending.claim(state.reveal()) is None:
                return None
            if record is not None and record.lockbox.public_key != found.pending.lockbox.public_key:
                return None  # the account was set up otherwise: who began this may not know its password
            try:
                flow = self._flows[account.flow]
                consent = Consent(code, found.verifier, found.redirect_uri)
                await self._keep(found.pending, record, await flow.acquire(account, consent))
            except (LoginRefused, StateError) as error:
                log.warning("the sign-in of %s failed: %s", account.name, error)
                self._wake(found.pending.state_hash, error)
                raise
        log.info("account %s is signed in", account.name)
        self._wake(found.pending.state_hash)
        return found.pending.display_name

    async def _keep(self, pending: Pending, record: Record | None, tokens: TokenSet) -> None:
        if tokens.refresh_token is None:
            log.warning(
                "the provider gave %s no refresh token: its owner must sign in again when the access token ends; "
                "add offline_access to oauth2_scope, if the provider knows it",
                pending.display_name,
            )
        base = record or Record(account=pending.account, lockbox=pending.lockbox)
        await self._records.save(sealed(base, tokens, now_s=self._clock.now_s()))

    # ---- waiting

    async def wait(self, waiting: Waiting, timeout_s: float | None) -> bool:
        """As `Waiting.wait`."""
        name = sealing.state_hash(waiting.state)
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(asyncio.get_running_loop().create_future(), waiting)
            watch.poll = asyncio.create_task(self._poll(watch))
        watch.waiters += 1
        try:
            await asyncio.wait({watch.done}, timeout=timeout_s)
            if watch.done.done():
                watch.done.result()
                return True
            return await self._is_complete(waiting)
        finally:
            watch.waiters -= 1
            if watch.waiters == 0:
                if self._watches.get(name) is watch:
                    del self._watches[name]
                watch.poll.cancel() if watch.poll else None

    async def _poll(self, watch: Watch) -> None:
        while not watch.done.done():
            try:
                if await self._is_complete(watch.waiting):
                    watch.end()
            except (ConsentRequired, StateError) as error:
                watch.end(error)
            await asyncio.wait({watch.done}, timeout=POLL_S)

    async def _is_complete(self, waiting: Waiting) -> bool:
        """Whether the consent is used up and tokens came of it: a refresh alone leaves it waiting.

        Raises:
            ConsentRequired: it is used up, and none came.
        """
        if await self._pending.by_state(waiting.state.reveal()) is not None:
            return False
        async with self._records.locked(waiting.account.key) as record:  # an exchange under way ends first
            if record is not None and record.generation > waiting.generation and not record.needs_sign_in:
                return True
        raise ConsentRequired(
            f"the sign-in of {waiting.account.name} failed, or another one took its place; try again for a new link"
        )

    def _wake(self, state_hash: str, error: Exception | None = None) -> None:
        watch = self._watches.get(state_hash)
        if watch is not None:
            watch.end(error)

    async def close(self) -> None:
        """Lets exchanges under way reach the disk."""
        await self._finishing.close()


def decrypted(account: Account, pending: Pending, state: Secret) -> Found | None:
    """What the consent holds; None where the account's configuration would ask something else now.

    Raises:
        StateDamaged: it does not open with this state.
    """
    details = json.loads(sealing.reveal(state, LABEL, pending.encrypted))
    verifier = Secret(details["verifier"])
    if authorization_url(account, pending.display_name, state, verifier) != details["url"]:
        return None
    return Found(pending, account, verifier, details["redirect_uri"], details["url"])


def authorization_url(account: Account, name: str, state: Secret, verifier: Secret) -> str:
    """The provider's page for this account (RFC 6749 section 4.1.1, RFC 7636 section 4.3)."""
    if account.permission_url is None:
        raise AccountUnusable(f"account {account.name} has no permission_url; add it to [{account.section}]")
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.reveal().encode("ascii")).digest()).rstrip(b"=")
    scheme, rest = account.permission_url.split(":", 1)
    # oauthlib takes https only; that plain http is for loopback hosts, the configuration has made sure of.
    url: str = WebApplicationClient(account.client_id).prepare_request_uri(
        f"https:{rest}",
        redirect_uri=account.redirect_uri,
        scope=account.scope,
        state=state.reveal(),
        code_challenge=challenge.decode("ascii"),
        code_challenge_method="S256",
        access_type="offline",
        login_hint=name if "@" in name else None,
    )
    return scheme + url.removeprefix("https")


def short_link(redirect_uri: str, state: Secret) -> str:
    """``http://HOST/PATH/c/STATE``: short enough for an error reply of 512 octets."""
    uri = urlsplit(redirect_uri)
    path = f"{uri.path.rstrip('/')}/c/{state.reveal()}"
    return urlunsplit((uri.scheme, uri.netloc, path, "", ""))
