"""``python -m tests.bench.table FILE``: a run's medians as the table in Markdown that the README has."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.candidate import EMAILPROXY
from tests.bench.results import Measure, Run, read, written

NOTHING = "–"
REACHED = {True: "yes", False: "no", None: NOTHING}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.table", description=__doc__)
    parser.add_argument("file", type=Path)
    print("\n".join(lines(read(parser.parse_args().file))))
    return 0


def lines(run: Run) -> list[str]:
    """A measure a row, a candidate a column; what a candidate cannot do, or nobody asked of it, is a dash."""
    names = run.candidates
    heads = ["measure", *(f"**{name}**" if name == EMAILPROXY else name for name in names), "target", "reached"]
    return [_row(heads), _row(["---", *("--:" for _ in names), "---", "---"]), *(_of(m, names) for m in run.measures)]


def _of(measure: Measure, names: list[str]) -> str:
    return _row(
        [
            f"{measure.name} ({measure.unit})",
            *(_cell(measure, name) for name in names),
            measure.target or NOTHING,
            REACHED[measure.reached],
        ]
    )


def _cell(measure: Measure, name: str) -> str:
    figure = measure.figures.get(name)
    if figure is None:
        return NOTHING
    return f"**{written(figure.median)}**" if name == EMAILPROXY else written(figure.median)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
