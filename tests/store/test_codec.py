"""Records and consents as INI text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emailproxy.errors import StateDamaged, StateError
from emailproxy.secret import Secret
from emailproxy.store import codec, slots
from emailproxy.store.base import Limits, Pending, Record, SlotKdf
from tests.store.samples import ADA, CHEAP, NOW, lockbox, made, pending, record

BOX = lockbox()
LIMITS = Limits(("POP", "SMTP"), ("10.0.0.0/8", "2001:db8::/32"), NOW + 3600)
FIGURES = st.integers(0, codec.MAX_FIGURE)
RECORDS = st.builds(
    Record,
    account=st.text().map(str.casefold),
    lockbox=st.just(BOX),
    generation=FIGURES,
    sealed=st.dictionaries(st.from_regex(codec.TOKEN_FIELD, fullmatch=True), st.binary()),
    expires_at_s=st.none() | FIGURES,
    obtained_at_s=st.none() | FIGURES,
    scope=st.text(),
    needs_sign_in=st.booleans(),
    last_error=st.text(),
)
PENDINGS = st.builds(
    Pending,
    state_hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    account=st.text().map(str.casefold),
    display_name=st.text(),
    created_s=FIGURES,
    expires_s=FIGURES,
    lockbox=st.just(BOX),
    sealed_state=st.binary(),
    encrypted=st.binary(),
    device_url=st.text(),
    user_code=st.text(),
)
FILE = codec.dump_record(record())


def several() -> Record:
    """A record with every kind of slot."""
    box, key = made()
    for name, kdf, limits in (
        ("plain", SlotKdf.ARGON2ID, Limits()),
        ("generated", SlotKdf.HKDF, Limits()),
        ("limited", SlotKdf.HKDF, LIMITS),
        ("ending", SlotKdf.ARGON2ID, Limits(expires_s=NOW + 1)),
    ):
        box, _ = slots.add_slot(box, ADA, key, Secret(name), name=name, limits=limits, now_s=NOW, kdf=kdf, cost=CHEAP)
    used = replace(box.slots[1], last_used_s=NOW + 7)
    return replace(record(), lockbox=replace(box, slots=(box.slots[0], used, *box.slots[2:])))


SEVERAL = codec.dump_record(several())


def complaint(data: bytes) -> str:
    try:
        codec.parse_record(data)
    except StateDamaged as error:
        return str(error)
    return ""


@given(RECORDS)
def test_a_record_reads_back_as_it_was(kept: Record) -> None:
    assert codec.parse_record(codec.dump_record(kept)) == kept


@given(PENDINGS)
def test_a_consent_reads_back_as_it_was(kept: Pending) -> None:
    assert codec.parse_pending(codec.dump_pending(kept)) == kept


@pytest.mark.parametrize(
    "text", ["a@b]\n[SMTP-25", "x\n[tokens]\naccess_token = AA==", "# ; = %(name)s %%", "\udcff", "\0"]
)
def test_no_text_forges_a_section(text: str) -> None:
    kept = replace(record(), account=text.casefold(), scope=text, last_error=text)
    data = codec.dump_record(kept)
    assert codec.parse_record(data) == kept
    headers = re.findall(rb"^\[.*", data, re.MULTILINE)
    assert headers == [
        b"[account]",
        b"[kdf]",
        b"[key]",
        f"[slot {kept.lockbox.slots[0].id}]".encode(),
        b"[tokens]",
        b"[end]",
    ]


def test_a_file_says_what_it_is() -> None:
    for data in (FILE, codec.dump_pending(pending("state"))):
        assert data.startswith(b"# emailproxy keeps one ")
        assert b"README" in data


def test_a_file_cut_off_anywhere_is_damaged() -> None:
    for size in range(FILE.index(b"[end]") + len(b"[end]")):
        with pytest.raises(StateDamaged):
            codec.parse_record(FILE[:size])


@settings(deadline=None)
@given(st.binary())
def test_any_other_octets_are_damaged(data: bytes) -> None:
    for parse in (codec.parse_record, codec.parse_pending):
        with pytest.raises(StateDamaged):
            parse(data)


@given(st.integers(0, len(FILE) - 1), st.binary(max_size=3))
def test_a_changed_file_is_read_or_damaged_and_nothing_else(at: int, change: bytes) -> None:
    assert complaint(FILE[:at] + change + FILE[at + 1 :]).isprintable()


@pytest.mark.parametrize(
    ("pattern", "replacement", "what"),
    [
        (rb"memory_kib = \d+", b"memory_kib = 4000000000", "4000000000 Argon2id memory_kib, where 8 to"),
        (rb"memory_kib = \d+", b"memory_kib = -8", r"\[kdf\] memory_kib is not a number"),
        (rb"memory_kib = \d+", b"memory_kib = 1e3", r"\[kdf\] memory_kib is not a number"),
        (rb"iterations = \d+", b"iterations = 99999999999999999999", r"\[kdf\] iterations is not a number"),
        (rb"iterations = \d+", b"iterations = 17", "17 Argon2id iterations"),
        (rb"lanes = 1", b"lanes = 4", "4 Argon2id lanes, where 1 may be"),
        (rb"salt = .*", b"salt = AAAA", "3 octets of salt"),
        (rb"salt = .*", b"salt = !", r"\[kdf\] salt is not base64"),
        (rb"public = .*", b"public = ", "0 octets of public_key"),
        (rb"commitment = .*", b"commitment = AAAA", "3 octets of commitment"),
        (rb"wrapped = .*", b"wrapped = AAAA", "3 octets of wrapped key"),
        (rb"(?s)\[slot.*(?=\[tokens)", b"", "0 key slots"),
        (rb"\[slot ", b"[slot X", "0 key slots"),
        (rb"\[tokens\]", b"[DEFAULT]", r"section \[tokens\] is missing"),
        (rb"\[end\]", b"[DEFAULT]\ngeneration = 1\n[end]", r"section 'DEFAULT' does not belong"),
        (rb"\[kdf\]", b"[kdf]\nkdf = 1", r"\[kdf\] the key 'kdf' does not belong"),
        (rb"\[account\]", b"[account]\n[account]", "line 6 does not belong"),
        (rb"\[account\]", b"[account]\ngeneration = 1", "does not belong"),
        (rb"\[account\]", b"x", "line 5 does not belong"),
        (rb"\[account\]", b"[account]\nowner = 1", r"\[account\] the key 'owner' does not belong"),
        (rb"(\[slot [0-9a-f]+\])", b"[slot " + b"0" * 32 + b"]\nx = 1", "the key 'x' does not belong"),
        (rb"\[key\]", b"[key]\nx = 1", r"\[key\] the key 'x' does not belong"),
        (rb"generation = .*\n", b"", r"\[account\] generation is missing"),
        (rb"format = 1", b"format = 2", "another version"),
        (rb"name = .*", b"name = /w==", r"\[account\] name is not text"),
        (rb"needs_sign_in = no", b"needs_sign_in = maybe", "neither yes nor no"),
        (rb"access_token", b"access-token", "'access-token' is not a field's name"),
        (rb"scope = ", b"scope = \xff", "is not ASCII"),
        (rb"scope = ", b"scope = \0", r"\[account\] scope is not base64"),
    ],
)
def test_what_is_wrong_is_named(pattern: bytes, replacement: bytes, what: str) -> None:
    data, changes = re.subn(pattern, lambda _: replacement, FILE, count=1)
    assert changes == 1
    with pytest.raises(StateDamaged, match=what):
        codec.parse_record(data)


def test_a_consents_hash_is_checked() -> None:
    data = re.sub(rb"state_hash = .", b"state_hash = X", codec.dump_pending(pending("state")))
    with pytest.raises(StateDamaged, match="state_hash is malformed"):
        codec.parse_pending(data)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(record(), generation=-1),
        replace(record(), expires_at_s=2**60),
        replace(record(), sealed={"Access": b""}),
        replace(record(), sealed={"a\n[kdf]": b""}),
        replace(record(), lockbox=replace(BOX, slots=())),
        replace(record(), lockbox=replace(BOX, kdf=replace(BOX.kdf, memory_kib=4_000_000_000))),
        replace(record(), lockbox=replace(BOX, slots=(replace(BOX.slots[0], id="no]\n[slot"),))),
    ],
)
def test_what_could_not_be_read_again_is_not_written(wrong: Record) -> None:
    with pytest.raises(StateError, match=r"what is to be kept of ada@example\.org"):
        codec.dump_record(wrong)


# ---- what only some slots have


def test_every_kind_of_slot_reads_back_as_it_was() -> None:
    kept = several()
    read = codec.parse_record(codec.dump_record(kept))
    assert read == kept
    assert [slot.last_used_s for slot in read.lockbox.slots] == [None, NOW + 7, None, None, None]


def test_slots_without_limits_are_written_as_they_always_were() -> None:
    (slot,) = re.findall(rb"(?s)\[slot [0-9a-f]{32}\]\n(.*?)\n\n", FILE)
    assert re.findall(rb"(?m)^\w+", slot) == [b"name", b"created_s", b"commitment", b"wrapped"]


@pytest.mark.parametrize(
    ("pattern", "replacement", "what"),
    [
        (rb"kdf = hkdf", b"kdf = argon2id", r"\] kdf is malformed"),
        (rb"kdf = hkdf", b"kdf = none", r"\] kdf is malformed"),
        (rb"protocols = .*", b"protocols = SMTP POP", "not spelt as they are kept"),
        (rb"protocols = .*", b"protocols = smtp", "not spelt as they are kept"),
        (rb"protocols = .*", b"protocols = FTP", "'FTP' is no protocol"),
        (rb"protocols = .*", b"protocols = ", r"\] protocols is malformed"),
        (rb"protocols = .*", b"protocols = POP  SMTP", r"\] protocols is malformed"),
        (rb"networks = .*", b"networks = 10.0.0.1/8", "write 10.0.0.0/8"),
        (rb"networks = .*", b"networks = 10.0.0.0", "not spelt as they are kept"),
        (rb"networks = .*", b"networks = home", "'home' is no network"),
        (rb"networks = .*", b"networks = " + b"10.0.0.0/8 " * 9999 + b"::/0", "not spelt as they are kept"),
        (rb"expires_s = \d+\n(?!obtained)", b"expires_s = -1\n", r"\] expires_s is not a number"),
        (rb"expires_s = \d+\n(?!obtained)", b"expires_s = 9007199254740991\n", "a year before 9999"),
        (rb"last_used_s = .*", b"last_used_s = yesterday", r"\] last_used_s is not a number"),
        (rb"name = .*\ncreated_s", b"name = Cg==\ncreated_s", "cannot be called"),
    ],
)
def test_what_is_wrong_with_a_slot_is_named(pattern: bytes, replacement: bytes, what: str) -> None:
    data, changes = re.subn(pattern, lambda _: replacement, SEVERAL, count=1)
    assert changes == 1
    with pytest.raises(StateDamaged, match=what):
        codec.parse_record(data)


def test_two_slots_with_one_name_are_damaged() -> None:
    plain, first = codec._text("plain").encode(), codec._text("FIRST").encode()
    with pytest.raises(StateDamaged, match="two key slots have the same name"):
        codec.parse_record(SEVERAL.replace(plain, first))
