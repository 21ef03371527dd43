"""The bench's arithmetic; what it measures is measured by scripts/bench alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.bench import frame, measures
from tests.bench.candidate import DOVECOT, EMAILPROXY, PYPI, STUNNEL, Candidate
from tests.bench.clients import Account
from tests.bench.effort import FULL, Effort

CANDIDATES = [
    Candidate(name, "C" if name in (STUNNEL, DOVECOT) else "Python", Account("ann", "secret"), None, None, None)
    for name in (EMAILPROXY, STUNNEL, DOVECOT, PYPI)
]
KINDS = {candidate.name: candidate.kind for candidate in CANDIDATES}


def measure(run: Any, **what: Any) -> frame.Measure:
    who = (EMAILPROXY, STUNNEL, DOVECOT)
    return frame.Measure("some", "some figure", "ms", "at most 1 ms", who, run, **what)


async def run(of: frame.Measure, rounds: int) -> frame.Figures:
    return await frame.run(cast("Any", SimpleNamespace(round=None)), of, CANDIDATES, rounds, short=False)


async def test_rounds_are_interleaved_and_only_those_that_a_measure_is_of_take_part() -> None:
    calls: list[tuple[int, str]] = []

    async def note(bench: Any, candidate: Candidate, effort: Effort) -> float:
        assert effort == FULL
        calls.append((bench.round, candidate.name))
        return len(calls)

    figures = await run(measure(note), 2)
    assert calls == [(number, name) for number in (0, 1) for name in (EMAILPROXY, STUNNEL, DOVECOT)]
    assert figures.rounds == {EMAILPROXY: [1, 4], STUNNEL: [2, 5], DOVECOT: [3, 6]}
    assert not figures.failures
    assert len((await run(measure(note, rounds=1), 5)).rounds[STUNNEL]) == 1


async def test_whoever_fails_has_no_figure_and_is_not_asked_again_and_the_others_are() -> None:
    asked: list[str] = []

    async def fail_late(bench: Any, candidate: Candidate, _effort: Effort) -> float | None:
        asked.append(candidate.name)
        if candidate.name == STUNNEL and bench.round == 1:
            raise ExceptionGroup("many", [ConnectionError("refused")])
        return None if candidate.name == DOVECOT else 1.0

    figures = await run(measure(fail_late), 3)
    assert asked.count(STUNNEL) == 2
    assert figures.rounds == {EMAILPROXY: [1.0, 1.0, 1.0]}
    assert "ConnectionError: refused" in figures.failures[STUNNEL]


@pytest.mark.parametrize(("better", "best"), [("lower", (DOVECOT, 2.0)), ("higher", (STUNNEL, 3.0))])
def test_the_best_in_c_is_found_by_the_median(better: Any, best: tuple[str, float]) -> None:
    rounds = {EMAILPROXY: [1.0], STUNNEL: [3.0, 1.0, 9.0], DOVECOT: [2.0, 2.0, 50.0], PYPI: [99.0]}
    figures = frame.Figures(measure(None, better=better), rounds)
    assert figures.best_c(KINDS) == best
    assert frame.Figures(measure(None), {EMAILPROXY: [1.0]}).best_c(KINDS) is None


def test_the_file_has_each_round_and_their_median_and_spread(tmp_path: Path) -> None:
    figures = frame.Figures(measure(None), {STUNNEL: [3.0, 1.0, 9.0]}, {PYPI: "it failed"})
    frame.write(tmp_path / "new" / "bench.json", frame.document({"cores": 2}, "2030-01-02", [figures]))
    read = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert (read["machine"], read["date"]) == ({"cores": 2}, "2030-01-02")
    assert read["measures"][0] == {
        "id": "some", "name": "some figure", "unit": "ms", "better": "lower", "target": "at most 1 ms",
        "candidates": {STUNNEL: {"rounds": [3.0, 1.0, 9.0], "median": 3.0, "low": 1.0, "high": 9.0}},
    }  # fmt: skip


def test_every_measure_of_the_tables_order_is_there() -> None:
    assert measures.names()[: len(measures.ORDER)] == list(measures.ORDER)
