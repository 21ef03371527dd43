"""Whether this machine's clock agrees with the providers'."""

from __future__ import annotations

import logging

from emailproxy.config.model import MINUTES
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.replies import Reply, date_s

MAX_SKEW_S = 5 * MINUTES  # Kerberos' limit; more than that breaks certificates and lifetimes, and is worth a warning

log = logging.getLogger("emailproxy.oauth")


class Skew:
    """Says so in the log, once a provider, where this machine's clock is wrong: what follows is hard to guess from."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._skewed: set[str] = set()
        """Hosts of providers whose clock is not ours, as the log has it."""

    def compare(self, reply: Reply) -> None:
        """Takes the provider's clock from its reply, just received (`Date`, RFC 9110 section 6.6.1)."""
        try:
            ahead_s = self._clock.wall_s() - date_s(reply.date or "")
        except (ValueError, TypeError, OverflowError, IndexError):
            return
        if abs(ahead_s) <= MAX_SKEW_S:
            self._skewed.discard(reply.host)
        elif reply.host not in self._skewed:
            self._skewed.add(reply.host)
            way = "ahead of" if ahead_s > 0 else "behind"
            mend = "set it (NTP), or tokens and certificates seem to end at the wrong time"
            log.warning("this machine's clock is %.0f s %s that of %s; %s", abs(ahead_s), way, reply.host, mend)
