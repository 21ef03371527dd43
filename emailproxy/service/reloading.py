"""What another configuration changes in a server that runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from emailproxy.config.model import Config, Server, Settings
from emailproxy.errors import ServiceError

AT_START = (
    "state_dir",
    "log_file",
    "log_size_mib",
    "log_files",
    "runtime_dir",
    "workers",
    "ca_file",
    "upstream_proxy",
    "no_proxy",
)
"""Settings that only a restart changes: files that are open, and connections that stand, depend on them."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What has come of a new configuration. Listening sections by name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    """Settings that have changed in the file, and stay as they were until the server is started again."""
    late: tuple[str, ...] = ()
    """Workers that have not taken it yet, as they do not answer."""

    def __str__(self) -> str:
        parts = [
            f"{what} {', '.join(sections)}"
            for what, sections in (("added", self.added), ("changed", self.changed), ("removed", self.removed))
            if sections
        ]
        return "; ".join(parts) or "no listening section has changed"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which sections open, which go on with their sockets, and which end."""

    opened: tuple[Server, ...]
    """New ones, and those that listen elsewhere from now on."""
    updated: tuple[Server, ...]
    """Those that listen where they did, with other settings for new sessions."""
    ended: tuple[str, ...]
    """Those that are gone or listen elsewhere, by name."""
    outcome: Reloaded

    @classmethod
    def of(cls, old: Config, new: Config) -> Plan:
        before = {server.section: server for server in old.servers}
        after = {server.section: server for server in new.servers}
        opened = [server for name, server in after.items() if name not in before or moves(before[name], server)]
        moved = [server.section for server in opened if server.section in before]
        updated = [
            server for name, server in after.items() if name in before and name not in moved and before[name] != server
        ]
        outcome = Reloaded(
            added=tuple(name for name in after if name not in before),
            changed=tuple(name for name in after if name in moved or after[name] in updated),
            removed=tuple(name for name in before if name not in after),
            unchanged=tuple(name for name in after if before.get(name) == after[name]),
            restart=waiting(old.settings, new.settings),
        )
        return cls(tuple(opened), tuple(updated), (*outcome.removed, *moved), outcome)


def moves(old: Server, new: Server) -> bool:
    """Whether it listens elsewhere."""
    return (old.local_address, old.local_port) != (new.local_address, new.local_port)


def waiting(old: Settings, new: Settings) -> tuple[str, ...]:
    """The settings that have changed and only count after a restart."""
    return tuple(name for name in AT_START if getattr(old, name) != getattr(new, name))


def in_force(old: Config, new: Config) -> Config:
    """The new configuration, but for what only a restart changes."""
    kept = {name: getattr(old.settings, name) for name in AT_START}
    return replace(new, settings=replace(new.settings, **kept))


def explained(error: ServiceError, plan: Plan, addresses: Mapping[str, Iterable[tuple[str, int]]]) -> ServiceError:
    """A port that this very server holds for a section that ends cannot be had before.

    Args:
        addresses: where it listens, by section.
    """
    ports = {port for section in plan.ended for _, port in addresses.get(section, ())}
    if not any(server.local_port in ports for server in plan.opened):
        return error
    return ServiceError(f"{error}. If emailproxy itself has that port, for another section or address, restart it")
