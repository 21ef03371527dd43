from __future__ import annotations

from itertools import pairwise

import pytest

from emailproxy.errors import TooManyLogins
from emailproxy.oauth.throttle import (
    MAX_COUNTED,
    NEW_ACCOUNTS,
    PER_ACCOUNT,
    PER_ADDRESS,
    PER_LOGIN,
    Rank,
    Throttle,
    site_of,
)
from tests.oauth.world import Turned

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def turned() -> Turned:
    return Turned()


@pytest.fixture
def throttle(turned: Turned) -> Throttle:
    return Throttle(lambda: turned.monotonic)


def wait_s(throttle: Throttle, account: str = "ada", address: str = HERE) -> int:
    """How long this address is told to wait before its next try."""
    try:
        throttle.check(account, address)
    except TooManyLogins as error:
        return int(str(error).split()[-2])
    return 0


def fail(throttle: Throttle, times: int, account: str = "ada", address: str = HERE) -> None:
    for _ in range(times):
        throttle.failed(account, address)


def test_an_address_has_its_free_mistakes_and_then_waits_twice_as_long_each_time(
    throttle: Throttle, turned: Turned
) -> None:
    waits = []
    for _ in range(PER_LOGIN.free + 9):
        throttle.failed("ada", HERE)
        waits.append(wait_s(throttle))
        turned.turn(waits[-1])
        assert wait_s(throttle) == 0, "the wait is over when it was said to be"
    assert waits[: PER_LOGIN.free - 1] == [0] * (PER_LOGIN.free - 1)
    assert waits[PER_LOGIN.free - 1] == 1
    assert waits[-1] == PER_LOGIN.longest_s
    assert all(second >= first for first, second in pairwise(waits))


def test_the_text_says_what_there_was_too_much_of_and_when_to_try_again(throttle: Throttle, turned: Turned) -> None:
    fail(throttle, PER_LOGIN.free + 2)
    with pytest.raises(
        TooManyLogins, match="too many wrong passwords for this account from this address; try again in 4 s"
    ):
        throttle.check("ada", HERE)
    turned.turn(1.5)
    assert wait_s(throttle) == 3


def test_who_was_not_wrong_never_waits(throttle: Throttle) -> None:
    for number in range(1000):
        throttle.failed("ada", f"10.0.{number // 250}.{number % 250}")
    fail(throttle, 100)
    assert wait_s(throttle, "ada", THERE) == 0
    assert wait_s(throttle, "ada", "") == 0, "the command line"
    assert wait_s(throttle, "bob", THERE) == 0


def test_an_account_under_attack_allows_each_address_fewer_mistakes(throttle: Throttle, turned: Turned) -> None:
    assert throttle.rank("ada", THERE) is Rank.CLEAN
    for number in range(PER_ACCOUNT.free):
        throttle.failed("ada", f"10.0.0.{number}")
    assert throttle.rank("ada", THERE) is Rank.UNDER_ATTACK
    assert throttle.rank("bob", THERE) is Rank.CLEAN
    throttle.failed("ada", THERE)
    assert wait_s(throttle, "ada", THERE) == 1
    throttle.failed("bob", THERE)
    assert wait_s(throttle, "bob", THERE) == 0
    turned.turn(3600)
    assert throttle.rank("ada", THERE) is Rank.CLEAN


def test_an_address_that_guesses_at_many_accounts_is_slowed(throttle: Throttle, turned: Turned) -> None:
    for number in range(PER_ADDRESS.free):
        throttle.failed(f"u{number}", HERE)
    with pytest.raises(TooManyLogins, match="too many wrong passwords from this address; try again in 1 s"):
        throttle.check("ada", HERE)
    assert wait_s(throttle, "ada", THERE) == 0
    turned.turn(1)
    for wait in (2, 4, 8, 16, 30, 30):
        throttle.failed("eve", HERE)
        assert wait_s(throttle, "ada", HERE) == wait
        turned.turn(wait)


def test_mistakes_are_forgotten_in_time(throttle: Throttle, turned: Turned) -> None:
    fail(throttle, 50)
    assert wait_s(throttle) == PER_LOGIN.longest_s
    assert throttle.rank("ada", HERE) is Rank.SUSPECT
    turned.turn(3600)
    assert throttle.rank("ada", HERE) is Rank.CLEAN
    fail(throttle, PER_LOGIN.free - 1)
    assert wait_s(throttle) == 0


def test_who_goes_on_is_held_to_a_pace(throttle: Throttle, turned: Turned) -> None:
    began_s, tries = turned.monotonic, 0
    while turned.monotonic - began_s < 24 * 3600:
        throttle.failed("ada", HERE)
        tries += 1
        turned.turn(max(1, wait_s(throttle)))
    assert tries < 24 * 3600 / PER_LOGIN.longest_s + 20


def test_a_right_password_takes_back_this_addresss_mistakes_with_this_account_only(throttle: Throttle) -> None:
    fail(throttle, 7)
    fail(throttle, 3, "bob")
    fail(throttle, 6, "ada", THERE)
    assert (wait_s(throttle), wait_s(throttle, "ada", THERE)) == (4, 2)
    throttle.succeeded("ada", HERE)
    assert (wait_s(throttle), wait_s(throttle, "ada", THERE)) == (0, 2)
    assert throttle.rank("ada", HERE) is Rank.SUSPECT, "bob's are left"
    throttle.succeeded("bob", HERE)
    assert throttle.rank("ada", HERE) is Rank.CLEAN


def test_an_account_of_ones_own_forgives_no_guesses_at_others(throttle: Throttle) -> None:
    for number in range(PER_ADDRESS.free):
        throttle.failed(f"u{number}", HERE)
        throttle.succeeded("mine", HERE)
    assert wait_s(throttle, "ada") == 1


def test_a_mistake_that_was_none_is_taken_back(throttle: Throttle) -> None:
    for _ in range(100):
        throttle.failed("ada", HERE)
        throttle.take_back("ada", HERE)
    assert wait_s(throttle) == 0
    assert len(throttle) == 0


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a pipe", "a pipe"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_one_party_is_one_site(address: str, site: str) -> None:
    assert site_of(address) == site


def test_all_addresses_of_an_ipv6_site_count_together(throttle: Throttle) -> None:
    for number in range(PER_LOGIN.free):
        throttle.failed("ada", f"2001:db8::{number:x}")
    assert wait_s(throttle, "ada", "2001:db8::ffff") == 1
    assert wait_s(throttle, "ada", "2001:db8:0:1::") == 0


def test_new_accounts_of_an_address_are_slowed(throttle: Throttle, turned: Turned) -> None:
    for _ in range(NEW_ACCOUNTS.burst):
        throttle.begin(HERE)
        throttle.begin("")  # the command line has no address, and no limit
    with pytest.raises(TooManyLogins, match="too many new accounts from this address; try again in 2 s"):
        throttle.begin(HERE)
    throttle.begin(THERE)
    throttle.check("ada", HERE)
    turned.turn(NEW_ACCOUNTS.refill_s - 0.3)
    with pytest.raises(TooManyLogins, match="in 1 s"):
        throttle.begin(HERE)
    turned.turn(0.3)
    throttle.begin(HERE)


def test_what_is_remembered_is_bounded(throttle: Throttle) -> None:
    for number in range(MAX_COUNTED + 100):
        throttle.failed(f"u{number}", f"10.1.{number // 256}.{number % 256}")
        throttle.begin(f"10.1.{number // 256}.{number % 256}")
    assert len(throttle) == 4 * MAX_COUNTED
