"""Account names as file names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailproxy.store.names import DEVICES, account_of, stem_of

NAMES = st.text(st.characters(exclude_categories=("Cc",)), max_size=300)


@given(NAMES)
def test_a_file_name_is_safe_and_gives_the_account_back(name: str) -> None:
    stem = stem_of(name)
    assert re.fullmatch(r"[a-zA-Z0-9_~@+%=-][a-zA-Z0-9_.~@+%=-]{0,199}", stem)
    assert stem.partition(".")[0] not in DEVICES
    assert account_of(stem) in (None, name.casefold())


@given(NAMES, NAMES)
def test_different_accounts_have_different_files(one: str, other: str) -> None:
    # Lower-cased, as some file systems compare without regard to case.
    assert (stem_of(one).lower() == stem_of(other).lower()) == (one.casefold() == other.casefold())


@pytest.mark.parametrize(
    ("account", "stem"),
    [
        ("ada@example.org", "ada@example.org"),
        ("Ada+Mail@Example.ORG", "ada+mail@example.org"),
        ("DOMAIN\\user", "domain%5Cuser"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("a@b]\n[SMTP-25", "a@b%5D%0A%5Bsmtp-25"),
        (".", "%2E"),
        ("con", "%63on"),
        ("NUL.example", "%6Eul.example"),
        ("console", "console"),
        ("jörg@example.org", "j%C3%B6rg@example.org"),
        ("a:b*c?", "a%3Ab%2Ac%3F"),
        ("sha256=00", "sha256%3D00"),
        ("", "sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ],
)
def test_odd_names(account: str, stem: str) -> None:
    assert stem_of(account) == stem


def test_a_long_name_is_hashed() -> None:
    assert stem_of("x" * 200) == "x" * 200
    assert re.fullmatch(r"sha256=[0-9a-f]{64}", stem_of("x" * 201))
    assert account_of(stem_of("é" * 100)) is None


@pytest.mark.parametrize("stem", ["%ff", "Ada@example.org", "a b", "%41", ".", "con", ""])
def test_a_file_name_of_another_making_is_no_account(stem: str) -> None:
    assert account_of(stem) is None
