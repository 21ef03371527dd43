"""What several workers know of one server, as one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Facts = dict[str, Any]
COUNTED = ("sessions", "logged_in", "prewarmed")  # of a listening section, each worker for itself


def merged(status: Facts, counts: Sequence[Facts]) -> Facts:
    """What `emailproxy status` shows.

    Args:
        status: one worker's `Service.status`: what is in files is the same for all.
        counts: every worker's `Service.counts`.
    """
    unlocked, degraded = (set(_all(counts, what)) for what in ("unlocked", "degraded"))
    sessions = _sum(counts, "sessions")
    accounts = [
        line
        | {
            "unlocked": line["account"] in unlocked,
            "storage": "degraded" if line["account"] in degraded else "ok",
            "sessions": sessions[line["account"]],
        }
        for line in status["accounts"]
    ]
    return status | {
        "listeners": _listeners(counts),
        "accounts": accounts,
        "degraded": [line["account"] for line in accounts if line["storage"] == "degraded"],
        "refused": dict(sorted(_sum(counts, "refused").items())),
    }


def _all(counts: Iterable[Facts], what: str) -> Iterable[str]:
    return (name for own in counts for name in own[what])


def _sum(counts: Iterable[Facts], what: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for own in counts:
        total.update(own[what])
    return total


def _listeners(counts: Iterable[Facts]) -> list[Facts]:
    """Those that accept first, as a single server has them."""
    found: dict[object, Facts] = {}
    for line in (line for own in counts for line in own["listeners"]):
        same = found.setdefault(
            (line["section"], tuple(line["addresses"]), line["retired"]), line | dict.fromkeys(COUNTED, 0)
        )
        for what in COUNTED:
            same[what] += line[what]
    return sorted(found.values(), key=lambda line: bool(line["retired"]))
