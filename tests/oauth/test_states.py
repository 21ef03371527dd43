"""The state that an account's record, consent and lock make together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emailproxy.oauth.states import Absent, ConsentPending, Live, NeedsSignIn, Refreshing, State, state_of
from emailproxy.store.base import Pending, Record
from tests.store.samples import NOW, pending, record

HOUR = record()
"""Obtained at NOW, good for an hour."""
ENDS = NOW + 3600
REFUSED = replace(HOUR, needs_sign_in=True, last_error="revoked")
EMPTY = replace(HOUR, sealed={}, expires_at_s=None, obtained_at_s=None)
ENDLESS = replace(HOUR, expires_at_s=None)
SHORT = replace(HOUR, expires_at_s=NOW + 60)
UNDATED = replace(HOUR, obtained_at_s=None)
ASKED = pending("state")
OVER = pending("state", lives_s=10)

CASES: dict[str, tuple[Record | None, Pending | None, bool, int, State]] = {
    "nothing": (None, None, False, 0, Absent()),
    "nothing, and somebody at it": (None, None, True, 0, Absent()),
    "a password and no tokens": (EMPTY, None, False, 0, Absent()),
    "a first consent": (None, ASKED, False, 0, ConsentPending(NOW, NOW + 86_400)),
    "a consent in place of tokens": (REFUSED, ASKED, True, 0, ConsentPending(NOW, NOW + 86_400)),
    "a consent that is over": (HOUR, OVER, False, 20, Live(ENDS, NOW)),
    "a first consent that is over": (None, OVER, False, 10, Absent()),
    "tokens": (HOUR, None, False, 0, Live(ENDS, NOW)),
    "fresh tokens and somebody at it": (HOUR, None, True, 2999, Live(ENDS, NOW)),
    "due, and somebody at it": (HOUR, None, True, 3000, Refreshing(ENDS)),
    "due, and nobody at it": (HOUR, None, False, 3000, Live(ENDS, NOW)),
    "over, and somebody at it": (HOUR, None, True, 9999, Refreshing(ENDS)),
    "over, and nobody at it": (HOUR, None, False, 9999, Live(ENDS, NOW)),
    "half of a short life is fresh": (SHORT, None, True, 29, Live(NOW + 60, NOW)),
    "half of a short life is due": (SHORT, None, True, 30, Refreshing(NOW + 60)),
    "of an unknown age, due": (UNDATED, None, True, 3000, Refreshing(ENDS)),
    "of an unknown age, fresh": (UNDATED, None, True, 2999, Live(ENDS, None)),
    "without an end": (ENDLESS, None, True, 10**9, Live(None, NOW)),
    "refused for good": (REFUSED, None, False, 0, NeedsSignIn("revoked")),
    "refused for good, and somebody at it": (REFUSED, None, True, 9999, NeedsSignIn("revoked")),
}


@pytest.mark.parametrize(("kept", "asked", "locked", "later_s", "state"), CASES.values(), ids=CASES)
def test_a_state(kept: Record | None, asked: Pending | None, locked: bool, later_s: int, state: State) -> None:
    assert state_of(kept, asked, locked=locked, now_s=NOW + later_s) == state


def test_the_margin_is_the_configured_one() -> None:
    assert state_of(HOUR, None, locked=True, now_s=NOW + 3500, margin_s=60) == Live(ENDS, NOW)
    assert state_of(HOUR, None, locked=True, now_s=NOW + 3540, margin_s=60) == Refreshing(ENDS)


def test_states_have_the_names_that_people_read() -> None:
    names = [state.name for state in (Absent, ConsentPending, Live, Refreshing, NeedsSignIn)]
    assert names == ["absent", "consent pending", "live", "refreshing", "needs sign-in"]
