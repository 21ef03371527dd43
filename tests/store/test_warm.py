"""What a process remembers of passwords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store import warm as module
from emailproxy.store.base import Limits, Lockbox
from emailproxy.store.sealing import AccountKey
from emailproxy.store.warm import WarmCache
from tests.store.samples import ADA, CHEAP, NOW, PASSWORD, flipped, made

OTHER = Secret("other")


@pytest.fixture
def warm() -> WarmCache:
    return WarmCache()


def known(warm: WarmCache, box: Lockbox, account: str = ADA, password: Secret = PASSWORD) -> AccountKey:
    key = made()[1]
    warm.remember(account, box, password, key, box.slots[0])
    return key


def key_of(warm: WarmCache, box: Lockbox, account: str = ADA, password: Secret = PASSWORD) -> AccountKey | None:
    found = warm.find(account, box, password)
    return None if found is None else found[0]


def test_a_warm_login_derives_nothing(warm: WarmCache) -> None:
    box = made()[0]
    unaffordable = replace(box, kdf=replace(box.kdf, memory_kib=4_000_000_000))
    key = known(warm, unaffordable)
    assert warm.find("Ada@example.org", unaffordable, PASSWORD) == (key, box.slots[0])


@pytest.mark.parametrize("wrong", ["", "correct hors", "correct horse "])
def test_a_wrong_password_is_never_warm(warm: WarmCache, wrong: str) -> None:
    box = made()[0]
    known(warm, box)
    assert key_of(warm, box, password=Secret(wrong)) is None
    assert key_of(warm, box, "eve@example.org") is None
    assert not warm.may_be_warm(ADA, Secret(wrong))
    assert not warm.may_be_warm("eve@example.org", PASSWORD)


def changed(**changes: object) -> Callable[[Lockbox], Lockbox]:
    return lambda box: replace(box, slots=(replace(box.slots[0], **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        lambda box: replace(box, public_key=flipped(box.public_key)),
        lambda box: replace(box, kdf=replace(box.kdf, salt=flipped(box.kdf.salt))),
        lambda box: replace(box, kdf=replace(box.kdf, iterations=2)),
        lambda box: replace(box, slots=()),
        changed(id="00" * 16),
        changed(wrapped=b"x" * 60),
        changed(limits=Limits(("SMTP",))),
    ],
)
def test_a_changed_slot_or_key_pair_is_cold(warm: WarmCache, change: Callable[[Lockbox], Lockbox]) -> None:
    box, key = made()
    known(warm, box)
    after = change(box)
    assert warm.find(ADA, after, PASSWORD) is None
    assert warm.may_be_warm(ADA, PASSWORD), "what has become of the lockbox is not known without it"
    warm.remember(ADA, after, Secret("new"), key, replace(box.slots[0], id="11" * 16))
    assert warm.find(ADA, after, PASSWORD) is None


def test_other_slots_come_and_go_and_a_password_stays_warm(warm: WarmCache) -> None:
    box, key = made()
    known(warm, box)
    both, slot = slots.add_slot(box, ADA, key, OTHER, name="phone", now_s=NOW, cost=CHEAP)
    warm.remember(ADA, both, OTHER, key, slot)
    used = replace(both, slots=tuple(replace(each, last_used_s=NOW) for each in both.slots))
    for now in (box, both, used):
        assert warm.find(ADA, now, PASSWORD) is not None
    found = warm.find(ADA, used, OTHER)
    assert found is not None
    assert found[1].last_used_s == NOW
    assert warm.find(ADA, slots.remove_slot(both, slot), OTHER) is None


def test_the_account_used_longest_ago_makes_room(warm: WarmCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WARM_ACCOUNTS", 2)
    box = made()[0]
    known(warm, box, "a")
    known(warm, box, "b")
    assert key_of(warm, box, "a") is not None
    known(warm, box, "c")
    assert [key_of(warm, box, name) is not None for name in "abc"] == [True, False, True]


def test_the_oldest_password_makes_room(warm: WarmCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WARM_PASSWORDS", 2)
    box = made()[0]
    for password in "abc":
        known(warm, box, password=Secret(password))
    assert [key_of(warm, box, password=Secret(password)) is not None for password in "abc"] == [False, True, True]


# ---- wrong ones


def test_a_wrong_password_is_known_again_to_whom_it_came_from_for_this_lockbox_only(warm: WarmCache) -> None:
    box, key = made()
    warm.remember_wrong(ADA, box, OTHER, "192.0.2.1")
    assert warm.is_wrong("Ada@example.org", box, OTHER, "192.0.2.1")
    assert not warm.is_wrong(ADA, box, OTHER, "192.0.2.2")
    assert not warm.is_wrong(ADA, box, PASSWORD, "192.0.2.1")
    assert not warm.is_wrong("eve@example.org", box, OTHER, "192.0.2.1")
    both, _ = slots.add_slot(box, ADA, key, OTHER, name="phone", now_s=NOW, cost=CHEAP)
    assert not warm.is_wrong(ADA, both, OTHER, "192.0.2.1")


def test_what_is_known_as_wrong_is_bounded(warm: WarmCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WRONG", 2)
    box = made()[0]
    for password in "abc":
        warm.remember_wrong(ADA, box, Secret(password), "")
    assert [warm.is_wrong(ADA, box, Secret(password), "") for password in "abc"] == [False, True, True]
    assert len(warm._wrong) == 2
