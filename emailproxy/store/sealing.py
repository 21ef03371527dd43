"""Sealed tokens: nothing but this module, `store.slots` and `store.warm` touches key material.

An account has an X25519 key pair. Tokens are sealed to the public key (HPKE, RFC 9180), so that anything may write
one; the private key is wrapped once per local password, in a key slot (`store.slots`), so that only a password reads
one. HPKE does not authenticate the writer: whoever can write the state folder can put other tokens in.

What needs `cryptography` imports it on first use: its library takes 7 MiB, and a server at rest opens nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from emailproxy.errors import StateDamaged
from emailproxy.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.hpke import Suite

KEY_OCTETS = 32  # X25519, AES-256 and SHA-256 alike
NONCE_OCTETS = 12  # RFC 5116 section 5.1
TAG_OCTETS = 16


@cache
def suite() -> Suite:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def context(*parts: str | bytes | int) -> bytes:
    """The parts, each behind its length, so that no two lists of parts encode alike."""
    encoded = [part if isinstance(part, bytes) else octets(str(part)) for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def hkdf(key: bytes, info: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(key)


def gcm_encrypt(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(NONCE_OCTETS)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def gcm_decrypt(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Raises `InvalidTag` where anything differs."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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
        from cryptography.exceptions import InvalidTag

        info = context("emailproxy token 1", account.casefold(), field, generation)
        try:
            plaintext = suite().decrypt(sealed, self._private, info=info)
            return Secret(plaintext.decode("utf-8", "surrogatepass"))
        except (InvalidTag, ValueError):
            raise StateDamaged(f"the {field} kept for {account} does not open; {again(account)}") from None

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """The private key itself, encrypted under a slot's key."""
        return gcm_encrypt(key, self._private.private_bytes_raw(), aad)

    def __repr__(self) -> str:
        return "AccountKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AccountKey is not pickled")


def seal(public_key: bytes, account: str, field: str, generation: int, value: Secret) -> bytes:
    """The value, sealed so that only the account's private key opens it, as this field of this generation.

    Raises:
        StateDamaged: the public key is not one.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    info = context("emailproxy token 1", account.casefold(), field, generation)
    try:
        recipient = X25519PublicKey.from_public_bytes(public_key)
        return suite().encrypt(octets(value.reveal()), recipient, info=info)
    except ValueError:
        raise StateDamaged(f"the public key kept for {account} is damaged; {again(account)}") from None


# ---- consents


def state_hash(state: Secret) -> str:
    """SHA-256 of a consent's `state`, in hexadecimal: names it without giving it away."""
    return hashlib.sha256(octets(state.reveal())).hexdigest()


def protect(state: Secret, label: str, plaintext: bytes) -> bytes:
    """What only who has the `state` may read (AES-256-GCM under HKDF(state)). The state is 256 random bits."""
    return gcm_encrypt(_consent_key(state, label), plaintext, context(label))


def reveal(state: Secret, label: str, blob: bytes) -> bytes:
    """What `protect` was given.

    Raises:
        StateDamaged: it was protected under another state or label, or is not whole.
    """
    from cryptography.exceptions import InvalidTag

    try:
        return gcm_decrypt(_consent_key(state, label), blob, context(label))
    except InvalidTag:
        raise StateDamaged("a pending consent does not open with its state; start the sign-in again") from None


def _consent_key(state: Secret, label: str) -> bytes:
    return hkdf(octets(state.reveal()), context("emailproxy consent 1", label), KEY_OCTETS)
