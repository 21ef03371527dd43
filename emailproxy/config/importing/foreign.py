"""Another proxy's emailproxy.config, and its cache store: sections of the same form as ours."""

from __future__ import annotations

from emailproxy.config.importing.found import Format, Found, ImportedAccount
from emailproxy.config.keys import IGNORED
from emailproxy.config.reader import SERVER_NAME
from emailproxy.config.repairs import placeholder
from emailproxy.config.scan import Report, scan, shown
from emailproxy.config.section import SETTINGS_NAME


def read(content: str, name: str) -> Found:
    report = Report(name)
    accounts: list[ImportedAccount] = []
    sections: dict[str, dict[str, str]] = {}
    unread: list[str] = []
    for section in scan(content, report):
        values = {key: entry.value for key, entry in section.entries.items() if key not in IGNORED}
        waiting = [key for key, value in values.items() if placeholder(key, value)]
        if "@" not in section.name:
            if SERVER_NAME.match(section.name) or section.name == SETTINGS_NAME:
                sections[section.name] = values
            elif values:
                unread.append(f"[{shown(section.name)}] is neither an account nor a server")
        elif waiting:
            unread.append(f"[{shown(section.name)}] {waiting[0]} still holds a placeholder: it is no account yet")
        elif values:
            accounts.append(ImportedAccount(section.name, values))
    faults = [f"line {fault.line}: {fault.what}; {fault.mend}" for fault in report.faults]
    return Found(Format.EMAILPROXY, _each_once(accounts), sections=sections, unread=(*faults, *unread))


def _each_once(accounts: list[ImportedAccount]) -> tuple[ImportedAccount, ...]:
    """A section that is there twice has been told as a fault; its keys come together."""
    found: dict[str, ImportedAccount] = {}
    for account in accounts:
        first = found.get(account.name)
        settings = {**account.settings, **(first.settings if first else {})}
        found[account.name] = ImportedAccount(account.name, settings)
    return tuple(found.values())
