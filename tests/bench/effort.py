"""How much of everything is measured in one round."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

MB = 1_000_000
GB = 1000 * MB


@dataclass(frozen=True, slots=True)
class Effort:
    """The numbers of one round; `short` is only to see that everything works."""

    logins: int = 300
    """One after another."""
    seconds: float = 4.0
    """Of logins by several clients at once."""
    octets: int = 200 * MB
    """Of a transfer."""
    noops: int = 2000
    warm_up: int = 50
    """Idle connections before the counted ones."""
    connections: int = 200
    """Idle connections that are counted."""
    broker_logins: int = 1000
    short: bool = False


FULL = Effort()
SHORT = Effort(
    logins=5, seconds=0.3, octets=4 * MB, noops=20, warm_up=2, connections=10, broker_logins=20, short=True
)  # fmt: skip


def effort_for(*, short: bool, slow: bool) -> Effort:
    """`slow`: for whom a login takes a fifth of a second."""
    if short:
        return dataclasses.replace(SHORT, logins=2, connections=3) if slow else SHORT
    return dataclasses.replace(FULL, logins=20, warm_up=10, connections=40) if slow else FULL
