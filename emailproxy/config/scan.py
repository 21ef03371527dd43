"""The lines of an INI file: sections and keys with their line numbers, and every fault of the syntax.

The grammar is `configparser`'s without interpolation, inline comments or keys without a value::

    file     = *(blank / comment / section)
    comment  = *WSP ("#" / ";") text
    section  = *WSP "[" name "]" *(blank / comment / entry)
    entry    = key *WSP ("=" / ":") *WSP value *continuation
    continuation = a line that is indented deeper than its key

`configparser` stops at the first duplicate and forgets line numbers, so that it could not name all faults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from emailproxy.errors import Fault

MAX_FILE_OCTETS = 16 << 20  # thousands of accounts, with another proxy's cached tokens; beyond it it is the wrong file
MAX_SHOWN = 60  # characters of a file's own text in a message

# `configparser` ends the name at the last bracket, so that a comment with one would be part of it
HEADER = re.compile(r"\[(?P<name>[^\[\]]+)\]\s*(?:[#;][^\]]*)?\Z")
DELIMITER = re.compile(r"[=:]")
KEY = re.compile(r"[a-z][a-z0-9_. -]*\Z")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(slots=True)
class Entry:
    """One key with its value, which may span lines."""

    section: str
    key: str
    """In lower case: keys compare without regard to case."""
    line: int
    parts: list[str]
    """The value, line by line, the first one beside the key."""

    @property
    def value(self) -> str:
        return "\n".join(self.parts).strip()


@dataclass(slots=True)
class Section:
    name: str
    line: int
    entries: dict[str, Entry] = field(default_factory=dict)
    torn: bool = False
    """Whether another section has the same name: what one lacks, the other may have."""


@dataclass(slots=True)
class Report:
    """Collects what is wrong with a file, and what was repaired."""

    file: str
    faults: list[Fault] = field(default_factory=list)
    notices: list[Fault] = field(default_factory=list)

    def fault(self, where: Entry | Section | int | None, what: str, mend: str, key: str | None = None) -> None:
        self.faults.append(self._about(where, what, mend, key))

    def notice(self, where: Entry | Section | int | None, what: str, mend: str) -> None:
        self.notices.append(self._about(where, what, mend, None))

    def _about(self, where: Entry | Section | int | None, what: str, mend: str, key: str | None) -> Fault:
        match where:
            case Entry():
                return Fault(self.file, where.line, shown(where.section), shown(where.key), what, mend)
            case Section():
                return Fault(self.file, where.line, shown(where.name), key, what, mend)
            case _:
                return Fault(self.file, where, None, key, what, mend)


def in_order(faults: list[Fault]) -> tuple[Fault, ...]:
    """Each fault once, in the order of the file; those of the whole file last."""
    unique = dict.fromkeys(faults)
    return tuple(sorted(unique, key=lambda fault: (fault.line is None, fault.line or 0)))


def shown(text: str) -> str:
    """A file's own text, fit for a message: printable and short."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= MAX_SHOWN else f"{printable[:MAX_SHOWN]}..."


def decode(data: bytes, report: Report) -> str:
    """The text of a file, a byte order mark and CRLF taken away. Faults leave an empty text."""
    if len(data) > MAX_FILE_OCTETS:
        report.fault(None, f"is larger than {MAX_FILE_OCTETS} octets", "name the configuration file")
        return ""
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        report.fault(line, "holds a NUL octet", "save the file as UTF-8 text")
        return ""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        report.fault(line, "is not UTF-8", "save the file as UTF-8 text")
        return ""
    return re.sub("\r\n?", "\n", text)


def scan(text: str, report: Report) -> list[Section]:
    """All sections of the file in their order, duplicates included; the report gets the syntax's faults."""
    scanner = _Scanner(report)
    for number, line in enumerate(text.split("\n"), 1):
        scanner.take(number, line)
    return scanner.sections


class _Scanner:
    """Takes one line after the other."""

    def __init__(self, report: Report) -> None:
        self.sections: list[Section] = []
        self._report = report
        self._first: dict[str, Section] = {}
        self._entry: Entry | None = None
        self._indent = 0

    def take(self, number: int, line: str) -> None:
        text = line.strip()
        if text.startswith(("#", ";")):
            return
        if CONTROL.search(line):
            self._entry = None
            self._report.fault(number, "holds a control character", "remove it")
            return
        indent = len(line) - len(line.lstrip())
        if self._entry is not None and (not text or indent > self._indent):
            self._entry.parts.append(text)
        elif text:
            self._indent = indent
            self._entry = None
            if text.startswith("["):
                self._header(number, text)
            else:
                self._option(number, text)

    def _header(self, number: int, text: str) -> None:
        match = HEADER.match(text)
        name = match["name"] if match else ""
        if not name.strip() or name != name.strip():
            what = "is not a section: a section is [NAME] alone on its line"
            self._report.fault(number, what, "write e.g. [IMAP-2993] or [user@example.com]")
            name = ""
        section = Section(name, number)
        self.sections.append(section)
        first = self._first.setdefault(name, section)
        if name and first is not section:
            section.torn = first.torn = True
            what = f"the section is there twice, first on line {first.line}"
            self._report.fault(section, what, "merge the two, or remove one")

    def _option(self, number: int, text: str) -> None:
        delimiter = DELIMITER.search(text)
        key = text[: delimiter.start()].rstrip().lower() if delimiter else ""
        if not delimiter or not KEY.match(key):
            self._report.fault(number, "is not KEY = VALUE", _mend_of_a_stray_line(text))
            return
        if not self.sections:
            self._report.fault(number, "stands before the first section", "put a [SECTION] line above it")
            return
        section = self.sections[-1]
        self._entry = Entry(section.name, key, number, [text[delimiter.end() :].lstrip()])
        first = section.entries.setdefault(self._entry.key, self._entry)
        if first is not self._entry:
            what = f"the key is there twice, first on line {first.line}"
            self._report.fault(self._entry, what, "remove one of the two")


def _mend_of_a_stray_line(text: str) -> str:
    if "=" in text or ":" in text:
        return "begin the line with a key; if it continues the value above, indent it"
    return "add the equals sign and a value; if it continues the value above, indent it; begin a comment with #"
