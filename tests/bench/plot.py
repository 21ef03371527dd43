"""``python -m tests.bench.plot FILE SVG PNG``: a run's figures as one picture.

The same figures make the same octets: no date, no random identifiers.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from PIL import Image

from tests.bench.candidate import DIRECT, DOVECOT, EMAILPROXY, PREWARMED, PYPI, STUNNEL
from tests.bench.results import Figure, Measure, Run, in_order, read, written

DPI, PALETTE = 100, 64  # 1,000 pixels are as wide as a README is on most screens; so few colours halve the file
WIDTH_IN, COLUMNS = 10.0, 3
EDGE_IN, HEAD_IN, TITLE_IN, GAP_IN, BAR_IN = 0.12, 0.7, 0.55, 0.2, 0.19
NAMES_IN, VALUES_IN = 1.2, 0.55  # beside the bars, left and right
PANEL_IN = (WIDTH_IN - EDGE_IN) / COLUMNS
BARS_IN = PANEL_IN - NAMES_IN - VALUES_IN
TITLE_CHARS = 42
LONGEST = 3.5
"""A bar is broken beyond so many times emailproxy's, or the others could not be told from each other."""
INK, FAINT, TARGET = "#24292f", "#57606a", "#cf222e"
COLOURS = {
    EMAILPROXY: "#0969da", PREWARMED: "#54aeff", STUNNEL: "#6e7781", DOVECOT: "#8c959f", PYPI: "#d4a72c",
    DIRECT: "#d0d7de",
}  # fmt: skip
"""Those in C are grey."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "emailproxy",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 7.5,
    "text.color": INK,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plot", description=__doc__)
    for name in ("file", "svg", "png"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    draw(read(options.file), options.svg, options.png)
    return 0


def draw(run: Run, svg: Path, png: Path) -> None:
    """Writes both files."""
    with matplotlib.rc_context(STYLE):
        picture, drawn = _picture(run), io.BytesIO()
        picture.savefig(svg, metadata={"Date": None, "Creator": None})
        picture.savefig(drawn, format="png", dpi=DPI)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(PALETTE).save(png, optimize=True)


def _picture(run: Run) -> Picture:
    """A panel for each measure that compares somebody with somebody."""
    measures = [measure for measure in run.measures if len(measure.figures) > 1]
    rows = [measures[start : start + COLUMNS] for start in range(0, len(measures), COLUMNS)]
    heights_in = [TITLE_IN + GAP_IN + BAR_IN * max(len(measure.figures) for measure in row) for row in rows]
    picture = Picture(figsize=(WIDTH_IN, HEAD_IN + sum(heights_in)), facecolor="white")
    _heading(picture, run)
    top_in = HEAD_IN
    for row, height_in in zip(rows, heights_in, strict=True):
        for column, measure in enumerate(row):
            _panel(picture, measure, EDGE_IN + column * PANEL_IN, top_in)
        top_in += height_in
    return picture


def _heading(picture: Picture, run: Run) -> None:
    machine = run.machine
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['kernel']}, Python {machine['python']}"
    how = "Bars: medians. Thin lines: lowest to highest round. Red: emailproxy's target."
    _text(picture, EDGE_IN, 0.2, "emailproxy, measured beside others", fontsize=12, weight="bold")
    _text(picture, EDGE_IN, 0.45, f"{where}; {run.date[:10]}. {how}")


def _text(picture: Picture, left_in: float, top_in: float, text: str, **style: Any) -> None:
    picture.text(left_in / WIDTH_IN, 1 - top_in / picture.get_figheight(), text, va="center", **style)


def _panel(picture: Picture, measure: Measure, left_in: float, top_in: float) -> None:
    figures = [(name, measure.figures[name]) for name in in_order(measure.figures)]
    title = fill(measure.name, TITLE_CHARS)
    sense = "more is better" if measure.better == "higher" else "less is better"
    _text(picture, left_in, top_in + TITLE_IN - 0.31 - 0.07 * title.count("\n"), title, fontsize=8.5, weight="bold")
    _text(picture, left_in, top_in + TITLE_IN - 0.1, f"{measure.unit}; {sense}", fontsize=7, color=FAINT)
    height_in, all_in = BAR_IN * len(figures), picture.get_figheight()
    bottom_in = all_in - top_in - TITLE_IN - height_in
    axes = picture.add_axes(
        ((left_in + NAMES_IN) / WIDTH_IN, bottom_in / all_in, BARS_IN / WIDTH_IN, height_in / all_in)
    )
    end = _end(measure)
    axes.set_axis_off()
    axes.set_xlim(0, end)
    axes.set_ylim(len(figures) - 0.5, -0.5)
    for place, (name, figure) in enumerate(figures):
        _bar(axes, place, name, figure, end)
    if (bound := measure.bound) is not None and bound <= end:
        axes.axvline(bound, color=TARGET, linewidth=1.2)


def _bar(axes: Axes, place: int, name: str, figure: Figure, end: float) -> None:
    weight = "bold" if name == EMAILPROXY else "normal"
    inches = end / BARS_IN
    axes.text(-0.06 * inches, place, name, ha="right", va="center", weight=weight)
    axes.text(end + 0.06 * inches, place, written(figure.median), va="center", weight=weight)
    axes.barh(place, min(figure.median, end), height=0.74, color=COLOURS.get(name, "#afb8c1"))
    if figure.median > end:
        axes.text(0.9 * end, place, "//", color="white", weight="bold", ha="center", va="center")
    elif figure.high > figure.low:
        axes.plot([figure.low, min(figure.high, end)], [place, place], color=INK, linewidth=0.8)


def _end(measure: Measure) -> float:
    """Where the longest bar ends: that of the longest there is, or where it is broken."""
    ours, bound = measure.figures.get(EMAILPROXY), measure.bound or 0.0
    highest = max(bound, *(figure.high for figure in measure.figures.values()))
    if ours is not None and ours.median:
        highest = min(highest, LONGEST * ours.median)
    return highest or 1.0


if __name__ == "__main__":
    sys.exit(main())
