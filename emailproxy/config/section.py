"""One section's keys to values: renamed, repaired, read; whatever does not belong there is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emailproxy.config import keys, repairs
from emailproxy.config.model import MailProtocol
from emailproxy.config.scan import Entry, Report, Section, shown
from emailproxy.config.values import Wrong, nearest
from emailproxy.errors import Fault

MAX_VALUE = 16_384  # characters; a service account's JSON, the longest value of the format, has 2,400

SETTINGS_NAME = "emailproxy"
INDENTED_KEY = re.compile(r"[a-z][a-z0-9_]*\s*=", re.IGNORECASE)
LIKE_A_SERVER = re.compile(r"(?P<word>[A-Za-z]+?)(?:[34]?[-_: .]+)?(?P<port>[0-9]*)\Z")


class SectionReader:
    """Reads sections of one file. Faults and notices go to the report, placeholders to a list of their own."""

    def __init__(self, base: Path, report: Report) -> None:
        self.placeholders: list[Fault] = []
        self._report = report
        self._known: dict[tuple[str, keys.Reader, str], Any] = {}
        """What keys' texts mean that were right the first time: of ten thousand accounts most say the same."""
        self._settings_keys = keys.settings_keys(base)
        self._server_keys = keys.server_keys(base)
        self._account_keys = keys.account_keys(base)

    def settings(self, section: Section) -> dict[str, Any]:
        return self._values(section, self._settings_keys)

    def server(self, section: Section, protocol: MailProtocol) -> dict[str, Any]:
        return self._values(section, self._server_keys[protocol])

    def account(self, section: Section) -> dict[str, Any]:
        """An account's values; empty ones too, which unset what would be inherited."""
        return self._values(section, self._account_keys)

    def stranger(self, section: Section) -> None:
        """Tells of a section that is none of ours: a fault where it looks like a slip, else ignored."""
        if section.name.casefold() == "default":
            what = "what a [DEFAULT] section holds would be inherited by every section"
            self._report.fault(section, what, "move its keys to the sections that they are meant for")
            return
        what = "no such section: it is neither [emailproxy] nor [IMAP-PORT], [POP-PORT] or [SMTP-PORT]"
        meant = self._meant_by(section)
        if meant:
            self._report.fault(section, what, f"did you mean [{meant}]?")
        elif self._all_keys() & section.entries.keys():
            mend = "name an account's section after its user name, [user@domain], or [@domain] or [@]"
            self._report.fault(section, f"{what}, and has no @", mend)
        elif not section.entries.keys() <= keys.IGNORED:
            self._report.notice(section, "is not ours and is ignored", "remove it, if it is a slip")

    def _meant_by(self, section: Section) -> str | None:
        """The section that a misspelt name was meant to be."""
        if nearest(section.name.casefold(), [SETTINGS_NAME]):
            return SETTINGS_NAME
        match = LIKE_A_SERVER.match(section.name)
        protocol = nearest(match["word"].upper(), MailProtocol) if match else None
        if not match or not protocol or not (match["port"] or self._all_keys() & section.entries.keys()):
            return None
        return f"{protocol}-{match['port'] or 'PORT'}"

    def _all_keys(self) -> set[str]:
        return {*self._account_keys, *self._server_keys[MailProtocol.SMTP], *self._settings_keys}

    def _values(self, section: Section, readers: Mapping[str, keys.Reader]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, entry in self._renamed(section, readers).items():
            if key in readers:
                self._value(key, entry, readers[key], values)
            else:
                self._foreign(entry, readers)
        self._one_of_each_family(section)
        return values

    def _one_of_each_family(self, section: Section) -> None:
        for family in keys.FAMILIES:
            present = [entry for key in family if (entry := section.entries.get(key)) and entry.value]
            for entry in present[1:]:
                what = f"is there beside {present[0].key}, which line {present[0].line} has"
                self._report.fault(entry, what, "keep one of the two")

    def _renamed(self, section: Section, readers: Mapping[str, keys.Reader]) -> dict[str, Entry]:
        """The section's entries by proper key."""
        entries: dict[str, Entry] = {}
        for entry in section.entries.values():
            proper = repairs.RENAMED.get(entry.key)
            if proper is None or proper not in readers:
                entries[entry.key] = entry
            elif proper in section.entries:
                what = f"is another spelling of {proper}, which line {section.entries[proper].line} has"
                self._report.fault(entry, what, "remove one of the two")
            else:
                self._report.notice(entry, f"is read as {proper}", f"rename it to {proper}")
                entries[proper] = entry
        return entries

    def _value(self, key: str, entry: Entry, reader: keys.Reader, values: dict[str, Any]) -> None:
        known = key, reader, entry.value
        if known in self._known:
            values[key] = self._known[known]
            return
        if len(entry.value) > MAX_VALUE:
            self._report.fault(entry, f"is longer than {MAX_VALUE} characters", "shorten it")
            return
        repaired = repairs.repair(key, entry.value)
        for what, mend in repaired.slips:
            self._report.notice(entry, what, mend)
        left = repairs.placeholder(key, repaired.value)
        if left is not None:
            what = f"still holds the placeholder {shown(left)}"
            place = (self._report.file, entry.line, shown(entry.section), entry.key)
            self.placeholders.append(Fault(*place, what, "fill it in"))
        in_account = "@" in entry.section
        if not repaired.value and not in_account:
            self._report.fault(entry, "is empty", "give it a value, or remove the line")
        elif left is not None:
            if in_account:
                self._keep(key, reader, repaired.value, values)
        elif repaired.value:
            self._read(key, entry, reader, repaired.value, values)
            if key in values and not repaired.slips:
                self._known[known] = values[key]
        else:
            values[key] = ""

    def _keep(self, key: str, reader: keys.Reader, text: str, values: dict[str, Any]) -> None:
        """What a draft has of a value with a placeholder."""
        try:
            values[key] = reader(text)
        except Wrong:
            if key in keys.TEXTS:
                values[key] = text

    def _read(self, key: str, entry: Entry, reader: keys.Reader, text: str, values: dict[str, Any]) -> None:
        try:
            values[key] = reader(text)
        except Wrong as wrong:
            self._report.fault(entry, wrong.what, _unindent(entry) or wrong.mend)

    def _foreign(self, entry: Entry, readers: Mapping[str, keys.Reader]) -> None:
        """Tells of a key that this section does not take."""
        if entry.key in keys.IGNORED or (entry.key in keys.CACHED and "@" in entry.section):
            return
        if entry.key == "use_pkce":
            self._report.notice(entry, "has no effect: PKCE is always used", "remove the line")
        else:
            self._report.fault(entry, "there is no such key", self._mend_of_unknown(entry, readers))

    def _mend_of_unknown(self, entry: Entry, readers: Mapping[str, keys.Reader]) -> str:
        if entry.value.startswith("//"):
            return "if the line continues the value above, indent it"
        homes: dict[str, Mapping[str, keys.Reader]] = {
            "an account's section": self._account_keys,
            f"[{SETTINGS_NAME}]": self._settings_keys,
            "a server's section": self._server_keys[MailProtocol.IMAP],
            "an [SMTP-PORT] section": self._server_keys[MailProtocol.SMTP],
        }
        for home, known in homes.items():
            if entry.key in known:
                return f"move it to {home}"
        near = nearest(entry.key, readers)
        return f"did you mean {near}?" if near else f"remove it; this section takes {', '.join(readers)}"


def _unindent(entry: Entry) -> str | None:
    """The mend for an indented key: the format has it as part of the value above."""
    for offset, part in enumerate(entry.parts[1:], 1):
        if INDENTED_KEY.match(part):
            return f"line {entry.line + offset} is indented, so it is part of this value: unindent it"
    return None
