"""Key slots and sealed tokens."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emailproxy.errors import StateDamaged, WrongPassword
from emailproxy.secret import Secret
from emailproxy.store import sealing
from emailproxy.store.base import Lockbox, Slot
from emailproxy.store.sealing import AccountKey, WarmCache
from tests.store.samples import CHEAP, NOW, PASSWORD

ADA = "ada@example.org"


def made(account: str = ADA, password: Secret = PASSWORD) -> tuple[Lockbox, AccountKey]:
    return sealing.new_lockbox(account, password, now_s=NOW, cost=CHEAP)


def with_second_slot(box: Lockbox, key: AccountKey, password: Secret) -> Lockbox:
    slot_id = "ab" * 16
    slot_key, commitment = sealing._slot_key(sealing._stretch(box.kdf, ADA, password), ADA, slot_id)
    wrapped = key.wrap(slot_key, sealing._wrapping(ADA, slot_id))
    return replace(box, slots=(*box.slots, Slot(slot_id, "phone", NOW, commitment, wrapped)))


def flipped(octets: bytes, at: int = -1) -> bytes:
    changed = bytearray(octets)
    changed[at] ^= 1
    return bytes(changed)


# ---- slots


@pytest.mark.parametrize("password", ["p", "pass word ", "пароль", "\udcff", "x" * 5000, "a\0b"])
def test_a_password_opens_the_slot_that_it_made(password: str) -> None:
    box, key = made(password=Secret(password))
    opened, slot = sealing.unlock(box, ADA, Secret(password))
    assert opened.public_key == key.public_key == box.public_key
    assert (slot.name, slot.created_s) == ("first", NOW)


def test_a_new_lockbox_costs_what_the_design_says() -> None:
    box, _ = sealing.new_lockbox(ADA, PASSWORD, now_s=NOW)
    assert (box.kdf.memory_kib, box.kdf.iterations, box.kdf.lanes, len(box.kdf.salt)) == (64 * 1024, 3, 1, 16)
    sealing.check_lockbox(box)


def test_no_two_lockboxes_are_alike() -> None:
    one, two = made()[0], made()[0]
    assert one.public_key != two.public_key
    assert one.kdf.salt != two.kdf.salt
    assert one.slots[0].commitment != two.slots[0].commitment


def test_two_derivations_at_once_both_end() -> None:
    box, _ = sealing.new_lockbox(ADA, PASSWORD, now_s=NOW)
    opened: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: opened.append(sealing.unlock(box, ADA, PASSWORD)[0].public_key), daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert opened == [box.public_key] * 2


@pytest.mark.parametrize("wrong", ["", "Correct horse", "correct horse ", "correct horse\0"])
def test_a_wrong_password_opens_nothing(wrong: str) -> None:
    with pytest.raises(WrongPassword) as refused:
        sealing.unlock(made()[0], ADA, Secret(wrong))
    assert ADA in str(refused.value)
    assert PASSWORD.reveal() not in str(refused.value)


def test_an_empty_password_makes_no_slot() -> None:
    with pytest.raises(WrongPassword, match="empty password"):
        made(password=Secret(""))


def test_a_lockbox_belongs_to_its_account() -> None:
    with pytest.raises(WrongPassword):
        sealing.unlock(made()[0], "eve@example.org", PASSWORD)
    sealing.unlock(made()[0], "ADA@Example.org", PASSWORD)


def test_every_slot_opens_the_same_key() -> None:
    box, key = made()
    both = with_second_slot(box, key, Secret("other"))
    for password, name in ((PASSWORD, "first"), (Secret("other"), "phone")):
        opened, slot = sealing.unlock(both, ADA, password)
        assert (opened.public_key, slot.name) == (box.public_key, name)


@pytest.mark.parametrize("passwords", [1, 5])
def test_a_wrong_password_costs_one_derivation(passwords: int, monkeypatch: pytest.MonkeyPatch) -> None:
    box, key = made()
    for number in range(1, passwords):
        extra = with_second_slot(box, key, Secret(f"other {number}")).slots[-1]
        box = replace(box, slots=(*box.slots, replace(extra, id=f"{number:032x}")))
    derived = []
    stretch = sealing._stretch
    monkeypatch.setattr(sealing, "_stretch", lambda *args: derived.append(1) or stretch(*args))
    with pytest.raises(WrongPassword):
        sealing.unlock(box, ADA, Secret("wrong"))
    assert len(derived) == 1


def _slot(change: Callable[[Slot], Slot]) -> Callable[[Lockbox], Lockbox]:
    return lambda box: replace(box, slots=(change(box.slots[0]),))


@pytest.mark.parametrize(
    ("tamper", "error"),
    [
        (_slot(lambda slot: replace(slot, commitment=flipped(slot.commitment))), WrongPassword),
        (_slot(lambda slot: replace(slot, id="00" * 16)), WrongPassword),
        (_slot(lambda slot: replace(slot, wrapped=flipped(slot.wrapped))), StateDamaged),
        (_slot(lambda slot: replace(slot, wrapped=flipped(slot.wrapped, 0))), StateDamaged),
        (lambda box: replace(box, public_key=made()[0].public_key), StateDamaged),
        (lambda box: replace(box, kdf=replace(box.kdf, salt=flipped(box.kdf.salt))), WrongPassword),
    ],
)
def test_a_tampered_lockbox_opens_nothing(
    tamper: Callable[[Lockbox], Lockbox], error: type[StateDamaged | WrongPassword]
) -> None:
    with pytest.raises(error) as refused:
        sealing.unlock(tamper(made()[0]), ADA, PASSWORD)
    assert f"emailproxy accounts remove {ADA}" in str(refused.value)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("memory_kib", 4_000_000_000),
        ("memory_kib", 256 * 1024 + 1),
        ("memory_kib", 7),
        ("memory_kib", -1),
        ("iterations", 4_000_000_000),
        ("iterations", 17),
        ("iterations", 0),
        ("lanes", 0),
        ("lanes", 2),
        ("salt", b""),
        ("salt", b"x" * 15),
        ("salt", b"x" * 1000),
    ],
)
def test_a_cost_out_of_bounds_is_refused_before_anything_is_derived(
    figure: str, value: int | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, _ = made()
    forged = replace(box, kdf=replace(box.kdf, **{figure: value}))  # type: ignore[arg-type]
    monkeypatch.setattr(sealing, "_stretch", lambda *_: pytest.fail("derived"))
    with pytest.raises(StateDamaged, match=r"key slots of ada@example\.org are damaged"):
        sealing.unlock(forged, ADA, PASSWORD)


@pytest.mark.parametrize(
    "damage",
    [
        lambda box: replace(box, public_key=b"short"),
        lambda box: replace(box, slots=()),
        lambda box: replace(box, slots=box.slots * 65),
        _slot(lambda slot: replace(slot, commitment=b"")),
        _slot(lambda slot: replace(slot, wrapped=slot.wrapped[:-1])),
    ],
)
def test_a_lockbox_of_a_wrong_size_is_damaged(damage: Callable[[Lockbox], Lockbox]) -> None:
    with pytest.raises(StateDamaged):
        sealing.check_lockbox(damage(made()[0]))


# ---- upgrades


@pytest.mark.parametrize(
    ("cost", "behind"),
    [
        (CHEAP, False),
        (CHEAP._replace(memory_kib=9), True),
        (CHEAP._replace(iterations=2), True),
        (sealing.DEFAULT_COST, True),
    ],
)
def test_a_lower_cost_than_todays_is_behind(cost: sealing.Cost, behind: bool) -> None:
    assert sealing.needs_upgrade(made()[0], cost) is behind


def test_an_upgrade_keeps_key_password_and_slot_at_a_new_cost() -> None:
    box, key = made()
    cost = sealing.Cost(16, 2)
    better = sealing.upgrade(box, ADA, key, PASSWORD, cost=cost)
    assert (better.kdf.memory_kib, better.kdf.iterations) == (16, 2)
    assert better.kdf.salt != box.kdf.salt
    assert not sealing.needs_upgrade(better, cost)
    opened, slot = sealing.unlock(better, ADA, PASSWORD)
    assert opened.public_key == key.public_key
    assert (slot.name, slot.created_s) == (box.slots[0].name, box.slots[0].created_s)


def test_several_slots_are_not_upgraded() -> None:
    box, key = made()
    assert not sealing.needs_upgrade(with_second_slot(box, key, Secret("other")))


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


# ---- warm logins


def test_a_warm_login_derives_nothing() -> None:
    box, key = made()
    unaffordable = replace(box, kdf=replace(box.kdf, memory_kib=4_000_000_000))
    warm = WarmCache()
    warm.remember(ADA, unaffordable, PASSWORD, key)
    assert warm.find("Ada@example.org", unaffordable, PASSWORD) is key


@pytest.mark.parametrize("wrong", ["", "correct hors", "correct horse "])
def test_a_wrong_password_is_never_warm(wrong: str) -> None:
    box, key = made()
    warm = WarmCache()
    warm.remember(ADA, box, PASSWORD, key)
    assert warm.find(ADA, box, Secret(wrong)) is None
    assert warm.find("eve@example.org", box, PASSWORD) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda box: replace(box, public_key=flipped(box.public_key)),
        lambda box: replace(box, kdf=replace(box.kdf, salt=flipped(box.kdf.salt))),
        lambda box: replace(box, slots=(*box.slots, replace(box.slots[0], id="00" * 16))),
        lambda box: replace(box, slots=()),
        _slot(lambda slot: replace(slot, wrapped=flipped(slot.wrapped))),
    ],
)
def test_a_changed_lockbox_is_cold(change: Callable[[Lockbox], Lockbox]) -> None:
    box, key = made()
    warm = WarmCache()
    warm.remember(ADA, box, PASSWORD, key)
    changed = change(box)
    assert warm.find(ADA, changed, PASSWORD) is None
    warm.remember(ADA, changed, Secret("new"), key)
    assert warm.find(ADA, changed, PASSWORD) is None
    assert warm.find(ADA, changed, Secret("new")) is key


def test_several_passwords_of_an_account_are_warm() -> None:
    box, key = made()
    warm = WarmCache()
    for password in "abc":
        warm.remember(ADA, box, Secret(password), key)
    assert [warm.find(ADA, box, Secret(password)) for password in "abcd"] == [key, key, key, None]


def test_the_account_used_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_WARM_ACCOUNTS", 2)
    box, key = made()
    warm = WarmCache()
    warm.remember("a", box, PASSWORD, key)
    warm.remember("b", box, PASSWORD, key)
    assert warm.find("a", box, PASSWORD) is key
    warm.remember("c", box, PASSWORD, key)
    assert [warm.find(name, box, PASSWORD) for name in "abc"] == [key, None, key]


def test_the_oldest_password_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_WARM_PASSWORDS", 2)
    box, key = made()
    warm = WarmCache()
    for password in "abc":
        warm.remember(ADA, box, Secret(password), key)
    assert [warm.find(ADA, box, Secret(password)) for password in "abc"] == [None, key, key]


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
