"""Checks that need an account as a whole, inherited settings included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from emailproxy.config import catchall, grants, repairs
from emailproxy.config.hosts import is_loopback
from emailproxy.config.keys import CACHED, account_keys
from emailproxy.config.model import DEFAULT_LISTEN_ADDRESS, FlowName
from emailproxy.config.providers import Values
from emailproxy.config.scan import Entry, Report, Section, shown
from emailproxy.config.values import nearest


class AccountChecker:
    """Checks the account sections of one file, both mappings keyed by case-folded name."""

    def __init__(
        self,
        directory: catchall.Directory,
        sections: Mapping[str, Section],
        report: Report,
        elsewhere: Callable[[str], grants.Elsewhere],
    ) -> None:
        self._directory = directory
        self._sections = sections
        self._values = directory.sections
        self._report = report
        self._elsewhere = elsewhere
        self._catch_all = directory.catch_all

    def check(self) -> None:
        for name, section in self._sections.items():
            if name.startswith("@") and not self._catch_all:
                mend = "set allow_catch_all_accounts = True in [emailproxy], or remove the section"
                self._report.notice(section, "is a catch-all and is not used", mend)
            else:
                self._check(name)

    def unfinished(self) -> dict[str, grants.Problem]:
        """The accounts that lack something, with the first of what it is."""
        found = {name: self._problems(name) for name in self._sections}
        return {name: problems[0] for name, problems in found.items() if problems and not name.startswith("@")}

    def _problems(self, name: str) -> list[grants.Problem]:
        served_by = self._directory.owner(name) or name
        return grants.problems(self._directory.settings(name), self._elsewhere(served_by))

    def _check(self, name: str) -> None:
        values = self._directory.own(name)
        owner = self._directory.owner(name, values)
        if owner is not None:
            self._check_mailbox(name, owner)
            return
        names = self._directory.chain(name)
        torn = any(self._sections[part].torn for part in names)
        if not torn and not self._completed_by_others(name):
            for problem in grants.problems(values, self._elsewhere(name)):
                self._tell(names, problem)
        flow, advice = grants.flow_of(values)
        if flow and advice:
            where = self._origin(names, advice.key)
            self._report.notice(where or self._sections[name], advice.what, advice.mend)
        if flow:
            self._tell_what_is_in_vain(names[0], values, flow)
        if flow is FlowName.AUTHORIZATION_CODE:
            self._tell_where_it_listens(names, values)

    def _check_mailbox(self, name: str, owner: str) -> None:
        """An account whose OAuth settings are those of its `token_owner`."""
        entry = self._origin(self._directory.chain(name), "token_owner")
        theirs, section = self._directory.own(owner), self._sections[name]
        home = self._sections[self._directory.chain(owner)[0]]
        for key, value in self._values[name].items():
            if key in catchall.OAUTH_KEYS and value != theirs.get(key, "") and key in section.entries:
                what = f"has no effect: the sign-in of {shown(owner)} serves this mailbox, with the settings of "
                self._report.notice(section.entries[key], f"{what}[{shown(home.name)}]", "remove the line")
        if owner not in self._sections and not home.torn:
            lacking = ", ".join(f"{problem.key} {problem.what}" for problem in self._problems(name))
            if lacking:
                what = f"names {shown(owner)}, who has only [{shown(home.name)}], and that is incomplete: {lacking}"
                self._report.fault(entry or section, what, f"complete [{shown(home.name)}], or add [{shown(owner)}]")

    def _completed_by_others(self, name: str) -> bool:
        """Whether a catch-all is but the base of other sections, which may add what it lacks."""
        if not name.startswith("@"):
            return False
        chains = (catchall.chain(self._values, other, catch_all=True) for other in self._values if other != name)
        return any(name in names for names in chains)

    def _tell(self, names: tuple[str, ...], problem: grants.Problem) -> None:
        broken = self._broken(names)
        if {problem.key, *problem.others} & broken:
            return
        entry = self._origin(names, problem.key)
        if entry is not None and problem.what != grants.MISSING:
            self._report.fault(entry, problem.what, problem.mend)
            return
        mend = problem.mend
        wider = catchall.chain(self._values, names[0], catch_all=True)
        if not self._catch_all and problem.key in catchall.merge(self._values, wider):
            mend += f", or set allow_catch_all_accounts = True to inherit it from [{wider[-1]}]"
        self._report.fault(self._sections[names[0]], problem.what, mend, problem.key)

    def _broken(self, names: tuple[str, ...]) -> set[str]:
        """The keys that are there but have a fault of their own, their misspellings included."""
        present = {key for name in names for key in self._sections[name].entries if key not in CACHED}
        proper = {repairs.RENAMED.get(key, key) for key in present}
        read = {key for name in names for key in self._values[name]}
        known = account_keys(Path())
        return {near for key in proper - read for near in (nearest(key, known),) if near}

    def _origin(self, names: tuple[str, ...], key: str) -> Entry | None:
        """Where an effective value comes from."""
        return next((found for name in names if (found := self._sections[name].entries.get(key))), None)

    def _tell_what_is_in_vain(self, name: str, values: Values, flow: FlowName) -> None:
        """Only of a section's own settings: those of a catch-all may be for others."""
        own = self._sections[name].entries
        for problem in grants.without_effect(values, flow):
            if problem.key in own:
                self._report.notice(own[problem.key], problem.what, problem.mend)

    def _tell_where_it_listens(self, names: tuple[str, ...], values: Values) -> None:
        redirect_uri = str(values.get("redirect_uri", ""))
        if not redirect_uri or "redirect_listen_address" in values:
            return
        if repairs.placeholder("redirect_uri", redirect_uri):
            return
        parts = urlsplit(redirect_uri)
        if parts.scheme == "http" and is_loopback(parts.hostname or ""):
            return
        what = f"leads to a reverse proxy; emailproxy will listen on http://{DEFAULT_LISTEN_ADDRESS}/ for it"
        mend = "let the proxy forward there, or set redirect_listen_address"
        self._report.notice(self._origin(names, "redirect_uri"), what, mend)
