"""Lengths of time, in seconds or with a unit."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailproxy.config.model import DAYS, HOURS, MINUTES
from emailproxy.config.values import Wrong, duration
from tests.config.samples import GOOD, config, faults

LENGTHS = [
    ("600", 600),
    ("0", 0),
    ("0.5", 0.5),
    ("90 s", 90),
    ("90s", 90),
    ("90 Seconds", 90),
    ("10 min", 10 * MINUTES),
    ("10m", 10 * MINUTES),
    ("1.5\tminutes", 90),
    ("12 h", 12 * HOURS),
    ("1 hour", 1 * HOURS),
    ("20 days", 20 * DAYS),
    ("20d", 20 * DAYS),
    ("2 weeks", 14 * DAYS),
]


@pytest.mark.parametrize(("text", "seconds"), LENGTHS)
def test_a_length_of_time_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert duration(0, 365 * DAYS, above_low=False)(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "min", "ten", "-1", "+1", "1e3", "1 2", "1 month", "1,5", "1.", "٣", "1 m in", "nan", "inf", "9" * 10]
)
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(Wrong, match="write seconds from 0 to 31536000, or with a unit"):
        duration(0, 365 * DAYS, above_low=False)(text)


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(Wrong):
        assert 0 < duration(0, 100, above_low=True)(text) <= 100


@pytest.mark.parametrize(
    ("key", "text", "seconds"),
    [
        ("refresh_margin", "15 min", 15 * MINUTES),
        ("refresh_margin", "0", 0),
        ("refresh_margin", "1 day", 1 * DAYS),
        ("keep_alive", "7 days", 7 * DAYS),
        ("consent_wait", "1 min", 60),
        ("login_timeout", "2m", 120),
        ("drain_timeout", "0", 0),
        ("hook_timeout", "5 s", 5),
    ],
)
def test_every_length_of_the_settings_takes_units(key: str, text: str, seconds: float) -> None:
    assert getattr(config(f"[emailproxy]\n{key} = {text}\n{GOOD}").settings, key) == seconds


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("refresh_margin", "2 days", "from 0 to 86400"),
        ("keep_alive", "0", "above 0 and at most 31536000"),
        ("keep_alive", "60 weeks", "at most 31536000"),
        ("hook_timeout", "11 min", "at most 600"),
        ("login_timeout", "0 s", "above 0"),
        ("drain_timeout", "2 hours", "from 0 to 3600"),
    ],
)
def test_a_length_out_of_bounds_is_one_fault(key: str, text: str, words: str) -> None:
    (fault,) = faults(f"[emailproxy]\n{key} = {text}\n{GOOD}")
    assert (fault.line, fault.section, fault.key) == (2, "emailproxy", key)
    assert words in fault.mend


@pytest.mark.parametrize(
    ("key", "text", "examples"),
    [
        ("hook_timeout", "abc", "90 s, 10 min"),
        ("drain_timeout", "2 h", "90 s, 10 min"),
        ("refresh_margin", "abc", "90 s, 10 min, 12 h"),
        ("keep_alive", "abc", "90 s, 10 min, 12 h, 20 days"),
    ],
)
def test_the_examples_are_within_the_bounds(key: str, text: str, examples: str) -> None:
    (fault,) = faults(f"[emailproxy]\n{key} = {text}\n{GOOD}")
    assert fault.mend.endswith(f", e.g. {examples}")


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = config(GOOD).settings
    assert (settings.refresh_margin, settings.keep_alive) == (10 * MINUTES, 20 * DAYS)
