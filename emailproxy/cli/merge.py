"""Sections of other files become sections of ours: appended, comments kept, and only those that our reader takes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from emailproxy.config import edit, ini
from emailproxy.config.draft import (
    CATCH_ALL_KEY,
    FILE_COMMENT,
    SectionExists,
    existing,
    unset_inherited,
    with_catch_all,
)
from emailproxy.config.model import Config
from emailproxy.config.repairs import placeholder
from emailproxy.config.scan import Report, Section, decode, scan
from emailproxy.config.section import SETTINGS_NAME
from emailproxy.errors import ConfigError

LINE_BREAK = re.compile(r"\s*(?:\r\n?|\n)\s*")


class Outcome(StrEnum):
    """What became of a section."""

    ADDED = "added"
    REPLACED = "replaced"
    PRESENT = "there already"
    """With the very same keys."""
    LEFT = "left alone"
    """Ours has another section of that name."""
    REFUSED = "not taken"


@dataclass(slots=True)
class Wanted:
    """One section to take over, and what became of it."""

    name: str
    values: Mapping[str, str]
    source: str
    """The file that it is from."""
    outcome: Outcome = Outcome.ADDED
    why: str = ""

    @property
    def is_taken(self) -> bool:
        return self.outcome in (Outcome.ADDED, Outcome.REPLACED)


@dataclass(frozen=True, slots=True)
class Merged:
    """Our file as it will be."""

    text: str
    config: Config
    wanted: Sequence[Wanted] = field(default=())

    @property
    def changes(self) -> bool:
        return any(section.is_taken for section in self.wanted)


def merge(path: Path, wanted: Sequence[Wanted], *, force: bool) -> Merged:
    """Our file with as many of the sections as its reader takes. Nothing is written.

    Raises:
        ConfigError: our file itself is wrong, or would be too large.
    """
    text, newline = existing(path)
    ini.loads(text, path, allow_placeholders=True)
    present = {section.name.casefold(): section for section in _sections(text)}
    seen: dict[str, Wanted] = {}
    for section in wanted:
        values = {key: _plain(value) for key, value in section.values.items()}
        if "@" in section.name:
            unset_inherited(values, present, section.name)
        section.values = values
        section.outcome, section.why = _judged(section, present, force=force)
        first = seen.setdefault(section.name.casefold(), section)
        if first is not section:
            section.outcome, section.why = Outcome.LEFT, f"{first.source} has a section of this name, too"
    new, config = _as_taken(text, path, wanted, present)
    return Merged(new.replace("\n", newline), config, wanted)


def _as_taken(text: str, path: Path, wanted: Sequence[Wanted], present: Mapping[str, Section]) -> tuple[str, Config]:
    """The text with all sections that are still to be taken; those that the reader refuses are dropped and told."""
    while True:
        taken = {section.name.casefold(): section for section in wanted if section.is_taken}
        new = _with(text, taken, present)
        try:
            return new, ini.loads(new, path, allow_placeholders=True)
        except ConfigError as error:
            if not _drop(taken, error, new):
                raise


def _judged(section: Wanted, present: Mapping[str, Section], *, force: bool) -> tuple[Outcome, str]:
    """What is to become of a section. Where its file did not say something that ours says, ours counts."""
    old = present.get(section.name.casefold())
    if not _is_read_back(section):
        return Outcome.REFUSED, "its name or a value cannot stand in a configuration file"
    if old is None:
        return Outcome.ADDED, ""
    if section.name == SETTINGS_NAME:
        section.values = {key: value for key, value in section.values.items() if key not in old.entries}
        return (Outcome.ADDED if section.values else Outcome.PRESENT), ""
    known = {key: entry.value for key, entry in old.entries.items()}
    section.values = {
        key: known.get(key, value) if placeholder(key, value) else value for key, value in section.values.items()
    }
    if known == section.values:
        return Outcome.PRESENT, ""
    if not force:
        return Outcome.LEFT, f"line {old.line} has a section of this name; --force replaces it"
    return Outcome.REPLACED, ""


def _with(text: str, taken: Mapping[str, Wanted], present: Mapping[str, Section]) -> str:
    if taken and not text.strip():
        text = "".join(f"# {line}\n" for line in FILE_COMMENT.splitlines())
    for section in taken.values():
        if section.name.startswith("@"):
            text = _with_catch_alls(text, section)
        if section.name == SETTINGS_NAME and SETTINGS_NAME.casefold() in present:
            text, _ = edit.set_keys(text, SETTINGS_NAME, section.values)
        elif section.outcome is Outcome.REPLACED:
            text, _ = edit.set_keys(text, present[section.name.casefold()].name, section.values, replace=True)
        elif section.outcome is Outcome.ADDED:
            text = edit.append_section(text, section.name, section.values, f"Imported from {section.source}")
    return text


def _with_catch_alls(text: str, section: Wanted) -> str:
    """The text with catch-alls allowed, unless our file forbids them: then the section is of no use."""
    settings = next((found for found in _sections(text) if found.name == SETTINGS_NAME), None)
    try:
        return with_catch_all(text, settings, force=False)
    except SectionExists:
        section.outcome = Outcome.REFUSED
        section.why = f"catch-all accounts are switched off; set {CATCH_ALL_KEY} = True in [{SETTINGS_NAME}]"
        return text


def _drop(taken: Mapping[str, Wanted], error: ConfigError, text: str) -> bool:
    """Leaves out the sections that hold a fault. Whether there was one."""
    sections = _sections(text)
    starts = [section.line for section in sections]
    found: dict[str, list[str]] = {}
    for fault in error.faults:
        place = bisect_right(starts, fault.line or 0) - 1
        name = sections[place].name.casefold() if place >= 0 else ""
        if name in taken:
            what = f"{fault.key} {fault.what}" if fault.key else fault.what
            found.setdefault(name, []).append(f"{what} ({fault.mend})")
    for name, faults in found.items():
        taken[name].outcome, taken[name].why = Outcome.REFUSED, "; ".join(faults)
    return bool(found)


def _is_read_back(section: Wanted) -> bool:
    """Whether the section, written, is read as this section with these values and as nothing else."""
    report = Report("")
    text = edit.append_section("", section.name, section.values)
    found = scan(decode(text.encode("utf-8", "surrogatepass"), report), report)
    if report.faults or [one.name for one in found] != [section.name]:
        return False
    return {key: entry.value for key, entry in found[0].entries.items()} == section.values


def _plain(value: str) -> str:
    """A value as our reader returns it: no spaces around its lines."""
    return LINE_BREAK.sub("\n", value.strip())


def _sections(text: str) -> list[Section]:
    return scan(text, Report(""))
