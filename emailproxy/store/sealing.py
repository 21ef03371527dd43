"""Key slots and sealed tokens: nothing else touches key material.

An account has an X25519 key pair. Tokens are sealed to the public key (HPKE, RFC 9180), so that anything may write
one; the private key is wrapped once per local password, in a key slot, so that only a password reads one. HPKE does
not authenticate the writer: whoever can write the state folder can put other tokens in.

Everything that derives from a password (`new_lockbox`, `unlock`, `upgrade`) blocks for the time of an Argon2id
derivation, about 0.2 s: call it in a thread. The rest takes microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from emailproxy.errors import StateDamaged, WrongPassword
from emailproxy.secret import Secret
from emailproxy.store.base import Kdf, Lockbox, Slot

MIB_IN_KIB = 1024


class Cost(NamedTuple):
    """What one Argon2id derivation costs (RFC 9106)."""

    memory_kib: int
    iterations: int


DEFAULT_COST = Cost(memory_kib=64 * MIB_IN_KIB, iterations=3)  # RFC 9106 section 4, the memory-constrained choice
LANES = 1  # two derivations at once with more lanes hang for ever in cryptography 50

# What a file may ask for: a forged cost must not take the machine down.
MIN_MEMORY_KIB = 8  # RFC 9106 section 3.1: at least 8 KiB a lane
MAX_MEMORY_KIB = 256 * MIB_IN_KIB
MAX_ITERATIONS = 16
MAX_SLOTS = 64  # one a device; each is tried with every password

SALT_OCTETS = 16  # RFC 9106 section 3.1: recommended for passwords
KEY_OCTETS = 32  # X25519, AES-256 and SHA-256 alike
NONCE_OCTETS = 12  # RFC 5116 section 5.1
TAG_OCTETS = 16
WRAPPED_OCTETS = NONCE_OCTETS + KEY_OCTETS + TAG_OCTETS
SLOT_ID_OCTETS = 16

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

MAX_WARM_ACCOUNTS = 10_000  # beyond, the one used longest ago pays the derivation again
MAX_WARM_PASSWORDS = MAX_SLOTS


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _context(*parts: str | bytes | int) -> bytes:
    """The parts, each behind its length, so that no two lists of parts encode alike."""
    encoded = [part if isinstance(part, bytes) else _octets(str(part)) for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _hkdf(key: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)


def _gcm_encrypt(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_OCTETS)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def _gcm_decrypt(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Raises `InvalidTag` where anything differs."""
    if len(sealed) < NONCE_OCTETS + TAG_OCTETS:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:NONCE_OCTETS], sealed[NONCE_OCTETS:], aad)


def again(account: str) -> str:
    """The mend of an account whose state is lost."""
    return f"run 'emailproxy accounts remove {account}' and sign in again"


class AccountKey:
    """An account's private key: what a password opens. It shows and pickles nothing."""

    __slots__ = ("_private", "public_key")

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public_key = private.public_key().public_bytes_raw()

    def open(self, account: str, field: str, generation: int, sealed: bytes) -> Secret:
        """The value that `seal` was given.

        Raises:
            StateDamaged: it was sealed for another account, field, generation or key, or is not whole.
        """
        info = _context("emailproxy token 1", account.casefold(), field, generation)
        try:
            plaintext = SUITE.decrypt(sealed, self._private, info=info)
            return Secret(plaintext.decode("utf-8", "surrogatepass"))
        except (InvalidTag, ValueError):
            raise StateDamaged(f"the {field} kept for {account} does not open; {again(account)}") from None

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """The private key itself, encrypted under a slot's key."""
        return _gcm_encrypt(key, self._private.private_bytes_raw(), aad)

    def __repr__(self) -> str:
        return "AccountKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AccountKey is not pickled")


def seal(public_key: bytes, account: str, field: str, generation: int, value: Secret) -> bytes:
    """The value, sealed so that only the account's private key opens it, as this field of this generation.

    Raises:
        StateDamaged: the public key is not one.
    """
    info = _context("emailproxy token 1", account.casefold(), field, generation)
    try:
        recipient = X25519PublicKey.from_public_bytes(public_key)
        return SUITE.encrypt(_octets(value.reveal()), recipient, info=info)
    except ValueError:
        raise StateDamaged(f"the public key kept for {account} is damaged; {again(account)}") from None


# ---- key slots


def new_lockbox(
    account: str, password: Secret, *, slot_name: str = "first", now_s: int, cost: Cost = DEFAULT_COST
) -> tuple[Lockbox, AccountKey]:
    """A new key pair, its private key wrapped under the password. Blocks for one derivation.

    Raises:
        WrongPassword: the password is empty.
    """
    key = AccountKey(X25519PrivateKey.generate())
    return _lockbox(account, key, password, slot_name=slot_name, created_s=now_s, cost=cost), key


def unlock(lockbox: Lockbox, account: str, password: Secret) -> tuple[AccountKey, Slot]:
    """The account's private key and the slot that the password opens. Blocks for one derivation.

    Raises:
        WrongPassword: the password opens no slot.
        StateDamaged: the figures are out of bounds (nothing is derived then), or the slot does not hold the
            private key of the lockbox's public key.
    """
    try:
        check_lockbox(lockbox)
    except StateDamaged as error:
        raise StateDamaged(f"the key slots of {account} are damaged ({error}); {again(account)}") from None
    stretched = _stretch(lockbox.kdf, account, password)
    opened = None
    for slot in lockbox.slots:
        slot_key, commitment = _slot_key(stretched, account, slot.id)
        if hmac.compare_digest(commitment, slot.commitment):
            opened = slot, slot_key
    if opened is None:
        raise WrongPassword(
            f"the password is not the one that {account} was set up with here; use that one, or {again(account)}"
        )
    slot, slot_key = opened
    return _unwrap(lockbox, account, slot, slot_key), slot


def needs_upgrade(lockbox: Lockbox, cost: Cost = DEFAULT_COST) -> bool:
    """Whether the stored cost falls behind and can be raised.

    Salt and cost are the account's, so with several slots the others' passwords would be needed too.
    """
    kdf = lockbox.kdf
    behind = kdf.memory_kib < cost.memory_kib or kdf.iterations < cost.iterations
    return behind and len(lockbox.slots) == 1


def upgrade(lockbox: Lockbox, account: str, key: AccountKey, password: Secret, *, cost: Cost = DEFAULT_COST) -> Lockbox:
    """The same key pair and password at today's cost, for a lockbox that `needs_upgrade`. Blocks for one derivation.

    The slot keeps its name and creation time. A `WarmCache` does not know the new lockbox: remember it anew.
    """
    (slot,) = lockbox.slots
    return _lockbox(account, key, password, slot_name=slot.name, created_s=slot.created_s, cost=cost)


def check_lockbox(lockbox: Lockbox) -> None:
    """Holds the figures against their bounds; derives nothing.

    Raises:
        StateDamaged: one is out of bounds; the text names it.
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


def _lockbox(account: str, key: AccountKey, password: Secret, *, slot_name: str, created_s: int, cost: Cost) -> Lockbox:
    kdf = Kdf(secrets.token_bytes(SALT_OCTETS), cost.memory_kib, cost.iterations, LANES)
    slot_id = secrets.token_hex(SLOT_ID_OCTETS)
    slot_key, commitment = _slot_key(_stretch(kdf, account, password), account, slot_id)
    wrapped = key.wrap(slot_key, _wrapping(account, slot_id))
    return Lockbox(key.public_key, kdf, (Slot(slot_id, slot_name, created_s, commitment, wrapped),))


def _stretch(kdf: Kdf, account: str, password: Secret) -> bytes:
    if not password:
        raise WrongPassword(f"an empty password does not protect {account}; set one in the mail program")
    argon2id = Argon2id(
        salt=kdf.salt,
        length=KEY_OCTETS,
        iterations=kdf.iterations,
        lanes=kdf.lanes,
        memory_cost=kdf.memory_kib,
    )
    return argon2id.derive(_octets(password.reveal()))


def _slot_key(stretched: bytes, account: str, slot_id: str) -> tuple[bytes, bytes]:
    """A slot's key and the commitment to it."""
    both = _hkdf(stretched, _context("emailproxy slot 1", account.casefold(), slot_id), 2 * KEY_OCTETS)
    return both[:KEY_OCTETS], both[KEY_OCTETS:]


def _wrapping(account: str, slot_id: str) -> bytes:
    return _context("emailproxy wrapped key 1", account.casefold(), slot_id)


def _unwrap(lockbox: Lockbox, account: str, slot: Slot, slot_key: bytes) -> AccountKey:
    try:
        private = _gcm_decrypt(slot_key, slot.wrapped, _wrapping(account, slot.id))
    except InvalidTag:
        raise StateDamaged(f"the key slot {slot.name!r} of {account} is damaged; {again(account)}") from None
    key = AccountKey(X25519PrivateKey.from_private_bytes(private))
    if not hmac.compare_digest(key.public_key, lockbox.public_key):
        raise StateDamaged(
            f"the public key kept for {account} is not that of its key slots: somebody may have changed it; "
            f"{again(account)}"
        )
    return key


# ---- warm logins


@dataclass(slots=True)
class _Warm:
    lockbox: Lockbox
    keys: dict[bytes, AccountKey] = field(default_factory=dict)


class WarmCache:
    """Passwords that were right in this process, so that only the first login of each pays the derivation.

    It keeps no password, but HMAC-SHA256 of it under a key that lives as long as the process. What it knows of an
    account ends with the account's lockbox: a changed salt, public key or slot is a cold login. For one thread.
    """

    def __init__(self) -> None:
        self._process_key = secrets.token_bytes(KEY_OCTETS)
        self._accounts: OrderedDict[str, _Warm] = OrderedDict()

    def remember(self, account: str, lockbox: Lockbox, password: Secret, key: AccountKey) -> None:
        """The password opened this lockbox and gave this key."""
        name = account.casefold()
        warm = self._accounts.get(name)
        if warm is None or warm.lockbox != lockbox:
            warm = self._accounts[name] = _Warm(lockbox)
        self._accounts.move_to_end(name)
        warm.keys[self._tag(name, lockbox, password)] = key
        if len(warm.keys) > MAX_WARM_PASSWORDS:
            del warm.keys[next(iter(warm.keys))]
        if len(self._accounts) > MAX_WARM_ACCOUNTS:
            self._accounts.popitem(last=False)

    def find(self, account: str, lockbox: Lockbox, password: Secret) -> AccountKey | None:
        """The key, where this password opened this very lockbox before. Compares in constant time."""
        name = account.casefold()
        warm = self._accounts.get(name)
        if warm is None or warm.lockbox != lockbox:
            return None
        self._accounts.move_to_end(name)
        tag = self._tag(name, lockbox, password)
        found = None
        for known, key in warm.keys.items():
            if hmac.compare_digest(known, tag):
                found = key
        return found

    def _tag(self, name: str, lockbox: Lockbox, password: Secret) -> bytes:
        text = _context(name, lockbox.kdf.salt, password.reveal())
        return hmac.digest(self._process_key, text, "sha256")


# ---- consents


def state_hash(state: Secret) -> str:
    """SHA-256 of a consent's `state`, in hexadecimal: names it without giving it away."""
    return hashlib.sha256(_octets(state.reveal())).hexdigest()


def protect(state: Secret, label: str, plaintext: bytes) -> bytes:
    """What only who has the `state` may read (AES-256-GCM under HKDF(state)). The state is 256 random bits."""
    return _gcm_encrypt(_consent_key(state, label), plaintext, _context(label))


def reveal(state: Secret, label: str, blob: bytes) -> bytes:
    """What `protect` was given.

    Raises:
        StateDamaged: it was protected under another state or label, or is not whole.
    """
    try:
        return _gcm_decrypt(_consent_key(state, label), blob, _context(label))
    except InvalidTag:
        raise StateDamaged("a pending consent does not open with its state; start the sign-in again") from None


def _consent_key(state: Secret, label: str) -> bytes:
    return _hkdf(_octets(state.reveal()), _context("emailproxy consent 1", label), KEY_OCTETS)
