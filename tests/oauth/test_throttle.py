from __future__ import annotations

import pytest

from emailproxy.errors import TooManyLogins
from emailproxy.oauth.throttle import MAX_COUNTED, NEW_ACCOUNTS, PER_ACCOUNT, PER_ADDRESS, Throttle
from tests.oauth.world import Turned


@pytest.fixture
def turned() -> Turned:
    return Turned()


@pytest.fixture
def throttle(turned: Turned) -> Throttle:
    return Throttle(lambda: turned.monotonic)


def test_an_account_has_its_burst_and_then_one_now_and_then(throttle: Throttle, turned: Turned) -> None:
    for _ in range(PER_ACCOUNT.burst):
        throttle.check("ada", "192.0.2.1")
        throttle.failed("ada", "192.0.2.1")
    with pytest.raises(TooManyLogins, match="try again in 6 s"):
        throttle.check("ada", "192.0.2.9")
    throttle.check("bob", "192.0.2.1")
    turned.turn(PER_ACCOUNT.refill_s)
    throttle.check("ada", "")
    throttle.failed("ada", "")
    with pytest.raises(TooManyLogins):
        throttle.check("ada", "")


def test_an_address_that_guesses_at_many_accounts_is_slowed(throttle: Throttle, turned: Turned) -> None:
    for number in range(PER_ADDRESS.burst):
        throttle.failed(f"u{number}", "192.0.2.1")
    with pytest.raises(TooManyLogins, match="address"):
        throttle.check("ada", "192.0.2.1")
    throttle.check("ada", "192.0.2.2")
    turned.turn(PER_ADDRESS.refill_s)
    throttle.check("ada", "192.0.2.1")


def test_new_accounts_of_an_address_are_slowed(throttle: Throttle, turned: Turned) -> None:
    for _ in range(NEW_ACCOUNTS.burst):
        throttle.begin("192.0.2.1")
        throttle.begin("")  # the command line has no address, and no limit
    with pytest.raises(TooManyLogins, match="too many new accounts from this address; try again in 2 s"):
        throttle.begin("192.0.2.1")
    throttle.begin("192.0.2.2")
    throttle.check("ada", "192.0.2.1")
    turned.turn(NEW_ACCOUNTS.refill_s - 0.3)
    with pytest.raises(TooManyLogins, match="in 1 s"):
        throttle.begin("192.0.2.1")
    turned.turn(0.3)
    throttle.begin("192.0.2.1")


def test_what_is_remembered_is_bounded(throttle: Throttle) -> None:
    for number in range(MAX_COUNTED * 2):
        throttle.failed(f"u{number}", "")
    assert len(throttle._spent) == MAX_COUNTED
