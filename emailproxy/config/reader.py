"""Sections to a `Config`: each section's keys, then servers against each other, then each account as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emailproxy.config.accounts import AccountChecker
from emailproxy.config.catchall import folder
from emailproxy.config.grants import KEY_FILE, source
from emailproxy.config.hosts import is_loopback, overlap
from emailproxy.config.keys import family
from emailproxy.config.model import Config, MailProtocol, Server, Settings
from emailproxy.config.repairs import SECRET_KEYS, placeholder
from emailproxy.config.scan import Report, Section, in_order, shown
from emailproxy.config.section import SETTINGS_NAME, SectionReader
from emailproxy.config.values import MAX_PORT, nearest
from emailproxy.names import MAX_NAME
from emailproxy.secret import Secret

SERVER_NAME = re.compile(r"(?P<protocol>IMAP|POP|SMTP)-(?P<port>[0-9]+)\Z")
EXAMPLE_PORTS = {MailProtocol.IMAP: 993, MailProtocol.POP: 995, MailProtocol.SMTP: 465}  # RFC 8314 section 7.3


class Reader:
    """Reads one file. Whatever is wrong goes to the report; a `Config` comes only of a file without faults."""

    def __init__(self, path: Path, report: Report, *, draft: bool) -> None:
        self._path = path
        self._report = report
        self._draft = draft
        self._sections = SectionReader(folder(path), report)
        self._settings: dict[str, Any] = {}
        self._servers: list[Server] = []
        self._accounts: dict[str, Section] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def read(self, sections: list[Section]) -> None:
        for section in sections:
            match = SERVER_NAME.match(section.name)
            if section.name == SETTINGS_NAME:
                self._emailproxy(section)
            elif match:
                self._server(section, MailProtocol(match["protocol"]), match["port"])
            elif "@" in section.name:
                self._account(section)
            elif section.name:
                self._sections.stranger(section)
        catch_all = self._settings.get("allow_catch_all_accounts") is True
        AccountChecker(self._accounts, self._values, self._report, catch_all=catch_all).check()
        if not self._draft:
            self._report.faults += self._sections.placeholders
            self._demand_something_to_do()

    @property
    def holds_secrets(self) -> bool:
        """Whether the file itself holds a secret, and not just a placeholder or a reference to one."""
        settings = [self._settings.get(key) for key in SECRET_KEYS]
        secrets = settings + [value for values in self._values.values() for value in self._secrets(values)]
        return any(isinstance(secret, Secret) and not placeholder("hook_secret", secret.reveal()) for secret in secrets)

    @staticmethod
    def _secrets(values: Mapping[str, Any]) -> list[Any]:
        is_path = str(values.get("client_id", "")).casefold() == KEY_FILE
        return [values.get(key) for key in SECRET_KEYS if not (is_path and key == "client_secret")]

    def place(self, key: str, override: Path | None, default: Callable[[], Path]) -> None:
        """Settles where state or log live: the command line, then the file, then the system's custom."""
        found: Path = override or self._settings.get(key) or default()
        if override is None and not found.is_absolute():
            self._report.fault(None, "the home folder is not known", f"set {key} in [{SETTINGS_NAME}]", key)
        self._settings[key] = found

    def config(self) -> Config:
        """The file as a `Config`. The report must hold no fault."""
        settings = Settings(**self._settings)
        default_ca = {"ca_file": settings.ca_file}
        return Config(
            path=self._path,
            settings=settings,
            servers=tuple(
                server if server.ca_file else server.model_copy(update=default_ca) for server in self._servers
            ),
            sections=self._values,
            spellings={name: section.name for name, section in self._accounts.items()},
            notices=tuple(str(notice) for notice in in_order(self._report.notices)),
            placeholders=in_order(self._sections.placeholders),
        )

    def _emailproxy(self, section: Section) -> None:
        self._settings = self._sections.settings(section)
        hook_secret = source(self._settings, "hook_secret")
        for key in family("hook_secret"):
            self._settings.pop(key, None)
        if hook_secret is not None:
            self._settings["hook_secret"] = hook_secret
        key = "delete_account_token_on_password_error"
        if self._settings.get(key):
            what = "has no effect: a wrong password is refused, and nothing is ever deleted for it"
            self._report.notice(section.entries[key], what, "set it to False, or remove the line")

    def _server(self, section: Section, protocol: MailProtocol, port: str) -> None:
        values = self._sections.server(section, protocol)
        values.pop("local_starttls", None)
        local_port = int(port) if len(port) <= len(str(MAX_PORT)) else 0
        if not 1 <= local_port <= MAX_PORT:
            what = "its name ends in a number that is no port"
            self._report.fault(section, what, f"name it [{protocol}-PORT], PORT from 1 to {MAX_PORT}")
        examples = {"server_address": f"{protocol.lower()}.example.com", "server_port": EXAMPLE_PORTS[protocol]}
        attempts = {nearest(key, examples) for key in section.entries}
        for key, example in examples.items():
            if key not in attempts and not section.torn:
                self._report.fault(section, "is missing", f"add e.g. {key} = {example}", key)
        if "local_address" in values and not is_loopback(values["local_address"]):
            self._report.notice(
                section.entries["local_address"],
                "is not a loopback: passwords and mail cross the network unencrypted on their way to emailproxy",
                "remove the line, or let none but a trusted network reach it",
            )
        if examples.keys() <= values.keys() and 1 <= local_port <= MAX_PORT:
            self._add(section, Server(section=section.name, protocol=protocol, local_port=local_port, **values))

    def _add(self, section: Section, server: Server) -> None:
        for other in self._servers:
            same_port = other.local_port == server.local_port and other.section != server.section
            if same_port and overlap(other.local_address, server.local_address):
                what = f"claims the same local port as [{other.section}]"
                self._report.fault(section, what, "give one of the two another port in its name")
        self._servers.append(server)

    def _account(self, section: Section) -> None:
        if len(section.name.encode()) > MAX_NAME:
            self._report.fault(section, f"its name is longer than {MAX_NAME} octets", "shorten it")
        values = self._sections.account(section)
        first = self._accounts.setdefault(section.name.casefold(), section)
        if first is section:
            self._values[section.name.casefold()] = values
        elif first.name != section.name:
            what = f"differs only by case from [{shown(first.name)}] on line {first.line}"
            self._report.fault(section, what, "account names compare without regard to case: keep one of the two")

    def _demand_something_to_do(self) -> None:
        if self._report.faults:
            return
        if not self._servers:
            what = "there is no server section, so there is nothing to listen on"
            self._report.fault(None, what, "add e.g. [IMAP-2993] with server_address and server_port")
        if not self._accounts:
            what = "there is no account section, so every login would be refused"
            self._report.fault(None, what, "add [user@domain], or [@] and allow_catch_all_accounts = True")
