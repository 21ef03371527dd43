"""What passwords are good for."""

from __future__ import annotations

import pytest

from emailproxy.errors import PasswordsUnchanged
from emailproxy.store.base import NO_LIMITS, Limits
from emailproxy.store.limits import LATEST_S, MAX_NETWORKS, canonical, in_words, why_not

NOW = 1_700_000_000


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (NO_LIMITS, NO_LIMITS),
        (Limits(("smtp", "pop3", "Imap", "SMTP")), Limits(("IMAP", "POP", "SMTP"))),
        (Limits(("pop",)), Limits(("POP",))),
        (Limits((), ("192.0.2.7", "10.0.0.0/8", "10.0.0.0/8")), Limits((), ("192.0.2.7/32", "10.0.0.0/8"))),
        (Limits((), ("2001:DB8::/32", "::1")), Limits((), ("2001:db8::/32", "::1/128"))),
        (Limits((), ("::ffff:10.0.0.0/104", "::ffff:192.0.2.1")), Limits((), ("10.0.0.0/8", "192.0.2.1/32"))),
        (Limits(expires_s=0), Limits(expires_s=0)),
    ],
)
def test_limits_are_kept_in_one_spelling(said: Limits, kept: Limits) -> None:
    assert canonical(said) == kept
    assert canonical(kept) == kept


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (Limits(("ftp",)), "'ftp' is no protocol; write imap, pop3 or smtp"),
        (Limits((), ("example.org",)), "'example.org' is no network"),
        (Limits((), ("",)), "'' is no network"),
        (Limits((), ("10.0.0.300",)), "is no network"),
        (Limits((), ("10.0.0.1/8",)), "an address within a network; write 10.0.0.0/8"),
        (Limits((), tuple(f"10.0.0.{n}" for n in range(MAX_NETWORKS + 1))), "33 networks for one password"),
        (Limits(expires_s=LATEST_S + 1), "a year before 9999"),
        (Limits(expires_s=-1), "a year before 9999"),
    ],
)
def test_what_is_no_limit_is_named(said: Limits, what: str) -> None:
    with pytest.raises(PasswordsUnchanged, match=what):
        canonical(said)


SCANNER = Limits(("SMTP",), ("10.0.0.0/8", "2001:db8::/32"), NOW)


@pytest.mark.parametrize(
    ("limits", "protocol", "address", "after_s", "why"),
    [
        (NO_LIMITS, "IMAP", "192.0.2.1", 10**9, ""),
        (SCANNER, "SMTP", "10.1.2.3", -1, ""),
        (SCANNER, "SMTP", "::ffff:10.1.2.3", -1, ""),
        (SCANNER, "SMTP", "2001:db8::7", -1, ""),
        (SCANNER, "SMTP", "10.1.2.3", 0, "ended on 2023-11-14 22:13 UTC"),
        (SCANNER, "", "", 0, "ended on"),
        (SCANNER, "", "", -1, ""),
        (SCANNER, "IMAP", "10.1.2.3", -1, "is for SMTP only, and this is IMAP"),
        (Limits(("IMAP", "SMTP")), "POP", "10.1.2.3", -1, "is for IMAP and SMTP only, and this is POP3"),
        (SCANNER, "SMTP", "11.1.2.3", -1, "from 10.0.0.0/8, 2001:db8::/32 only, and this one comes from 11.1.2.3"),
        (SCANNER, "SMTP", "2001:db9::1", -1, "comes from 2001:db9::1"),
        (SCANNER, "SMTP", "::ffff:11.1.2.3", -1, "comes from ::ffff:11.1.2.3"),
        (SCANNER, "SMTP", "fe80::1%eth0", -1, "comes from fe80::1%eth0"),
        (SCANNER, "SMTP", "", -1, "comes from elsewhere"),
        (SCANNER, "SMTP", "no address", -1, "comes from no address"),
        (Limits((), ("fe80::/10",)), "IMAP", "fe80::1%eth0", -1, ""),
        (Limits((), tuple(f"10.{n}.0.0/16" for n in range(9))), "IMAP", "::1", -1, "10.2.0.0/16 and 6 more only"),
    ],
)
def test_a_login_is_held_against_the_limits(
    limits: Limits, protocol: str, address: str, after_s: int, why: str
) -> None:
    told = why_not(limits, protocol, address, NOW + after_s)
    assert why in told
    assert bool(told) is bool(why)


def test_limits_are_told_in_words() -> None:
    assert in_words(NO_LIMITS) == ""
    assert in_words(SCANNER) == "SMTP only, from 10.0.0.0/8, 2001:db8::/32, until 2023-11-14 22:13 UTC"
