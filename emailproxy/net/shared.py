"""What all listening sections have in common: the limits, the counts, and what is remembered of mail servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emailproxy.net.activation import Activated
from emailproxy.net.admission import Doorman
from emailproxy.net.places import Places
from emailproxy.net.seen import Seen

if TYPE_CHECKING:
    from emailproxy.config.model import Settings
    from emailproxy.net.dial import Dialer
    from emailproxy.net.tokens import TokenSource

SPARE_DESCRIPTORS = 64  # for files, the redirect listener, look-ups
DESCRIPTORS_PER_SESSION = 2


def descriptor_cap(ahead: int = 0) -> int:
    """How many sessions the process's file descriptors allow, the soft limit raised to the hard one first; `ahead` are
    in use for connections that wait for a session."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 16
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (hard - SPARE_DESCRIPTORS - ahead) // DESCRIPTORS_PER_SESSION)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions there may be, and how long a login may take."""

    max_connections: int = 1000
    max_connections_per_address: int = 200
    max_unauthenticated: int = 500
    max_connections_per_account: int | None = None
    """None: no limit but what a provider is known for."""
    login_timeout_s: float = 60.0
    login_queue_s: float = 30.0

    @classmethod
    def of(cls, settings: Settings, ahead: int = 0) -> SessionLimits:
        """Those of the `[emailproxy]` section, as far as the process's file descriptors allow them."""
        return cls(
            min(settings.max_connections, descriptor_cap(ahead)),
            settings.max_connections_per_address,
            settings.max_unauthenticated,
            settings.max_connections_per_account,
            settings.login_timeout,
            settings.login_queue,
        )


class Shared:
    """One for all `Listener`s of a process.

    For a listener of one's own, ``Shared(dialer, tokens)`` will do; ``SessionLimits(login_timeout_s=...)`` says more.
    """

    def __init__(
        self,
        dialer: Dialer,
        tokens: TokenSource,
        limits: SessionLimits | None = None,
        activated: Activated | None = None,
        places: Places | None = None,
    ) -> None:
        self.dialer = dialer
        self.tokens = tokens
        self.limits = limits or SessionLimits()
        self.activated = activated or Activated({})
        self.doorman = Doorman(self.limits)
        self.places = places or Places()
        self.seen = Seen()

    def update(self, limits: SessionLimits, tokens: TokenSource | None = None, dialer: Dialer | None = None) -> None:
        """After a reload: new connections meet the new limits, and who is in stays in.

        Listeners take new `tokens` over with their own `update`.
        """
        self.limits = self.doorman.limits = limits
        self.tokens = tokens or self.tokens
        self.dialer = dialer or self.dialer
