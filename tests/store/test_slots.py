"""Key slots: one password each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from emailproxy.errors import StateDamaged, WrongPassword
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Kdf, Limits, Lockbox, Slot, SlotKdf
from emailproxy.store.bounds import check_lockbox
from emailproxy.store.sealing import AccountKey
from tests.store.samples import ADA, CHEAP, NOW, PASSWORD, flipped, made

SMTP_ONLY = Limits(("SMTP",), ("10.0.0.0/8", "2001:db8::/32"), NOW + 3600)


def with_slot(box: Lockbox, key: AccountKey, password: Secret, name: str = "phone", **options: Any) -> Lockbox:
    return slots.add_slot(box, ADA, key, password, name=name, now_s=NOW, cost=CHEAP, **options)[0]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every Argon2id derivation from now on."""
    stretched: list[bytes] = []
    stretch = slots._stretch

    def noted(kdf: Kdf, account: str, password: Secret) -> bytes:
        stretched.append(stretch(kdf, account, password))
        return stretched[-1]

    monkeypatch.setattr(slots, "_stretch", noted)
    return stretched


@pytest.mark.parametrize("password", ["p", "pass word ", "пароль", "\udcff", "x" * 5000, "a\0b"])
def test_a_password_opens_the_slot_that_it_made(password: str) -> None:
    box, key = made(password=Secret(password))
    opened, slot = slots.unlock(box, ADA, Secret(password))
    assert opened.public_key == key.public_key == box.public_key
    assert (slot.name, slot.created_s) == ("first", NOW)


def test_a_new_lockbox_costs_what_the_design_says() -> None:
    box, _ = slots.new_lockbox(ADA, PASSWORD, now_s=NOW)
    assert (box.kdf.memory_kib, box.kdf.iterations, box.kdf.lanes, len(box.kdf.salt)) == (64 * 1024, 3, 1, 16)
    check_lockbox(box)


def test_no_two_lockboxes_are_alike() -> None:
    one, two = made()[0], made()[0]
    assert one.public_key != two.public_key
    assert one.kdf.salt != two.kdf.salt
    assert one.slots[0].commitment != two.slots[0].commitment


def test_two_derivations_at_once_both_end() -> None:
    box, _ = slots.new_lockbox(ADA, PASSWORD, now_s=NOW)
    opened: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: opened.append(slots.unlock(box, ADA, PASSWORD)[0].public_key), daemon=True)
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
        slots.unlock(made()[0], ADA, Secret(wrong))
    assert ADA in str(refused.value)
    assert PASSWORD.reveal() not in str(refused.value)


def test_an_empty_password_makes_no_slot() -> None:
    with pytest.raises(WrongPassword, match="empty password"):
        made(password=Secret(""))


def test_a_lockbox_belongs_to_its_account() -> None:
    with pytest.raises(WrongPassword):
        slots.unlock(made()[0], "eve@example.org", PASSWORD)
    slots.unlock(made()[0], "ADA@Example.org", PASSWORD)


def test_every_slot_opens_the_same_key() -> None:
    box, key = made()
    both = with_slot(box, key, Secret("other"))
    for password, name in ((PASSWORD, "first"), (Secret("other"), "phone")):
        opened, slot = slots.unlock(both, ADA, password)
        assert (opened.public_key, slot.name) == (box.public_key, name)


@pytest.mark.parametrize("passwords", [1, 5])
def test_a_wrong_password_costs_one_derivation(passwords: int, monkeypatch: pytest.MonkeyPatch) -> None:
    box, key = made()
    for number in range(1, passwords):
        box = with_slot(box, key, Secret(f"other {number}"), f"device {number}")
    stretched = counted(monkeypatch)
    with pytest.raises(WrongPassword):
        slots.unlock(box, ADA, Secret("wrong"))
    assert len(stretched) == 1


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
        slots.unlock(tamper(made()[0]), ADA, PASSWORD)
    mend = "add-password" if error is WrongPassword else "remove"
    assert f"emailproxy accounts {mend} {ADA}" in str(refused.value)


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
    monkeypatch.setattr(slots, "_stretch", lambda *_: pytest.fail("derived"))
    with pytest.raises(StateDamaged, match=r"key slots of ada@example\.org are damaged"):
        slots.unlock(forged, ADA, PASSWORD)


@pytest.mark.parametrize(
    "damage",
    [
        lambda box: replace(box, public_key=b"short"),
        lambda box: replace(box, slots=()),
        lambda box: replace(box, slots=tuple(replace(box.slots[0], name=f"{n}") for n in range(65))),
        lambda box: replace(box, slots=(box.slots[0], replace(box.slots[0], name="FIRST"))),
        _slot(lambda slot: replace(slot, name="")),
        _slot(lambda slot: replace(slot, name="a\nb")),
        _slot(lambda slot: replace(slot, name="e\u0301")),
        _slot(lambda slot: replace(slot, limits=Limits(("POP", "IMAP")))),
        _slot(lambda slot: replace(slot, limits=Limits(("FTP",)))),
        _slot(lambda slot: replace(slot, limits=Limits((), ("10.0.0.1/8",)))),
        _slot(lambda slot: replace(slot, limits=Limits((), ("10.0.0.1",)))),
        _slot(lambda slot: replace(slot, limits=Limits(expires_s=2**52))),
        _slot(lambda slot: replace(slot, commitment=b"")),
        _slot(lambda slot: replace(slot, wrapped=slot.wrapped[:-1])),
    ],
)
def test_a_lockbox_of_a_wrong_size_is_damaged(damage: Callable[[Lockbox], Lockbox]) -> None:
    with pytest.raises(StateDamaged):
        check_lockbox(damage(made()[0]))


# ---- upgrades


@pytest.mark.parametrize(
    ("cost", "behind"),
    [
        (CHEAP, False),
        (CHEAP._replace(memory_kib=9), True),
        (CHEAP._replace(iterations=2), True),
        (slots.DEFAULT_COST, True),
    ],
)
def test_a_lower_cost_than_todays_is_behind(cost: slots.Cost, behind: bool) -> None:
    box, _ = made()
    assert slots.needs_upgrade(box, box.slots[0], cost) is behind


def test_an_upgrade_keeps_key_password_and_slot_at_a_new_cost() -> None:
    box, key = made()
    limited = with_slot(box, key, Secret("other"), limits=SMTP_ONLY)
    only = slots.remove_slot(limited, box.slots[0])
    cost = slots.Cost(16, 2)
    better = slots.upgrade(only, ADA, key, Secret("other"), cost=cost)
    assert (better.kdf.memory_kib, better.kdf.iterations) == (16, 2)
    assert better.kdf.salt != only.kdf.salt
    opened, slot = slots.unlock(better, ADA, Secret("other"))
    assert not slots.needs_upgrade(better, slot, cost)
    assert opened.public_key == key.public_key
    (old,) = only.slots
    assert (slot.name, slot.created_s, slot.limits) == (old.name, old.created_s, SMTP_ONLY)
    assert slot.id != old.id


def test_several_stretched_slots_are_not_upgraded() -> None:
    box, key = made()
    both = with_slot(box, key, Secret("other"))
    assert not any(slots.needs_upgrade(both, slot) for slot in both.slots)


def test_an_upgrade_leaves_generated_passwords_as_they_are() -> None:
    box, key = made()
    generated = slots.generate_password()
    both = with_slot(box, key, generated, kdf=SlotKdf.HKDF)
    assert [slots.needs_upgrade(both, slot) for slot in both.slots] == [True, False]
    better = slots.upgrade(both, ADA, key, PASSWORD, cost=slots.Cost(16, 2))
    assert better.slots[1] == both.slots[1]
    for password in (PASSWORD, generated):
        assert slots.unlock(better, ADA, password)[0].public_key == box.public_key
