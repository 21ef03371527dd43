"""Sealed tokens and consents."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emailproxy.errors import StateDamaged
from emailproxy.secret import Secret
from emailproxy.store import sealing
from tests.store.samples import ADA, flipped, made

# ---- tokens


@settings(max_examples=50, deadline=None)
@given(account=st.text(), field=st.text(), generation=st.integers(0, 2**53), value=st.text())
def test_a_sealed_token_opens_as_it_was(account: str, field: str, generation: int, value: str) -> None:
    _, key = made()
    sealed = sealing.seal(key.public_key, account, field, generation, Secret(value))
    assert key.open(account, field, generation, sealed) == Secret(value)


@pytest.mark.parametrize(
    ("account", "field", "generation"),
    [
        ("eve@example.org", "access_token", 1),
        (ADA, "refresh_token", 1),
        (ADA, "access_token", 2),
        (ADA + "a", "ccess_token", 1),
        (ADA, "access_token1", 1),
        (ADA[:-1], "gaccess_token", 1),
    ],
)
def test_a_sealed_token_opens_only_as_what_it_was_sealed(account: str, field: str, generation: int) -> None:
    _, key = made()
    sealed = sealing.seal(key.public_key, ADA, "access_token", 1, Secret("canary"))
    with pytest.raises(StateDamaged) as refused:
        key.open(account, field, generation, sealed)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("damage", [flipped, lambda sealed: sealed[:-1], lambda _: b"", lambda s: flipped(s, 0)])
def test_a_damaged_token_does_not_open(damage: Callable[[bytes], bytes]) -> None:
    _, key = made()
    sealed = sealing.seal(key.public_key, ADA, "access_token", 1, Secret("canary"))
    with pytest.raises(StateDamaged, match="sign in again"):
        key.open(ADA, "access_token", 1, damage(sealed))


def test_another_key_opens_nothing() -> None:
    sealed = sealing.seal(made()[0].public_key, ADA, "access_token", 1, Secret("canary"))
    with pytest.raises(StateDamaged):
        made()[1].open(ADA, "access_token", 1, sealed)


@pytest.mark.parametrize("public_key", [b"", b"short", bytes(32), b"x" * 33])
def test_what_is_no_public_key_seals_nothing(public_key: bytes) -> None:
    with pytest.raises(StateDamaged, match="public key"):
        sealing.seal(public_key, ADA, "access_token", 1, Secret("canary"))


def test_a_key_shows_nothing() -> None:
    _, key = made()
    assert f"{key!r} {key}" == "AccountKey(***) AccountKey(***)"
    with pytest.raises(TypeError):
        pickle.dumps(key)


# ---- consents


def test_a_consent_opens_with_its_state() -> None:
    state = Secret("s" * 43)
    blob = sealing.protect(state, "consent", b"verifier")
    assert b"verifier" not in blob
    assert sealing.reveal(state, "consent", blob) == b"verifier"
    assert sealing.protect(state, "consent", b"verifier") != blob


@pytest.mark.parametrize(
    ("state", "label", "damage"),
    [
        ("other", "consent", bytes),
        ("state", "other", bytes),
        ("state", "consent", flipped),
        ("state", "consent", lambda blob: blob[:10]),
        ("state", "consent", lambda _: b""),
    ],
)
def test_a_consent_opens_with_nothing_else(state: str, label: str, damage: Callable[[bytes], bytes]) -> None:
    blob = sealing.protect(Secret("state"), "consent", b"verifier")
    with pytest.raises(StateDamaged, match="start the sign-in again"):
        sealing.reveal(Secret(state), label, damage(blob))


def test_a_state_is_named_by_its_sha_256() -> None:
    assert sealing.state_hash(Secret("abc")) == hashlib.sha256(b"abc").hexdigest()
