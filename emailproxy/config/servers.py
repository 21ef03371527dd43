"""Listening sections to `Server`s: each one's keys against each other, and its port against the others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emailproxy.config.grants import source
from emailproxy.config.hosts import is_local_address, overlap
from emailproxy.config.keys import family
from emailproxy.config.model import LocalStartTls, MailProtocol, Server
from emailproxy.config.references import holds_key
from emailproxy.config.repairs import RENAMED
from emailproxy.config.scan import Entry, Report, Section
from emailproxy.config.section import SectionReader
from emailproxy.config.values import MAX_PORT, nearest

EXAMPLE_PORTS = {MailProtocol.IMAP: 993, MailProtocol.POP: 995, MailProtocol.SMTP: 465}  # RFC 8314 section 7.3
TARGET = ("server_address", "server_port")
CERTIFICATE = "local_certificate_path"
PASSWORD_KEYS = family("login_as_password")

FIELDS = {CERTIFICATE: "local_certificate", "local_key_path": "local_key"}
"""The keys whose field in `Server` has another name."""


class ServerReader:
    """Reads the listening sections of one file."""

    def __init__(self, sections: SectionReader, report: Report, *, foreign: bool) -> None:
        """`foreign` says that the file is another proxy's, which listens on all interfaces where none is named."""
        self.servers: list[Server] = []
        self.sections: dict[str, Section] = {}
        """By name."""
        self._sections = sections
        self._report = report
        self._foreign = foreign

    def read(self, section: Section, protocol: MailProtocol, port: str) -> None:
        values = self._sections.server(section, protocol)
        local_port = int(port) if len(port) <= len(str(MAX_PORT)) else 0
        if not 1 <= local_port <= MAX_PORT:
            what = "its name ends in a number that is no port"
            self._report.fault(section, what, f"name it [{protocol}-PORT], PORT from 1 to {MAX_PORT}")
        self._check_target(section, protocol, values)
        self._check_local_tls(section, values)
        self._check_reach(section, values)
        self._check_stand_in(section, values)
        password = source(values, "login_as_password")
        settings = {FIELDS.get(key, key): value for key, value in values.items() if key not in PASSWORD_KEYS}
        settings |= {"local_port": local_port, "login_as_password": password}
        whole = settings.keys() >= set(TARGET) or settings.keys().isdisjoint(TARGET)
        if whole and 1 <= local_port <= MAX_PORT:
            self._add(section, Server(section=section.name, protocol=protocol, **settings))

    def _check_target(self, section: Section, protocol: MailProtocol, values: Mapping[str, Any]) -> None:
        """The server behind the port is there as a whole, or not at all."""
        examples = {"server_address": f"{protocol.lower()}.example.com", "server_port": EXAMPLE_PORTS[protocol]}
        attempts = {nearest(key, examples) for key in section.entries}
        missing = [key for key in examples if key not in attempts]
        starttls = entry_of(section, "server_starttls")
        if section.torn:
            return
        if len(missing) == 1:
            key = missing[0]
            self._report.fault(section, "is missing", f"add e.g. {key} = {examples[key]}", key)
        elif missing and values.get("prewarm"):
            mend = "remove it: which server a login goes to is known only when it comes"
            self._report.fault(section.entries["prewarm"], "says nothing without server_address", mend)
        elif missing and starttls and values.get("server_starttls"):
            mend = f"remove it, and write e.g. {protocol.lower()}_server = HOST:PORT/starttls in the accounts' sections"
            self._report.fault(starttls, "says nothing without server_address", mend)

    def _check_local_tls(self, section: Section, values: Mapping[str, Any]) -> None:
        if CERTIFICATE not in section.entries:
            key, starttls = section.entries.get("local_key_path"), section.entries.get("local_starttls")
            mend = f"add {CERTIFICATE}; 'emailproxy certificate' makes one"
            if key and "local_key_path" in values:
                self._report.fault(key, "is a key without its certificate", mend)
            if starttls and values.get("local_starttls", LocalStartTls.OFF) is not LocalStartTls.OFF:
                self._report.fault(starttls, "needs a certificate", mend)
        elif CERTIFICATE in values and "local_key_path" not in section.entries and not holds_key(values[CERTIFICATE]):
            what = "holds no private key, and there is no local_key_path"
            self._report.fault(section.entries[CERTIFICATE], what, "add local_key_path")

    def _check_reach(self, section: Section, values: Mapping[str, Any]) -> None:
        """Passwords and mail cross no network in the clear, unless somebody says from where they may."""
        address = section.entries.get("local_address")
        if address is None:
            if self._foreign:
                what = "has no local_address: it listens on 127.0.0.1 and ::1, not on all interfaces"
                mend = "to be reached from other hosts, add local_address = :: or 0.0.0.0, and local_certificate_path"
                self._report.notice(section, what, mend)
            return
        protected = not section.entries.keys().isdisjoint((CERTIFICATE, "allow_plaintext_from"))
        if "local_address" in values and not is_local_address(values["local_address"]) and not protected:
            self._report.fault(
                address,
                "is not known to be a loopback: without TLS, passwords and mail would cross the network unencrypted",
                f"add {CERTIFICATE} ('emailproxy certificate' makes one), or name the networks that need no TLS, "
                "e.g. allow_plaintext_from = 192.168.1.0/24, or remove the line",
            )

    def _check_stand_in(self, section: Section, values: Mapping[str, Any]) -> None:
        """Clients that do not log in are somebody all the same, and come from known places."""
        login_as = section.entries.get("login_as")
        passwords = [section.entries[key] for key in PASSWORD_KEYS if key in section.entries]
        if login_as is None:
            for entry in passwords[:1]:
                self._report.fault(entry, "says nothing without login_as", "add login_as = ACCOUNT, or remove the line")
            return
        if "login_as" not in values:
            return
        if not passwords:
            mend = "add login_as_password, or login_as_password_file or login_as_password_command"
            self._report.fault(login_as, "needs the local password of that account", mend)
        if "allow_from" not in section.entries:
            what = "would let everybody who reaches the port send as that account"
            self._report.fault(login_as, what, "add allow_from with the addresses of the devices that cannot log in")

    def _add(self, section: Section, server: Server) -> None:
        for other in self.servers:
            same_port = other.local_port == server.local_port and other.section != server.section
            if same_port and overlap(other.local_address, server.local_address):
                what = f"claims the same local port as [{other.section}]"
                self._report.fault(section, what, "give one of the two another port in its name")
        self.servers.append(server)
        self.sections.setdefault(server.section, section)


def entry_of(section: Section, key: str) -> Entry | None:
    """The entry of a key, however it is spelt."""
    return next((entry for entry in section.entries.values() if RENAMED.get(entry.key, entry.key) == key), None)
