"""What becomes of a run's figures: targets in words, the README's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import table
from tests.bench.results import Figure, Measure, bound, read, written

FIGURES = {"emailproxy": Figure(3.0, 2.9, 3.4), "Dovecot": Figure(4.0, 3.8, 4.4), "stunnel": Figure(2.0, 2.0, 2.0)}


@pytest.mark.parametrize(
    ("target", "means"),
    [
        ("at most 0.8 of Dovecot's", 3.2),
        ("at least Dovecot's, with one process", 4.0),
        ("at most 1.05 of stunnel's", 2.1),
        ("at most 36 KiB", 36.0),
        ("at least 10,000", 10_000.0),
        ("at most 4; 1 with prewarm", 4.0),
        ("under 0.25 s", 0.25),
        ("at most haproxy's", None),
        ("", None),
    ],
)
def test_a_target_in_words_is_a_number(target: str, means: float | None) -> None:
    assert bound(target, FIGURES) == (None if means is None else pytest.approx(means))


@pytest.mark.parametrize(
    ("target", "better", "unit", "reached"),
    [
        ("at most 0.8 of Dovecot's", "lower", "ms", True),
        ("at most stunnel's", "lower", "ms", False),
        ("at least Dovecot's", "higher", "logins/s", False),
        ("at least stunnel's", "higher", "logins/s", True),
        ("at most 2.8", "lower", "round trips", False),
        ("at most haproxy's", "lower", "ms", None),
    ],
)
def test_what_is_reached(target: str, better: str, unit: str, reached: bool | None) -> None:
    assert Measure("login", unit, better, target, FIGURES).reached is reached


def test_a_part_of_a_round_trip_is_the_machines_own_time() -> None:
    figures = {"emailproxy": Figure(4.3, 4.3, 4.3)}
    assert Measure("login", "round trips", "lower", "at most 4", figures).reached is True


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0421, "0.042"), (3.41, "3.41"), (27.34, "27.3"), (216.4, "216"), (9999.6, "10,000"), (1e-5, "0")],
)
def test_figures_are_written_with_the_digits_that_say_something(value: float, text: str) -> None:
    assert written(value) == text


def test_the_table_is_the_runs(tmp_path: Path) -> None:
    def figure(value: float) -> dict[str, object]:
        return {"rounds": [value], "median": value, "low": value, "high": value}

    path = tmp_path / "bench.json"
    measures = [
        {"name": "login", "unit": "ms", "better": "lower", "target": "at most 0.8 of Dovecot's",
         "candidates": {"emailproxy": figure(3.0), "Dovecot": figure(4.0)}},
        {"name": "speed", "unit": "MB/s", "better": "higher", "target": "", "candidates": {"stunnel": figure(180.0)}},
    ]  # fmt: skip
    path.write_text(json.dumps({"machine": {}, "date": "2026-11-22", "measures": measures}))
    assert table.lines(read(path)) == [
        "| measure | **emailproxy** | stunnel | Dovecot | target | reached |",
        "| --- | --: | --: | --: | --- | --- |",
        "| login (ms) | **3** | – | 4 | at most 0.8 of Dovecot's | yes |",
        "| speed (MB/s) | – | 180 | – | – | – |",
    ]
