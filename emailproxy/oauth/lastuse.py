"""When each key slot was last used: kept to the hour, and written beside the logins."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import replace

from emailproxy.config.model import HOURS
from emailproxy.errors import StateError
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flights import Flights
from emailproxy.store.base import Lockbox, Slot, TokenStore

EVERY_S = 1 * HOURS
MAX_NOTED = 16_384  # slots whose last note is remembered

log = logging.getLogger("emailproxy.oauth")


class LastUses:
    """The last uses that this process has seen. No login waits for them, and none fails because of them."""

    def __init__(self, records: TokenStore, *, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._noted: OrderedDict[str, int] = OrderedDict()
        """By the slots' ids, which no two accounts share: when each was last told of."""
        self._writing: Flights[None] = Flights()

    def note(self, account: str, slot: Slot) -> None:
        """The slot was used just now."""
        now_s = self._clock.now_s()
        known_s = self._noted.get(slot.id, slot.last_used_s)
        if known_s is not None and 0 <= now_s - known_s < EVERY_S:
            return
        self._noted[slot.id] = now_s
        self._noted.move_to_end(slot.id)
        if len(self._noted) > MAX_NOTED:
            self._noted.popitem(last=False)
        self._writing.start(slot.id, lambda: self._write(account, slot, now_s))

    async def _write(self, account: str, slot: Slot, now_s: int) -> None:
        try:
            async with self._records.locked(account) as record:
                if record is None or slot not in record.lockbox.slots:
                    return  # a first login's, whose consent is not given yet; or changed meanwhile
                lockbox = _used(record.lockbox, slot, now_s)
                if lockbox is not None:
                    await self._records.save(replace(record, lockbox=lockbox))
        except StateError as error:
            log.debug("the last use of the password %r of %s is not in its file: %s", slot.name, account, error)

    async def close(self) -> None:
        await self._writing.close()


def _used(lockbox: Lockbox, slot: Slot, now_s: int) -> Lockbox | None:
    """The lockbox with this last use; None where another process has noted one lately."""
    slots = []
    for other in lockbox.slots:
        if other == slot:
            if other.last_used_s is not None and 0 <= now_s - other.last_used_s < EVERY_S:
                return None
            other = replace(other, last_used_s=now_s)
        slots.append(other)
    return replace(lockbox, slots=tuple(slots))
