"""Records and pending consents as INI text, and back.

Section names are fixed and every text that comes from outside is base64, so that no login name can forge a section
or a key. Reading is strict: what does not belong there, is missing, or is out of bounds makes a file damaged. An
`[end]` section closes each file, as a cut-off one could otherwise pass for one with fewer key slots or tokens.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from emailproxy.errors import StateDamaged, StateError
from emailproxy.store.base import Kdf, Limits, Lockbox, Pending, Record, Slot, SlotKdf
from emailproxy.store.bounds import check_lockbox

FORMAT = 1
MAX_FIGURE = 2**53  # times, generations and costs are far below; JSON's limit for integers
CACHED_CONSENTS = 1024  # kept by their octets: who looks for an account's consent reads all that wait

SLOT_SECTION = re.compile(r"slot ([0-9a-f]{32})")
TOKEN_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
STATE_HASH = re.compile(r"[0-9a-f]{64}")
WORDS = re.compile(r"[A-Za-z0-9.:/]+( [A-Za-z0-9.:/]+)*")
QUICK_KDF = re.compile(SlotKdf.HKDF.value)  # the other is not written: most slots, and all old ones, have it

RECORD_HEADER = """\
# emailproxy keeps one mail account here: its tokens, sealed, and the key slots that its local passwords open.
# The program writes this file; change nothing by hand. Keep it private (mode 0600): who has a copy can try
# passwords on it. To be rid of it: emailproxy accounts remove ACCOUNT. More: the README, on state at rest.
"""
PENDING_HEADER = """\
# emailproxy keeps one pending sign-in here, until its owner has signed in, or the link or code has ended.
# The program writes this file; change nothing by hand. To start anew, delete it and log in again.
# More: the README, on state at rest.
"""

Sections = dict[str, dict[str, str]]
Kept = TypeVar("Kept", Record, Pending)


# ---- writing


def dump_record(record: Record) -> bytes:
    """The file of a record; `parse_record` gives the same record again, its name case-folded.

    Raises:
        StateError: it would not.
    """
    account = {
        "format": str(FORMAT),
        "name": _text(record.account.casefold()),
        "generation": str(record.generation),
        "scope": _text(record.scope),
        "needs_sign_in": "yes" if record.needs_sign_in else "no",
        "last_error": _text(record.last_error),
    }
    for key, seconds in (("expires_at_s", record.expires_at_s), ("obtained_at_s", record.obtained_at_s)):
        if seconds is not None:
            account[key] = str(seconds)
    tokens = {name: _octets(sealed) for name, sealed in sorted(record.sealed.items())}
    data = _write(RECORD_HEADER, {"account": account, **_dump_lockbox(record.lockbox), "tokens": tokens})
    return _checked(data, parse_record, record)


def dump_pending(pending: Pending) -> bytes:
    """The file of a consent, as `dump_record`."""
    consent = {
        "format": str(FORMAT),
        "state_hash": pending.state_hash,
        "account": _text(pending.account.casefold()),
        "display_name": _text(pending.display_name),
        "created_s": str(pending.created_s),
        "expires_s": str(pending.expires_s),
        "sealed_state": _octets(pending.sealed_state),
        "encrypted": _octets(pending.encrypted),
    }
    for key, text in (("device_url", pending.device_url), ("user_code", pending.user_code)):
        if text:
            consent[key] = _text(text)
    if pending.replaces:
        consent["replaces"] = _octets(pending.replaces)
    return _checked(
        _write(PENDING_HEADER, {"consent": consent, **_dump_lockbox(pending.lockbox)}), parse_pending, pending
    )


def _checked(data: bytes, parse: Callable[[bytes], Kept], kept: Kept) -> bytes:
    """The data, once it is known to read back as what it was written from."""
    try:
        same = parse(data) == replace(kept, account=kept.account.casefold())
    except StateDamaged as error:
        raise StateError(f"what is to be kept of {kept.account} is not whole ({error})") from None
    if not same:
        raise StateError(f"what is to be kept of {kept.account} would not read back the same")
    return data


def _dump_lockbox(lockbox: Lockbox) -> Sections:
    kdf = lockbox.kdf
    sections = {
        "kdf": {
            "salt": _octets(kdf.salt),
            "memory_kib": str(kdf.memory_kib),
            "iterations": str(kdf.iterations),
            "lanes": str(kdf.lanes),
        },
        "key": {"public": _octets(lockbox.public_key)},
    }
    for slot in lockbox.slots:
        sections[f"slot {slot.id}"] = {
            "name": _text(slot.name),
            "created_s": str(slot.created_s),
            "commitment": _octets(slot.commitment),
            "wrapped": _octets(slot.wrapped),
            **_dump_optional(slot),
        }
    return sections


def _dump_optional(slot: Slot) -> dict[str, str]:
    """What most slots do not have."""
    keys = {} if slot.kdf is SlotKdf.ARGON2ID else {"kdf": slot.kdf.value}
    for key, words in (("protocols", slot.limits.protocols), ("networks", slot.limits.networks)):
        if words:
            keys[key] = " ".join(words)
    for key, seconds in (("expires_s", slot.limits.expires_s), ("last_used_s", slot.last_used_s)):
        if seconds is not None:
            keys[key] = str(seconds)
    return keys


def _write(header: str, sections: Mapping[str, Mapping[str, str]]) -> bytes:
    lines = [header]
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()), ""]
    lines += ["[end]", ""]
    return "\n".join(lines).encode()


def _octets(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _text(value: str) -> str:
    return _octets(value.encode("utf-8", "surrogatepass"))


# ---- reading


def parse_record(data: bytes) -> Record:
    """The record that `dump_record` was given.

    Raises:
        StateDamaged: the text says what is wrong; the caller knows the file and the mend.
    """
    sections = _sections(data)
    account = _Section("account", sections)
    account.expect_format()
    record = Record(
        account=account.text("name"),
        generation=account.figure("generation"),
        scope=account.text("scope"),
        needs_sign_in=account.flag("needs_sign_in"),
        last_error=account.text("last_error"),
        expires_at_s=account.optional_figure("expires_at_s"),
        obtained_at_s=account.optional_figure("obtained_at_s"),
        lockbox=_parse_lockbox(sections),
        sealed=_parse_tokens(sections),
    )
    account.end()
    _refuse_rest(sections)
    return record


@lru_cache(CACHED_CONSENTS)
def parse_pending(data: bytes) -> Pending:
    """The consent that `dump_pending` was given.

    Raises:
        StateDamaged: as for `parse_record`.
    """
    sections = _sections(data)
    consent = _Section("consent", sections)
    consent.expect_format()
    pending = Pending(
        state_hash=consent.match("state_hash", STATE_HASH),
        account=consent.text("account"),
        display_name=consent.text("display_name"),
        created_s=consent.figure("created_s"),
        expires_s=consent.figure("expires_s"),
        lockbox=_parse_lockbox(sections),
        sealed_state=consent.octets("sealed_state"),
        encrypted=consent.octets("encrypted"),
        device_url=consent.optional_text("device_url"),
        user_code=consent.optional_text("user_code"),
        replaces=consent.optional_octets("replaces"),
    )
    consent.end()
    _refuse_rest(sections)
    return pending


def _sections(data: bytes) -> Sections:
    # An empty default_section matches no header: `[DEFAULT]` is a stranger, and nothing is inherited.
    parser = ConfigParser(
        interpolation=None, default_section="", delimiters=("=",), comment_prefixes=("#",), empty_lines_in_values=False
    )
    try:
        parser.read_string(data.decode("ascii"))
    except UnicodeDecodeError as error:
        raise StateDamaged(f"octet {error.start} is not ASCII") from None
    except IniError as error:
        line = getattr(error, "lineno", None)
        raise StateDamaged(f"line {line} does not belong there" if line else "it is not INI text") from None
    sections = {name: dict(parser[name]) for name in parser.sections()}
    if sections.pop("end", None) != {}:
        raise StateDamaged("it is cut off: the [end] is missing")
    return sections


def _refuse_rest(sections: Iterable[str]) -> None:
    for name in sections:
        raise StateDamaged(f"the section {name[:40]!r} does not belong there")


class _Section:
    """One section; each key is taken once, and none may be left over."""

    def __init__(self, name: str, sections: Sections) -> None:
        self._name = name
        keys = sections.pop(name, None)
        if keys is None:
            raise StateDamaged(f"the section [{name}] is missing")
        self._keys = keys

    def _wrong(self, key: str, what: str) -> StateDamaged:
        return StateDamaged(f"[{self._name}] {key} {what}")

    def _take(self, key: str) -> str:
        try:
            return self._keys.pop(key)
        except KeyError:
            raise self._wrong(key, "is missing") from None

    def expect_format(self) -> None:
        if self.figure("format") != FORMAT:
            raise self._wrong("format", f"is not {FORMAT}: another version of emailproxy wrote it")

    def octets(self, key: str) -> bytes:
        try:
            return base64.b64decode(self._take(key), validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong(key, "is not base64") from None

    def text(self, key: str) -> str:
        try:
            return self.octets(key).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self._wrong(key, "is not text") from None

    def optional_octets(self, key: str) -> bytes:
        return self.octets(key) if key in self._keys else b""

    def optional_text(self, key: str) -> str:
        return self.text(key) if key in self._keys else ""

    def words(self, key: str) -> tuple[str, ...]:
        """Words in the clear; none where the key is not there."""
        return tuple(self.match(key, WORDS).split(" ")) if key in self._keys else ()

    def match(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self._take(key)
        if not pattern.fullmatch(value):
            raise self._wrong(key, "is malformed")
        return value

    def figure(self, key: str) -> int:
        value = self._take(key)
        if not re.fullmatch(r"[0-9]{1,16}", value) or int(value) > MAX_FIGURE:
            raise self._wrong(key, f"is not a number from 0 to {MAX_FIGURE}")
        return int(value)

    def optional_figure(self, key: str) -> int | None:
        return self.figure(key) if key in self._keys else None

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if value not in ("yes", "no"):
            raise self._wrong(key, "is neither yes nor no")
        return value == "yes"

    def kdf(self) -> SlotKdf:
        if "kdf" not in self._keys:
            return SlotKdf.ARGON2ID
        return SlotKdf(self.match("kdf", QUICK_KDF))

    def rest(self) -> list[str]:
        return list(self._keys)

    def end(self) -> None:
        for key in self._keys:
            raise StateDamaged(f"[{self._name}] the key {key[:40]!r} does not belong there")


def _parse_lockbox(sections: Sections) -> Lockbox:
    figures = _Section("kdf", sections)
    kdf = Kdf(
        salt=figures.octets("salt"),
        memory_kib=figures.figure("memory_kib"),
        iterations=figures.figure("iterations"),
        lanes=figures.figure("lanes"),
    )
    figures.end()
    pair = _Section("key", sections)
    public_key = pair.octets("public")
    pair.end()
    slots = tuple(_parse_slot(match[1], sections) for name in list(sections) if (match := SLOT_SECTION.fullmatch(name)))
    lockbox = Lockbox(public_key, kdf, slots)
    check_lockbox(lockbox)
    return lockbox


def _parse_slot(slot_id: str, sections: Sections) -> Slot:
    section = _Section(f"slot {slot_id}", sections)
    slot = Slot(
        id=slot_id,
        name=section.text("name"),
        created_s=section.figure("created_s"),
        commitment=section.octets("commitment"),
        wrapped=section.octets("wrapped"),
        kdf=section.kdf(),
        limits=Limits(section.words("protocols"), section.words("networks"), section.optional_figure("expires_s")),
        last_used_s=section.optional_figure("last_used_s"),
    )
    section.end()
    return slot


def _parse_tokens(sections: Sections) -> Mapping[str, bytes]:
    section = _Section("tokens", sections)
    tokens = {}
    for name in section.rest():
        if not TOKEN_FIELD.fullmatch(name):
            raise StateDamaged(f"[tokens] {name[:40]!r} is not a field's name")
        tokens[name] = section.octets(name)
    return MappingProxyType(tokens)
