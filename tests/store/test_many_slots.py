"""Several passwords of an account: added, changed, removed, generated, and limited."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from emailproxy.errors import PasswordsUnchanged, StateDamaged, WrongPassword
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.base import Limits, Lockbox, Slot, SlotKdf
from emailproxy.store.bounds import MAX_SLOTS, check_lockbox
from tests.store.samples import ADA, CHEAP, NOW, PASSWORD, made
from tests.store.test_slots import SMTP_ONLY, counted, with_slot

OTHER = Secret("other")
GIVEN_AS_GENERATED = Secret("abcdefg-abcdefg-abcdefg-abcdefg")


# ---- generated


def test_a_generated_password_has_131_bits_and_is_never_twice_the_same() -> None:
    texts = {slots.generate_password().reveal() for _ in range(1000)}
    assert len(texts) == 1000
    assert {len(text) for text in texts} == {31}
    assert all(slots.looks_generated(Secret(text)) for text in texts)
    assert set("".join(texts)) == set("abcdefghijklmnopqrstuvwxyz-")
    assert math.log2(26**28) > 131


@pytest.mark.parametrize("text", ["", "abcdefg", "Abcdefg-abcdefg-abcdefg-abcdefg", f"{GIVEN_AS_GENERATED.reveal()}\n"])
def test_other_passwords_do_not_look_generated(text: str) -> None:
    assert not slots.looks_generated(Secret(text))


def test_a_generated_password_costs_no_argon2id(monkeypatch: pytest.MonkeyPatch) -> None:
    box, key = made()
    stretched = counted(monkeypatch)
    generated = [slots.generate_password() for _ in range(10)]
    for number, password in enumerate(generated):
        box = with_slot(box, key, password, f"device {number}", kdf=SlotKdf.HKDF)
    for password in generated:
        assert slots.unlock(box, ADA, password)[0].public_key == key.public_key
        assert slots.open_generated(box, ADA, password) is not None
    assert stretched == []
    assert slots.open_generated(box, ADA, PASSWORD) is None
    assert slots.open_generated(box, ADA, slots.generate_password()) is None
    slots.unlock(box, ADA, PASSWORD)
    assert len(stretched) == 1


def test_a_given_password_of_that_shape_is_stretched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    box, key = made(password=GIVEN_AS_GENERATED)
    stretched = counted(monkeypatch)
    assert slots.open_generated(box, ADA, GIVEN_AS_GENERATED) is None
    assert slots.unlock(box, ADA, GIVEN_AS_GENERATED)[0].public_key == key.public_key
    assert len(stretched) == 1


def test_where_all_are_generated_a_wrong_password_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    box, key = made()
    generated = slots.generate_password()
    box = slots.remove_slot(with_slot(box, key, generated, kdf=SlotKdf.HKDF), box.slots[0])
    monkeypatch.setattr(slots, "_stretch", lambda *_: pytest.fail("derived"))
    with pytest.raises(WrongPassword):
        slots.unlock(box, ADA, PASSWORD)
    assert slots.unlock(box, ADA, generated)[1].name == "phone"


def test_without_stretched_slots_the_next_one_gets_todays_cost() -> None:
    box, key = made()
    generated = slots.generate_password()
    box = slots.remove_slot(with_slot(box, key, generated, kdf=SlotKdf.HKDF), box.slots[0])
    dearer, _ = slots.add_slot(box, ADA, key, OTHER, name="new", now_s=NOW, cost=slots.Cost(16, 2))
    assert (dearer.kdf.memory_kib, dearer.kdf.iterations) == (16, 2)
    for password in (generated, OTHER):
        assert slots.unlock(dearer, ADA, password)[0].public_key == key.public_key


# ---- adding, removing, changing


@pytest.mark.parametrize(
    "name", ["scanner", "Ada's phone (2026)", "büro", "a@b, c+d.e_f", "\N{LATIN SMALL LIGATURE FI}x", "x" * 64]
)
def test_a_slot_is_found_by_its_name_in_any_case(name: str) -> None:
    box, key = made()
    both = with_slot(box, key, OTHER, name)
    check_lockbox(both)
    assert slots.find_slot(both, ADA, name.upper()).id == both.slots[1].id
    with pytest.raises(PasswordsUnchanged, match="already; choose another name"):
        with_slot(both, key, Secret("third"), name.upper())


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a/b", "x" * 65, "[slot]", "\x1b[31m", "=", "\udcff"])
def test_what_is_no_name_is_refused(name: str) -> None:
    box, key = made()
    with pytest.raises(PasswordsUnchanged, match="a password cannot be called"):
        with_slot(box, key, OTHER, name)


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    box, key = made()
    with pytest.raises(PasswordsUnchanged, match=r"has no password called 'tablet'; it has 'first', 'phone'"):
        slots.find_slot(with_slot(box, key, OTHER), ADA, "tablet")


@pytest.mark.parametrize("kdf", SlotKdf)
def test_no_two_slots_have_the_same_password(kdf: SlotKdf) -> None:
    box, key = made()
    both = with_slot(box, key, GIVEN_AS_GENERATED, kdf=kdf)
    for taken, name in ((PASSWORD, "first"), (GIVEN_AS_GENERATED, "phone")):
        with pytest.raises(PasswordsUnchanged, match=f"'{name}' of {ADA} is this very password"):
            with_slot(both, key, taken, "third")


def test_there_are_only_so_many() -> None:
    box, key = made()
    for number in range(MAX_SLOTS - 1):
        box = with_slot(box, key, slots.generate_password(), f"device {number}", kdf=SlotKdf.HKDF)
    with pytest.raises(PasswordsUnchanged, match="may have no more; remove one first"):
        with_slot(box, key, OTHER)


def test_an_empty_password_is_none() -> None:
    box, key = made()
    with pytest.raises(WrongPassword, match="empty password"):
        with_slot(box, key, Secret(""))


def test_a_removed_password_opens_nothing_and_the_others_do() -> None:
    box, key = made()
    both = with_slot(box, key, OTHER)
    left = slots.remove_slot(both, both.slots[0])
    with pytest.raises(WrongPassword):
        slots.unlock(left, ADA, PASSWORD)
    assert slots.unlock(left, ADA, OTHER)[1].name == "phone"


@pytest.mark.parametrize("to", SlotKdf)
@pytest.mark.parametrize("of", SlotKdf)
@pytest.mark.parametrize("alone", [True, False])
def test_a_changed_password_keeps_name_limits_and_place(of: SlotKdf, to: SlotKdf, alone: bool) -> None:
    old, new = slots.generate_password(), slots.generate_password()
    box, key = made()
    box = with_slot(box, key, old, kdf=of, limits=SMTP_ONLY)
    box = slots.remove_slot(box, box.slots[0]) if alone else with_slot(box, key, OTHER, "tablet")
    slot = slots.find_slot(box, ADA, "phone")
    after, changed = slots.change_slot(box, ADA, key, slot, new, now_s=NOW + 9, kdf=to, cost=CHEAP)
    assert [each.name for each in after.slots] == [each.name for each in box.slots]
    assert (changed.name, changed.limits, changed.created_s, changed.kdf) == ("phone", SMTP_ONLY, NOW + 9, to)
    assert changed.id != slot.id
    with pytest.raises(WrongPassword):
        slots.unlock(after, ADA, old)
    for password in (new,) if alone else (new, PASSWORD, OTHER):
        assert slots.unlock(after, ADA, password)[0].public_key == key.public_key


# ---- limits


def test_limits_are_kept_with_the_slot() -> None:
    box, key = made()
    limited = with_slot(box, key, OTHER, limits=Limits(("smtp", "SMTP"), ("10.0.0.0/8", "192.0.2.1"), NOW + 1))
    assert slots.unlock(limited, ADA, OTHER)[1].limits == Limits(("SMTP",), ("10.0.0.0/8", "192.0.2.1/32"), NOW + 1)


def test_a_password_that_has_ended_already_is_not_added() -> None:
    box, key = made()
    with pytest.raises(PasswordsUnchanged, match="would have ended already"):
        with_slot(box, key, OTHER, limits=Limits(expires_s=NOW))


FORGERIES: list[Callable[[Slot], Slot]] = [
    lambda slot: replace(slot, limits=Limits()),
    lambda slot: replace(slot, limits=replace(slot.limits, protocols=())),
    lambda slot: replace(slot, limits=replace(slot.limits, protocols=("IMAP", "SMTP"))),
    lambda slot: replace(slot, limits=replace(slot.limits, networks=())),
    lambda slot: replace(slot, limits=replace(slot.limits, networks=("0.0.0.0/0",))),
    lambda slot: replace(slot, limits=replace(slot.limits, expires_s=None)),
    lambda slot: replace(slot, limits=replace(slot.limits, expires_s=NOW + 10**6)),
]


@pytest.mark.parametrize("kdf", SlotKdf)
@pytest.mark.parametrize("forge", FORGERIES)
def test_forged_limits_open_nothing(forge: Callable[[Slot], Slot], kdf: SlotKdf) -> None:
    box, key = made()
    password = slots.generate_password()
    limited = with_slot(box, key, password, kdf=kdf, limits=SMTP_ONLY)
    forged = replace(limited, slots=(limited.slots[0], forge(limited.slots[1])))
    with pytest.raises(StateDamaged, match=r"key slot 'phone' of ada@example\.org is damaged, or its limits were chan"):
        slots.unlock(forged, ADA, password)
    slots.unlock(forged, ADA, PASSWORD)


def test_limits_put_on_a_slot_from_outside_open_nothing() -> None:
    box, _ = made()
    (slot,) = box.slots
    with pytest.raises(StateDamaged, match="limits were changed"):
        slots.unlock(replace(box, slots=(replace(slot, limits=SMTP_ONLY),)), ADA, PASSWORD)


def test_a_slot_of_the_other_kind_opens_nothing() -> None:
    box, key = made()
    password = slots.generate_password()
    both = with_slot(box, key, password, kdf=SlotKdf.HKDF)
    other = replace(both.slots[1], kdf=SlotKdf.ARGON2ID)
    with pytest.raises(WrongPassword):
        slots.unlock(replace(both, slots=(both.slots[0], other)), ADA, password)


def test_a_slot_moved_to_another_lockbox_is_found_out() -> None:
    box, key = made()
    generated = slots.generate_password()
    moved = with_slot(box, key, generated, kdf=SlotKdf.HKDF).slots[1]
    theirs: Lockbox = made()[0]
    with pytest.raises(StateDamaged, match="public key"):
        slots.unlock(replace(theirs, slots=(*theirs.slots, moved)), ADA, generated)
