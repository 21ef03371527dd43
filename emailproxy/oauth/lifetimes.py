"""How long an access token is good for, by two clocks of which neither can be trusted alone.

The wall clock is set now and then, by an hour or a year; the monotonic one stands still while a laptop sleeps. A
token is as old as the one of the two says that makes it older: a clock that is set back never makes a dead token
look live, and one that is set forward, or a machine that wakes, costs a refresh at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from emailproxy.config.model import MINUTES, SECONDS
from emailproxy.oauth.clock import Now
from emailproxy.oauth.flow import TokenSet

MARGIN_S = 10 * MINUTES
"""A token is refreshed so long before its end: a session that begins with it should not end in the middle."""
MAX_BEHIND_S = 10 * SECONDS
"""How far the clocks of two machines that share a state folder may be apart. Tokens that were obtained later than that
from now were obtained before the clock was set back: nobody can tell how old they are."""


@dataclass(frozen=True, slots=True)
class Term:
    """The life of one access token, counted from when it was asked for."""

    since: Now
    life_s: float
    """Infinite where the provider does not say."""
    rest_s: float
    """The age from which it is to be renewed: before its end by the margin, which is half the life at most."""

    @classmethod
    def of(cls, tokens: TokenSet, asked: Now, margin_s: float) -> Term:
        """Of tokens that this process was granted."""
        if tokens.expires_at_s is None:
            return cls(asked, math.inf, math.inf)
        return cls(asked, tokens.expires_at_s - asked.wall_s, 0.0).with_margin(margin_s)

    @classmethod
    def read(cls, tokens: TokenSet, obtained_at_s: int | None, now: Now, margin_s: float) -> Term:
        """Of tokens that a record holds. Where it does not say since when, half their life is the margin."""
        if tokens.expires_at_s is None:
            since_s = now.wall_s if obtained_at_s is None else obtained_at_s
        else:
            since_s = tokens.expires_at_s - 2 * margin_s if obtained_at_s is None else obtained_at_s
        age_s = now.wall_s - since_s
        if age_s < -MAX_BEHIND_S and tokens.expires_at_s is not None:
            return cls(now, 0.0, 0.0)
        return cls.of(tokens, Now(since_s, now.monotonic_s - max(0.0, age_s)), margin_s)

    def with_margin(self, margin_s: float) -> Term:
        """The same life, renewed so long before its end."""
        if math.isinf(self.life_s):
            return self
        return replace(self, rest_s=self.life_s - max(0.0, min(margin_s, self.life_s / 2)))

    def age_s(self, now: Now) -> float:
        return max(now.wall_s - self.since.wall_s, now.monotonic_s - self.since.monotonic_s)

    def left_s(self, now: Now) -> float:
        return self.life_s - self.age_s(now)

    def is_live(self, now: Now) -> bool:
        """Whether the token has not ended; one whose end is not known is live until a server refuses it."""
        return self.left_s(now) > 0

    def is_fresh(self, now: Now) -> bool:
        """Whether the token is not to be renewed yet."""
        return self.age_s(now) < self.rest_s
