"""Checks of sections against each other: whose alias, whose mailbox, which server, and who may come first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from emailproxy.config import grants
from emailproxy.config.catchall import PERSONAL, Directory
from emailproxy.config.model import ANYBODY, FirstLogin, FlowName, Server
from emailproxy.config.presets import SERVER_KEYS, mail_server
from emailproxy.config.scan import Report, Section, shown

APPLICATION_FLOWS = (FlowName.CLIENT_CREDENTIALS, FlowName.SERVICE_ACCOUNT, FlowName.TOKEN_COMMAND)
"""Flows that open any mailbox with no word of its owner's."""

ElsewhereOf = Callable[[str], grants.Elsewhere]


def aliases(
    sections: Mapping[str, Section], values: Mapping[str, Mapping[str, object]], report: Report
) -> dict[str, str]:
    """The further names of all accounts, case-folded, and whose they are."""
    found: dict[str, str] = {}
    for name, section in sections.items():
        entry, listed = section.entries.get("aliases"), values[name].get("aliases", ())
        if entry is None or not isinstance(listed, tuple):
            continue
        if name.startswith("@"):
            report.fault(entry, "belongs to one account, and this section is many", "move it to an account's section")
            continue
        for alias in listed:
            key = alias.casefold()
            taken = key if key in sections else found.get(key)
            if taken is None:
                found[key] = name
            elif taken == name and key == name:
                report.fault(entry, f"names {shown(alias)}, which is the account itself", "remove it there")
            elif taken != name:
                home = sections[taken]
                what = f"names {shown(alias)}, which is [{shown(home.name)}]'s, on line {home.line}"
                report.fault(entry, what, "remove it from one of the two")
    return found


class RelationChecker:
    """Checks what the accounts and servers of one file say of each other."""

    def __init__(
        self, directory: Directory, sections: Mapping[str, Section], report: Report, elsewhere: ElsewhereOf
    ) -> None:
        self._directory = directory
        self._sections = sections
        self._report = report
        self._elsewhere = elsewhere

    def check(self, servers: Iterable[Server], homes: Mapping[str, Section]) -> None:
        """`homes` has the sections of the servers, by name."""
        self._check_owners()
        for server in servers:
            self._check_stand_in(server, homes[server.section])
            self._check_first_logins(server, homes[server.section])
            self._check_routes(server, homes[server.section])

    @property
    def _active(self) -> list[str]:
        """The sections that serve somebody."""
        return [name for name in self._sections if self._directory.catch_all or not name.startswith("@")]

    def _check_owners(self) -> None:
        first: dict[str, str] = {}
        for name in self._active:
            entry = self._sections[name].entries.get("token_owner")
            wanted = self._directory.sections[name].get("token_owner")
            if entry is None or not wanted or wanted == ANYBODY:
                continue
            owner = self._directory.named(wanted)
            if wanted.startswith("@"):
                self._report.fault(entry, "is no user name", "write the name of one account, e.g. anna@example.com")
                continue
            theirs = self._directory.own(owner).get("token_owner", ANYBODY)
            if owner != name and theirs != ANYBODY and self._directory.named(theirs) != owner:
                what = f"names {shown(wanted)}, whose own token_owner is {shown(theirs)}"
                self._report.fault(entry, what, f"write token_owner = {shown(theirs)}, if that is who signs in")
            elif not self._directory.chain(owner):
                self._check_alike(first.setdefault(owner, name), name, wanted)

    def _check_alike(self, one: str, other: str, owner: str) -> None:
        """One sign-in is one client's: mailboxes that share it have the same OAuth settings, and set passwords for each
        other."""
        private = {*PERSONAL, *SERVER_KEYS.values()} - {"first_login"}
        ours, theirs = (
            {key: value for key, value in self._directory.own(name).items() if key not in private}
            for name in (one, other)
        )
        differing = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        if differing:
            what = f"is that of [{shown(self._sections[one].name)}], too, which differs in {', '.join(differing)}"
            mend = f"one sign-in serves both: make them alike, or add [{shown(owner)}] with these settings, for both"
            self._report.fault(self._sections[other].entries["token_owner"], what, mend)

    def _check_stand_in(self, server: Server, home: Section) -> None:
        if server.login_as is None:
            return
        name = self._directory.named(server.login_as)
        if name.startswith("@") or not self._directory.chain(name):
            what = f"{shown(server.login_as)} is no account of this file"
            mend = f"add [{shown(server.login_as)}], or name an account that is there"
            self._report.fault(home.entries["login_as"], what, mend)

    def _check_routes(self, server: Server, home: Section) -> None:
        key = SERVER_KEYS[server.protocol]
        if server.target is not None or home.torn:
            return
        attempted = any(key in section.entries for section in self._sections.values())
        found = (mail_server(self._directory.settings(name), server.protocol) for name in self._active)
        if self._active and not attempted and not any(found):
            mend = f"add server_address and server_port, or {key} = HOST:PORT to the accounts that log in here"
            self._report.fault(home, f"is missing, and no account has {key}", mend, "server_address")

    def _check_first_logins(self, server: Server, home: Section) -> None:
        """Whoever is first to name a mailbox must not thereby open it, where others than this host's users can."""
        if server.for_this_host or server.first_login is FirstLogin.DENY:
            return
        for name in self._active:
            if not name.startswith("@") or not self._is_for_anybody(name):
                continue
            own = self._directory.own(name).get("first_login")
            origin = next(
                (e for part in self._directory.chain(name) if (e := self._sections[part].entries.get("first_login"))),
                None,
            )
            entry = origin if own == FirstLogin.TRUST else home.entries.get("first_login")
            if (own or server.first_login) == FirstLogin.TRUST and entry is not None:
                what = (
                    f"would let whoever reaches [{server.section}] open any mailbox by being the first to name it: "
                    f"the tokens of [{shown(self._sections[name].name)}] come with nobody signing in"
                )
                mend = "write deny, and give each account its first password with emailproxy authorize ACCOUNT"
                self._report.fault(entry, what, mend)

    def _is_for_anybody(self, name: str) -> bool:
        """Whether a catch-all gives out tokens without its users' saying so, or its provider's."""
        values, elsewhere = self._directory.settings(name), self._elsewhere(name)
        flow, _ = grants.flow_of(values)
        if flow not in APPLICATION_FLOWS or grants.problems(values, elsewhere):
            return False
        by_login = flow is FlowName.CLIENT_CREDENTIALS and elsewhere.login and not elsewhere.sealed
        return not (by_login and grants.credential(values, flow) is None)
