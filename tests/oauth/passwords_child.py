"""Another process that changes an account's passwords: ``python -m tests.oauth.passwords_child FOLDER VERB SLOT``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from emailproxy.oauth.clock import Clock
from emailproxy.oauth.keyring import Keyring
from emailproxy.oauth.passwords import NewSlot, Passwords
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.oauth.world import ADA, CHEAP, PASSWORD


async def run(folder: Path, verb: str, slot: str) -> None:
    records, pending = IniStore(folder), IniPendingStore(folder)
    keyring = Keyring(records, clock=Clock(), cost=CHEAP)
    passwords = Passwords(records, keyring, lambda _: None, discard=pending.discard)
    if verb == "add":
        print((await passwords.add(ADA, PASSWORD, NewSlot(slot)))[1].reveal())
    else:
        print(await passwords.remove(ADA, slot))
    await keyring.close()
    pending.close()
    records.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), *sys.argv[2:]))
