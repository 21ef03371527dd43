"""Key slots: an account's private key, wrapped once per local password.

A slot's key comes from its password: through Argon2id (RFC 9106) with the account's salt and cost, once for all slots,
or, for passwords generated here, through HKDF (RFC 5869) with the slot's id alone, which takes microseconds. What
derives with Argon2id (`new_lockbox`, `unlock`, `add_slot`, `change_slot`, `upgrade`) blocks for about 0.2 s: call it
in a thread.

The key's encryption (AES-256-GCM) authenticates the slot's limits with it: widened in the file, it does not open.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
from dataclasses import replace
from typing import NamedTuple

from emailproxy.errors import PasswordsUnchanged, StateDamaged, WrongPassword
from emailproxy.secret import Secret
from emailproxy.store.base import NO_LIMITS, Kdf, Limits, Lockbox, Slot, SlotKdf
from emailproxy.store.bounds import (
    LANES,
    MAX_NAME,
    MAX_SLOTS,
    MIB_IN_KIB,
    SALT_OCTETS,
    check_lockbox,
    folded,
    slot_name,
)
from emailproxy.store.limits import canonical
from emailproxy.store.sealing import (
    KEY_OCTETS,
    AccountKey,
    again,
    context,
    gcm_decrypt,
    hkdf,
    octets,
)


class Cost(NamedTuple):
    """What one Argon2id derivation costs (RFC 9106)."""

    memory_kib: int
    iterations: int


DEFAULT_COST = Cost(memory_kib=64 * MIB_IN_KIB, iterations=3)  # RFC 9106 section 4, the memory-constrained choice
SLOT_ID_OCTETS = 16

FIRST = "first"  # what the slot of an account's first password is called

GROUPS, GROUP_LETTERS = 4, 7  # 28 letters of 26: 131 bits, in 31 characters: some devices take no more than 32
GENERATED = re.compile(rf"[a-z]{{{GROUP_LETTERS}}}(-[a-z]{{{GROUP_LETTERS}}}){{{GROUPS - 1}}}")


def generate_password() -> Secret:
    """A password that nobody guesses and everybody can type: ``jqhwxzb-...``, letters that every keyboard has."""
    groups = ("".join(secrets.choice(string.ascii_lowercase) for _ in range(GROUP_LETTERS)) for _ in range(GROUPS))
    return Secret("-".join(groups))


def looks_generated(password: Secret) -> bool:
    """Whether it may be one of `generate_password`; people may choose such, too."""
    return GENERATED.fullmatch(password.reveal()) is not None


# ---- lockboxes


def new_lockbox(
    account: str, password: Secret, *, name: str = FIRST, now_s: int, cost: Cost = DEFAULT_COST
) -> tuple[Lockbox, AccountKey]:
    """A new key pair, its private key wrapped under the password. Blocks for one derivation.

    Raises:
        WrongPassword: the password is empty.
        PasswordsUnchanged: the slot cannot be called so.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = AccountKey(X25519PrivateKey.generate())
    empty = Lockbox(key.public_key, _new_kdf(cost), ())
    return add_slot(empty, account, key, password, name=name, now_s=now_s, cost=cost)[0], key


def unlock(lockbox: Lockbox, account: str, password: Secret) -> tuple[AccountKey, Slot]:
    """The account's private key and the slot that the password opens. Blocks for one derivation at most.

    Raises:
        WrongPassword: the password opens no slot.
        StateDamaged: the figures are out of bounds (nothing is derived then), the slot's limits were changed, or it
            does not hold the private key of the lockbox's public key.
    """
    opened = open_generated(lockbox, account, password)
    if opened is not None:
        return opened
    found = None
    if stretched_slots(lockbox):
        found = _match(lockbox, account, password, SlotKdf.ARGON2ID, _stretch(lockbox.kdf, account, password))
    if found is None:
        raise wrong_password(account)
    return _unwrap(lockbox, account, *found), found[0]


def open_generated(lockbox: Lockbox, account: str, password: Secret) -> tuple[AccountKey, Slot] | None:
    """The same for a password that was generated here, in microseconds; None for any other.

    Raises:
        StateDamaged: as for `unlock`.
    """
    _check(lockbox, account)
    if not looks_generated(password):
        return None
    found = _match(lockbox, account, password, SlotKdf.HKDF)
    return None if found is None else (_unwrap(lockbox, account, *found), found[0])


def wrong_password(account: str) -> WrongPassword:
    return WrongPassword(
        f"the password is not the one that {account} was set up with here; use one of its passwords "
        f"('emailproxy accounts passwords {account}' names them), or run "
        f"'emailproxy accounts add-password {account} --name NAME'"
    )


def needs_upgrade(lockbox: Lockbox, slot: Slot, cost: Cost = DEFAULT_COST) -> bool:
    """Whether the stored cost falls behind and can be raised with this slot's password.

    Salt and cost are the account's, so where several slots use them the others' passwords would be needed, too.
    """
    kdf = lockbox.kdf
    behind = kdf.memory_kib < cost.memory_kib or kdf.iterations < cost.iterations
    return behind and [other.id for other in stretched_slots(lockbox)] == [slot.id]


def upgrade(lockbox: Lockbox, account: str, key: AccountKey, password: Secret, *, cost: Cost = DEFAULT_COST) -> Lockbox:
    """The same key pair and password at today's cost, for a lockbox that `needs_upgrade`. Blocks for one derivation.

    The slot keeps all but its id; those of generated passwords stay as they are, as they do not use the account's salt.
    """
    (old,) = stretched_slots(lockbox)
    lockbox = replace(lockbox, kdf=_new_kdf(cost))
    return _with(lockbox, old, _wrapped(account, key, password, old, _stretch(lockbox.kdf, account, password)))


# ---- slots


def add_slot(
    lockbox: Lockbox,
    account: str,
    key: AccountKey,
    password: Secret,
    *,
    name: str,
    limits: Limits = NO_LIMITS,
    now_s: int,
    kdf: SlotKdf = SlotKdf.ARGON2ID,
    cost: Cost = DEFAULT_COST,
) -> tuple[Lockbox, Slot]:
    """A further slot for the same key. Blocks for one derivation, unless `kdf` says that the password was generated.

    Raises:
        PasswordsUnchanged: as for `check_new`, or another slot has this password.
        WrongPassword: the password is empty.
    """
    check_new(lockbox, account, name, limits, now_s=now_s)
    wish = Slot("", slot_name(name), now_s, b"", b"", kdf, canonical(limits))
    return _put(lockbox, account, key, password, wish, None, cost)


def change_slot(
    lockbox: Lockbox,
    account: str,
    key: AccountKey,
    slot: Slot,
    password: Secret,
    *,
    now_s: int,
    kdf: SlotKdf = SlotKdf.ARGON2ID,
    cost: Cost = DEFAULT_COST,
) -> tuple[Lockbox, Slot]:
    """Another password for a slot, which keeps its name and limits; its id is a new one. Blocks as `add_slot` does.

    Raises:
        PasswordsUnchanged: a slot has this password already.
        WrongPassword: the password is empty.
    """
    wish = replace(slot, created_s=now_s, kdf=kdf, last_used_s=None)
    return _put(lockbox, account, key, password, wish, slot, cost)


def remove_slot(lockbox: Lockbox, slot: Slot) -> Lockbox:
    """The lockbox without this slot; its caller sees to it that one is left."""
    return replace(lockbox, slots=tuple(other for other in lockbox.slots if other.id != slot.id))


def find_slot(lockbox: Lockbox, account: str, name: str) -> Slot:
    """The slot that is called so, in any case of letters.

    Raises:
        PasswordsUnchanged: none is; the text names those that there are.
    """
    for slot in lockbox.slots:
        if folded(slot.name) == folded(name):
            return slot
    names = ", ".join(repr(slot.name) for slot in lockbox.slots)
    raise PasswordsUnchanged(f"{account} has no password called {name[:MAX_NAME]!r}; it has {names}")


def check_new(lockbox: Lockbox, account: str, name: str, limits: Limits, *, now_s: int) -> None:
    """Whether a slot may be added; derives nothing.

    Raises:
        PasswordsUnchanged: the name is taken or no name, the limits are no limits or over, or there are too many slots.
    """
    if any(folded(slot.name) == folded(slot_name(name)) for slot in lockbox.slots):
        raise PasswordsUnchanged(f"{account} has a password called {name!r} already; choose another name")
    ends_s = canonical(limits).expires_s
    if ends_s is not None and ends_s <= now_s:
        raise PasswordsUnchanged(f"the password {name!r} of {account} would have ended already; choose a later end")
    if len(lockbox.slots) >= MAX_SLOTS:
        raise PasswordsUnchanged(f"{account} has {MAX_SLOTS} passwords, and may have no more; remove one first")


def _check(lockbox: Lockbox, account: str) -> None:
    try:
        check_lockbox(lockbox)
    except StateDamaged as error:
        raise StateDamaged(f"the key slots of {account} are damaged ({error}); {again(account)}") from None


# ---- key material


def _new_kdf(cost: Cost) -> Kdf:
    return Kdf(secrets.token_bytes(SALT_OCTETS), cost.memory_kib, cost.iterations, LANES)


def stretched_slots(lockbox: Lockbox) -> list[Slot]:
    """Those that use the account's salt and cost."""
    return [slot for slot in lockbox.slots if slot.kdf is SlotKdf.ARGON2ID]


def _put(
    lockbox: Lockbox, account: str, key: AccountKey, password: Secret, wish: Slot, old: Slot | None, cost: Cost
) -> tuple[Lockbox, Slot]:
    """The lockbox with a slot as wished, in the place of the old one or as the last."""
    if all(slot == old for slot in stretched_slots(lockbox)):
        lockbox = replace(lockbox, kdf=_new_kdf(cost))  # nobody else's password depends on the old one
    stretched = _stretch(lockbox.kdf, account, password) if wish.kdf is SlotKdf.ARGON2ID else b""
    if stretched:
        for kind in SlotKdf:
            holder = _match(lockbox, account, password, kind, stretched)
            if holder is not None:
                raise PasswordsUnchanged(f"{holder[0].name!r} of {account} is this very password; choose another")
    slot = _wrapped(account, key, password, wish, stretched)
    return _with(lockbox, old, slot), slot


def _with(lockbox: Lockbox, old: Slot | None, new: Slot) -> Lockbox:
    if old is None:
        return replace(lockbox, slots=(*lockbox.slots, new))
    return replace(lockbox, slots=tuple(new if slot.id == old.id else slot for slot in lockbox.slots))


def _match(
    lockbox: Lockbox, account: str, password: Secret, kdf: SlotKdf, stretched: bytes = b""
) -> tuple[Slot, bytes] | None:
    """The slot of this kind that the password opens, and its key."""
    found = None
    for slot in lockbox.slots:
        if slot.kdf is kdf:
            slot_key, commitment = _slot_key(slot, account, password, stretched)
            if hmac.compare_digest(commitment, slot.commitment):
                found = slot, slot_key
    return found


def _stretch(kdf: Kdf, account: str, password: Secret) -> bytes:
    if not password:
        raise WrongPassword(f"an empty password does not protect {account}; set one in the mail program")
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    argon2id = Argon2id(
        salt=kdf.salt,
        length=KEY_OCTETS,
        iterations=kdf.iterations,
        lanes=kdf.lanes,
        memory_cost=kdf.memory_kib,
    )
    return argon2id.derive(octets(password.reveal()))


def _slot_key(slot: Slot, account: str, password: Secret, stretched: bytes) -> tuple[bytes, bytes]:
    """A slot's key and the commitment to it. A generated password is as good as random: the slot's id is its salt."""
    material = stretched
    if slot.kdf is SlotKdf.HKDF:
        info = context("emailproxy generated password 1", account.casefold(), slot.id)
        material = hkdf(octets(password.reveal()), info, KEY_OCTETS)
    both = hkdf(material, context("emailproxy slot 1", account.casefold(), slot.id), 2 * KEY_OCTETS)
    return both[:KEY_OCTETS], both[KEY_OCTETS:]


def _wrapping(slot: Slot, account: str) -> bytes:
    """What is authenticated with the wrapped key. The first form is that of slots from before there were limits."""
    if slot.kdf is SlotKdf.ARGON2ID and slot.limits == NO_LIMITS:
        return context("emailproxy wrapped key 1", account.casefold(), slot.id)
    limits = slot.limits
    ends = "never" if limits.expires_s is None else limits.expires_s
    return context(
        "emailproxy wrapped key 2",
        account.casefold(),
        slot.id,
        slot.kdf.value,
        " ".join(limits.protocols),
        " ".join(limits.networks),
        ends,
    )


def _wrapped(account: str, key: AccountKey, password: Secret, wish: Slot, stretched: bytes) -> Slot:
    """The slot as wished, with an id of its own: whatever the password opened before, it opens no more."""
    slot = replace(wish, id=secrets.token_hex(SLOT_ID_OCTETS))
    slot_key, commitment = _slot_key(slot, account, password, stretched)
    return replace(slot, commitment=commitment, wrapped=key.wrap(slot_key, _wrapping(slot, account)))


def _unwrap(lockbox: Lockbox, account: str, slot: Slot, slot_key: bytes) -> AccountKey:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        private = gcm_decrypt(slot_key, slot.wrapped, _wrapping(slot, account))
    except InvalidTag:
        raise StateDamaged(
            f"the key slot {slot.name!r} of {account} is damaged, or its limits were changed; {again(account)}"
        ) from None
    key = AccountKey(X25519PrivateKey.from_private_bytes(private))
    if not hmac.compare_digest(key.public_key, lockbox.public_key):
        raise StateDamaged(
            f"the public key kept for {account} is not that of its key slots: somebody may have changed it; "
            f"{again(account)}"
        )
    return key
