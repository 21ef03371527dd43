"""What a lockbox may hold: figures, names and limits. What is read from a file is held against them first."""

from __future__ import annotations

import re
import unicodedata

from emailproxy.errors import PasswordsUnchanged, StateDamaged
from emailproxy.store.base import Lockbox, Slot
from emailproxy.store.limits import canonical
from emailproxy.store.sealing import KEY_OCTETS, NONCE_OCTETS, TAG_OCTETS

MIB_IN_KIB = 1024

# What a file may ask for: a forged cost must not take the machine down.
LANES = 1  # two derivations at once with more lanes hang for ever in cryptography 50
MIN_MEMORY_KIB = 8  # RFC 9106 section 3.1: at least 8 KiB a lane
MAX_MEMORY_KIB = 256 * MIB_IN_KIB
MAX_ITERATIONS = 16
MAX_SLOTS = 64  # one a device; each is tried with every password

SALT_OCTETS = 16  # RFC 9106 section 3.1: recommended for passwords
WRAPPED_OCTETS = NONCE_OCTETS + KEY_OCTETS + TAG_OCTETS

MAX_NAME = 64  # characters
NAME = re.compile(rf"(?! )[\w .,@+()'-]{{1,{MAX_NAME}}}(?<! )")


def check_lockbox(lockbox: Lockbox) -> None:
    """Holds a lockbox against the bounds; derives nothing.

    Raises:
        StateDamaged: the text names what is out of bounds.
    """
    kdf = lockbox.kdf
    for name, figure, least, most in (
        ("Argon2id memory_kib", kdf.memory_kib, MIN_MEMORY_KIB, MAX_MEMORY_KIB),
        ("Argon2id iterations", kdf.iterations, 1, MAX_ITERATIONS),
        ("Argon2id lanes", kdf.lanes, LANES, LANES),
        ("octets of salt", len(kdf.salt), SALT_OCTETS, SALT_OCTETS),
        ("octets of public_key", len(lockbox.public_key), KEY_OCTETS, KEY_OCTETS),
        ("key slots", len(lockbox.slots), 1, MAX_SLOTS),
        *(("octets of commitment", len(slot.commitment), KEY_OCTETS, KEY_OCTETS) for slot in lockbox.slots),
        *(("octets of wrapped key", len(slot.wrapped), WRAPPED_OCTETS, WRAPPED_OCTETS) for slot in lockbox.slots),
    ):
        if not least <= figure <= most:
            allowed = f"{least}" if least == most else f"{least} to {most}"
            raise StateDamaged(f"{figure} {name}, where {allowed} may be")
    if len({folded(slot.name) for slot in lockbox.slots}) < len(lockbox.slots):
        raise StateDamaged("two key slots have the same name")
    for slot in lockbox.slots:
        _check_slot(slot)


def _check_slot(slot: Slot) -> None:
    try:
        if slot_name(slot.name) == slot.name and canonical(slot.limits) == slot.limits:
            return
    except PasswordsUnchanged as error:
        raise StateDamaged(f"in a key slot, {error}") from None
    raise StateDamaged("a key slot's name or limits are not spelt as they are kept")


def slot_name(text: str) -> str:
    """A slot's name as it is kept.

    Raises:
        PasswordsUnchanged: it is none.
    """
    name = unicodedata.normalize("NFKC", text)
    if not NAME.fullmatch(name):
        raise PasswordsUnchanged(
            f"a password cannot be called {text[:MAX_NAME]!r}; use letters, digits, spaces and . , @ + ( ) ' - _, "
            f"at most {MAX_NAME}"
        )
    return name


def folded(name: str) -> str:
    """What names are compared by: that two differ only in case would help nobody."""
    return unicodedata.normalize("NFKC", name).casefold()
