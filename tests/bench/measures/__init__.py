"""A module for each measure: `tests.bench.frame.Measure` says what it has."""

from __future__ import annotations

import pkgutil

ORDER = (
    "login_p50", "login_rate", "login_cpu", "broker_cpu", "download_cpu", "download_speed", "append_cpu", "submit_cpu",
    "noop_p50", "idle_memory", "crowd_alive", "crowd_memory", "crowd_cpu", "start", "rest_memory", "signed_in_memory",
    "far_imap", "far_pop", "far_smtp", "accounts_login", "accounts_save", "accounts_start",
)  # fmt: skip
"""The rest follow by name."""


def names() -> list[str]:
    """All of them, in the order of the tables; none is imported."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    first = [name for name in ORDER if name in found]
    return [*first, *sorted(found - set(first))]
