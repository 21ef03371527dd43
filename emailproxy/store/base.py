"""What every token store keeps, and the interface that the broker uses. Stores see sealed octets only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Kdf:
    """Argon2id's salt and cost (RFC 9106). One salt an account: a wrong password costs one derivation."""

    salt: bytes
    memory_kib: int
    iterations: int
    lanes: int = 1


class SlotKdf(Enum):
    """How a slot's key comes from its password."""

    ARGON2ID = "argon2id"
    HKDF = "hkdf"
    """For generated passwords of 128 bits or more: nobody guesses those, so that a derivation may be quick."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a slot's password is good for; bound into the slot, so that nobody widens them without the password."""

    protocols: tuple[str, ...] = ()
    """Of ``IMAP``, ``POP``, ``SMTP``; empty: all."""
    networks: tuple[str, ...] = ()
    """In CIDR notation; empty: from anywhere."""
    expires_s: int | None = None
    """Seconds since the epoch; None: never."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Slot:
    """The account's private key, wrapped under one local password."""

    id: str
    """16 random octets in hexadecimal."""
    name: str
    """What a person calls it, e.g. ``first``."""
    created_s: int
    commitment: bytes
    """32 octets, compared in constant time before anything is decrypted: AES-GCM does not commit to its key."""
    wrapped: bytes
    """Nonce and AES-256-GCM ciphertext of the private key."""
    kdf: SlotKdf = SlotKdf.ARGON2ID
    limits: Limits = NO_LIMITS
    last_used_s: int | None = field(default=None, compare=False)
    """The last login with it, to the hour; None: none yet."""


@dataclass(frozen=True, slots=True)
class Lockbox:
    """An account's key pair: the public key in the clear, the private key in slots."""

    public_key: bytes
    """X25519, 32 octets: whoever has it may write a token."""
    kdf: Kdf
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one account."""

    account: str
    """The account's name, case-folded."""
    lockbox: Lockbox
    generation: int = 0
    """Counts the changes of the tokens in `sealed`; bound into each."""
    sealed: Mapping[str, bytes] = field(default_factory=dict)
    """HPKE ciphertexts by field: ``access_token``, ``refresh_token``; ``client_secret``, which no generation binds."""
    expires_at_s: int | None = None
    """When the access token ends, seconds since the epoch."""
    obtained_at_s: int | None = None
    scope: str = ""
    needs_sign_in: bool = False
    """The provider refused the refresh token for good: the owner must consent again."""
    last_error: str = ""
    stamp: object = field(default=None, compare=False, repr=False)
    """The store's own: of what it read this from or saved it as, for `TokenStore.is_current`."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A consent that waits for a person. Useless without the `state`, which the URL holds; a device's is in nothing but
    `sealed_state`."""

    state_hash: str
    """SHA-256 of the `state` parameter, in hexadecimal: the file's name."""
    account: str
    """The account's name, case-folded."""
    display_name: str
    """The account's name as the login or the configuration spells it."""
    created_s: int
    expires_s: int
    lockbox: Lockbox
    """The account's, or, for an account that has no slot yet, a new one with one slot: the password of the login
    that started this consent."""
    sealed_state: bytes
    """The `state`, sealed to the lockbox's public key: the same password finds the same URL again."""
    encrypted: bytes
    """What the completion needs (PKCE verifier, redirect_uri, the provider's URL; or the device code), AES-256-GCM
    under HKDF(state)."""
    device_url: str = ""
    """For a device authorization (RFC 8628), where the person goes. In the clear, as it was in the log: with URL and
    user code a person can sign in; to get the tokens takes the device code."""
    user_code: str = ""
    """What the person types there."""
    replaces: bytes = b""
    """The public key of the record that this consent, once completed, replaces with all of its passwords; empty: none
    is replaced."""


class TokenStore(Protocol):
    """Where records live."""

    async def load(self, account: str) -> Record | None:
        """The account's record, or None where it has none.

        Raises:
            StateDamaged, StateExposed: the file cannot be used; it is left as it is.
        """

    def locked(self, account: str) -> AbstractAsyncContextManager[Record | None]:
        """Holds the account's lock, across tasks and processes, and reads its record anew."""

    def is_current(self, record: Record) -> bool:
        """Whether what was read or saved as this record is still what is there; True where that cannot be told.

        Takes microseconds and never waits: every login asks, so that what another process changed or removed
        counts at once.
        """

    async def save(self, record: Record) -> Record:
        """Makes the record durable, whole or not at all; returns it with its new stamp. The caller holds the lock."""

    async def remove(self, account: str, *, only: Record | None = None) -> bool:
        """Forgets the account, damaged or not. Returns whether there was anything to forget.

        Takes the lock itself: the caller does not hold it.

        Args:
            only: forget nothing where this record is not the present one any more.
        """

    async def accounts(self) -> list[str]:
        """The names of all accounts that have a record, sorted."""


class PendingStore(Protocol):
    """Where consents wait. Expired ones are never returned, and are removed when met."""

    async def put(self, pending: Pending) -> None:
        """Keeps a consent, in place of any other of the same account."""

    async def by_state(self, state: str) -> Pending | None:
        """The consent that this `state` belongs to, or None."""

    async def by_account(self, account: str) -> Pending | None:
        """The account's consent, or None."""

    async def claim(self, state: str) -> Pending | None:
        """Takes the consent away: of any number of callers in any number of processes, one gets it."""

    async def discard(self, account: str) -> bool:
        """Forgets the account's consent. Returns whether there was one."""

    async def waiting(self) -> list[Pending]:
        """All that wait, oldest first."""
