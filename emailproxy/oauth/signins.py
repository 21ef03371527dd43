"""Consents as logins and the command line begin them: bound to a password, one at a time, and where they arrive."""

from __future__ import annotations

from typing import Protocol

from emailproxy.config.model import Account, FirstLogin
from emailproxy.errors import AccountUnusable, ConsentRequired, WrongPassword
from emailproxy.oauth.clientsecret import has_credential
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.identity import expected
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.records import CLIENT_SECRET, client_secret_of
from emailproxy.oauth.waiting import Waiting
from emailproxy.secret import Secret
from emailproxy.store.base import Lockbox, Record, TokenStore
from emailproxy.store.sealing import AccountKey
from emailproxy.wire.events import LOCAL, Visit


class Listener(Protocol):
    """Takes the provider's redirects."""

    async def ensure(self, account: Account) -> None:
        """Listens where this account's redirects arrive, if nobody does."""


class SignIns:
    """Every method returns None where another process got in between: its caller looks again."""

    def __init__(self, records: TokenStore, consents: Consents, keyring: Keyring, *, listener: Listener | None) -> None:
        self._records = records
        self._consents = consents
        self._keyring = keyring
        self._listener = listener

    async def resume(self) -> None:
        """Listens where consents that wait may arrive."""
        if self._listener is not None:
            for account in await self._consents.accounts():
                await self._listener.ensure(account)

    async def is_begun(self, account: Account) -> bool:
        """Whether a consent of this account waits."""
        return await self._consents.of(account) is not None

    async def first(
        self, account: Account, password: Secret, visit: Visit, *, slot_name: str = "first"
    ) -> Waiting | None:
        """A consent bound to this password, of an account without a record.

        Raises:
            WrongPassword: one waits that was begun with another password, or no first password is set here.
        """
        pending = await self._consents.of(account)
        if pending is not None:
            try:
                key = await self._keyring.unlock(account, pending.lockbox, password, visit)
            except WrongPassword:
                raise WrongPassword(
                    f"a sign-in of {account.name} waits that was begun with another password; use that one, "
                    f"or run 'emailproxy authorize {account.name}' to start over"
                ) from None
            return await self._begun(account, None, pending.lockbox, key)
        if not may_set_first(account, visit):
            raise not_set_up(account)
        lockbox, key = await self._keyring.new_lockbox(account, password, visit.address, slot_name=slot_name)
        waiting = await self._begun(account, None, lockbox, key)
        if waiting is not None:
            self._keyring.remember(account, lockbox, password, key)
        return waiting

    async def again(
        self, account: Account, record: Record, key: AccountKey, *, displaces: bool = False
    ) -> Waiting | None:
        """A consent for an account whose record this key opens.

        Args:
            displaces: also one that waits and would replace the record.

        Raises:
            ConsentRequired: there is such a one.
        """
        return await self._begun(account, record, record.lockbox, key, displaces=displaces)

    async def replacing(
        self, account: Account, record: Record, password: Secret, *, slot_name: str, client_secret: Secret | None
    ) -> Waiting | None:
        """A consent that replaces the account's record, with this password as the only one.

        Args:
            client_secret: the record's, where it is known.

        Raises:
            AccountUnusable: the client secret would be lost with the passwords.
        """
        if client_secret is None and CLIENT_SECRET in record.sealed and not has_credential(account):
            raise AccountUnusable(
                f"the client_secret of {account.name} is sealed under the passwords that this replaces; "
                f"write client_secret into [{account.section}] again first"
            )
        lockbox, _key = await self._keyring.new_lockbox(account, password, slot_name=slot_name)
        await self._listen(account)
        async with self._records.locked(account.key) as now:
            if now is None or now.lockbox.public_key != record.lockbox.public_key:
                return None
            return await self._consents.begin(
                account,
                lockbox,
                generation=now.generation,
                client_secret=client_secret,
                replaces=now.lockbox.public_key,
            )

    async def start_over(self, account: Account) -> None:
        """Forgets the consent that would make an account's first record."""
        async with self._records.locked(account.key) as record:
            if record is None:
                await self._consents.discard(account.key)

    async def _begun(
        self, account: Account, seen: Record | None, lockbox: Lockbox, key: AccountKey, *, displaces: bool = False
    ) -> Waiting | None:
        """The account's consent, begun where none waits; None where `seen` is not the present record."""
        await self._listen(account)
        generation = 0 if seen is None else seen.generation
        async with self._records.locked(account.key) as record:
            if (record is None) != (seen is None) or (record is not None and record.generation != generation):
                return None
            pending = await self._consents.of(account)
            if pending is not None and pending.lockbox.public_key == lockbox.public_key:
                waiting = self._consents.resume(pending, key, generation=generation)
                if waiting is not None:
                    return waiting
            elif pending is not None and seen is None:
                return None  # another first login was faster: its password counts
            elif pending is not None and pending.replaces == lockbox.public_key and not displaces:
                raise ConsentRequired(
                    f"a sign-in of {expected(account)} waits that will replace the passwords of {account.name}; finish "
                    f"it and use the new password, or run 'emailproxy authorize {account.name}' to start over"
                )
            secret = None if seen is None else client_secret_of(seen, key)
            return await self._consents.begin(account, lockbox, generation=generation, client_secret=secret)

    async def _listen(self, account: Account) -> None:
        """Before anybody reads the URL in the log."""
        if self._listener is not None:
            await self._listener.ensure(account)


def may_set_first(account: Account, visit: Visit) -> bool:
    """Whether a first login's password becomes the account's first: who denies it wins, then the account decides."""
    if visit == LOCAL:
        return True  # the command line is what others are told to use
    if visit.may_set_first_password is False or account.first_login is FirstLogin.DENY:
        return False
    return visit.may_set_first_password is True or account.first_login is FirstLogin.TRUST


def not_set_up(account: Account) -> WrongPassword:
    return WrongPassword(
        f"{account.name} has no password here yet, and this port does not set the first one; "
        f"run 'emailproxy authorize {account.name}'"
    )
