"""Sections to a `Config`: each section's keys, then servers against each other, then each account as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emailproxy.config.accounts import AccountChecker
from emailproxy.config.cached import CachedReader, holds_any
from emailproxy.config.catchall import Directory, folder
from emailproxy.config.grants import KEY_FILE, Elsewhere, Problem, source
from emailproxy.config.keys import family
from emailproxy.config.model import Cached, Config, MailProtocol, Server, Settings
from emailproxy.config.relations import RelationChecker, aliases
from emailproxy.config.repairs import SECRET_KEYS, placeholder
from emailproxy.config.scan import Report, Section, in_order, shown
from emailproxy.config.section import SETTINGS_NAME, SectionReader
from emailproxy.config.servers import ServerReader
from emailproxy.errors import Fault
from emailproxy.names import MAX_NAME
from emailproxy.secret import Secret

SERVER_NAME = re.compile(r"(?P<protocol>IMAP|POP|SMTP)-(?P<port>[0-9]+)\Z")
FOREIGN_NAME = "emailproxy.config"
"""What another proxy's configuration file is called."""
PROXY_KEY = "upstream_proxy"


class Reader:
    """Reads one file. Whatever is wrong goes to the report; a `Config` comes only of a file without faults."""

    def __init__(self, path: Path, report: Report, *, draft: bool) -> None:
        self._path = path
        self._report = report
        self._draft = draft
        self._sections = SectionReader(folder(path), report)
        self._settings: dict[str, Any] = {}
        self._accounts: dict[str, Section] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self._aliases: dict[str, str] = {}
        self._cached: dict[str, Cached] = {}
        self._beside = Report("")
        self._foreign = path.name == FOREIGN_NAME
        self._servers = ServerReader(self._sections, report, foreign=False)

    def read(self, sections: list[Section], store: list[Section] | None = None, beside: Report | None = None) -> None:
        """Reads the file's sections.

        Args:
            store: those of the file in which another proxy keeps its cached values, where it is another one.
            beside: what is told about that one.
        """
        by_name = {section.name: section for section in sections if "@" in section.name}
        self._foreign = self._foreign or store is not None or holds_any(by_name)
        self._servers = ServerReader(self._sections, self._report, foreign=self._foreign)
        for section in sections:
            match = SERVER_NAME.match(section.name)
            if section.name == SETTINGS_NAME:
                self._emailproxy(section)
            elif match:
                self._servers.read(section, MailProtocol(match["protocol"]), match["port"])
            elif "@" in section.name:
                self._account(section)
            elif section.name:
                self._sections.stranger(section)
        self._read_cached(store, beside)
        self._check()
        if not self._draft:
            self._report.faults += self._sections.placeholders
            self._demand_something_to_do()

    def _read_cached(self, store: list[Section] | None, beside: Report | None) -> None:
        reader = CachedReader()
        reader.add(self._accounts, self._report)
        if store is not None and beside is not None:
            self._beside = beside
            named = {section.name.casefold(): section for section in store if "@" in section.name}
            reader.add(named, beside)
            for name, section in named.items():
                if not self._wider(name):
                    mend = "add the account's section to the configuration, if it is to be served"
                    beside.notice(section, "is no account of the configuration", mend)
        self._cached = reader.cached(catch_all=self._catch_all)

    def _check(self) -> None:
        """Everything that needs more than one section to tell."""
        self._aliases = aliases(self._accounts, self._values, self._report)
        directory = Directory(self._values, self._aliases, self._catch_all)
        checker = AccountChecker(directory, self._accounts, self._report, self._elsewhere)
        if self._foreign and not self._draft and not self._catch_all:
            self._leave_out_unfinished(checker.unfinished())
        checker.check()
        if not self._draft:
            relations = RelationChecker(directory, self._accounts, self._report, self._elsewhere)
            relations.check(self._servers.servers, self._servers.sections)

    def _leave_out_unfinished(self, lacking: Mapping[str, Problem]) -> None:
        """Another proxy leaves accounts alone until they log in, so that its files keep the examples they came with."""
        reasons = {name: f"{problem.key} {problem.what}" for name, problem in lacking.items()}
        names = {shown(section.name): name for name, section in self._accounts.items()}
        for fault in reversed(self._waiting):
            if fault.section in names:
                reasons[names[fault.section]] = f"{fault.key} {fault.what}"
        if reasons.keys() >= {name for name in self._accounts if not name.startswith("@")}:
            return
        for name, reason in reasons.items():
            section = self._accounts.pop(name)
            del self._values[name]
            self._report.notice(section, f"is left out: {reason}", "complete it, or remove the section")
            self._waiting[:] = [fault for fault in self._waiting if names.get(fault.section or "") != name]

    @property
    def _waiting(self) -> list[Fault]:
        return self._sections.placeholders

    @property
    def _catch_all(self) -> bool:
        return self._settings.get("allow_catch_all_accounts") is True

    def _elsewhere(self, name: str) -> Elsewhere:
        kept = [self._cached[part] for part in (name, *self._wider(name)) if part in self._cached]
        return Elsewhere(
            sealed=bool(self._settings.get("encrypt_client_secret_on_first_use")) or any(c.client_secret for c in kept),
            login=bool(self._settings.get("use_login_password_as_client_credentials_secret")),
        )

    def _wider(self, name: str) -> tuple[str, ...]:
        return Directory(self._values, {}, self._catch_all).chain(name)

    @property
    def holds_secrets(self) -> bool:
        """Whether the file itself holds a secret, and not just a placeholder or a reference to one.

        Another proxy's cached values are as safe as the password that they are under.
        """
        if holds_any(self._accounts):
            return True
        settings = [self._settings.get(key) for key in SECRET_KEYS if key != PROXY_KEY or self._has_a_password()]
        servers = [server.login_as_password for server in self._servers.servers]
        secrets = settings + servers + [value for values in self._values.values() for value in self._secrets(values)]
        return any(isinstance(secret, Secret) and not placeholder("hook_secret", secret.reveal()) for secret in secrets)

    def _has_a_password(self) -> bool:
        proxy = self._settings.get(PROXY_KEY)
        return isinstance(proxy, Secret) and "@" in proxy.reveal()

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
        return Config(
            path=self._path,
            settings=settings,
            servers=tuple(_completed(server, settings) for server in self._servers.servers),
            sections=self._values,
            spellings={name: section.name for name, section in self._accounts.items()},
            aliases=self._aliases,
            cached=self._cached,
            notices=tuple(
                str(notice) for report in (self._report, self._beside) for notice in in_order(report.notices)
            ),
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
        if not self._servers.servers:
            what = "there is no server section, so there is nothing to listen on"
            self._report.fault(None, what, "add e.g. [IMAP-2993] with server_address and server_port")
        if not self._accounts:
            what = "there is no account section, so every login would be refused"
            self._report.fault(None, what, "add [user@domain], or [@] and allow_catch_all_accounts = True")


def _completed(server: Server, settings: Settings) -> Server:
    """What a listening section does not say, `[emailproxy]` says for all."""
    prewarm = settings.prewarm if server.prewarm is None else server.prewarm
    return replace(server, ca_file=server.ca_file or settings.ca_file, prewarm=prewarm)
