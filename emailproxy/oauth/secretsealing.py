"""A client secret that the configuration holds in the clear is sealed into each account's record
(`encrypt_client_secret_on_first_use`): then it may be removed from the configuration."""

from __future__ import annotations

import logging

from emailproxy.config.model import Account
from emailproxy.errors import StateError
from emailproxy.oauth.flights import Flights
from emailproxy.oauth.holdings import Holdings
from emailproxy.oauth.records import with_client_secret
from emailproxy.secret import Secret
from emailproxy.store.base import TokenStore
from emailproxy.store.sealing import AccountKey

log = logging.getLogger("emailproxy.oauth")


class SecretSealing:
    """What happens at an accepted login."""

    def __init__(self, records: TokenStore, holdings: Holdings) -> None:
        self._records = records
        self._holdings = holdings
        self._sealing: Flights[None] = Flights()

    async def seal(self, account: Account) -> None:
        """Seals the client secret that the configuration holds itself, unless the record has it already.

        What cannot be written is in the log, and is tried again: the login goes on.
        """
        held, secret = self._holdings.get(account.key), account.client_secret
        if held is None or not isinstance(secret, Secret) or held.client_secret == secret:
            return
        key = held.key
        await self._sealing.run(account.key, lambda: self._seal(account, key, secret))

    async def _seal(self, account: Account, key: AccountKey, secret: Secret) -> None:
        try:
            async with self._records.locked(account.key) as record:
                if record is None or record.lockbox.public_key != key.public_key:
                    return
                held = self._holdings.adopt(account, key, record)
                held.record, held.client_secret = with_client_secret(held.record, secret), secret
                await self._holdings.save(held)
        except StateError as error:
            log.warning("the client_secret of %s was not sealed: %s", account.name, error)
            return
        if not held.unsaved:
            log.warning(
                "the client_secret of %s is sealed in the state folder now; once that was said of every account that "
                "uses it, the plaintext may be removed from the configuration",
                account.name,
            )

    async def close(self) -> None:
        await self._sealing.close()
