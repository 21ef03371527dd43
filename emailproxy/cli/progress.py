"""A line that shows, on a terminal, how long a command has waited, and how long it still will."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def waiting_line(what: str, limit_s: float) -> Iterator[None]:
    """Shows the line on standard error until the block ends; elsewhere than on a terminal, says once that it waits."""
    if not sys.stderr.isatty():
        click.echo("Waiting ...", err=True)
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    started_s = time.monotonic()

    def line() -> Text:
        elapsed_s = time.monotonic() - started_s
        return Text(f"Waiting for {what}: {clock_face(elapsed_s)} gone, {clock_face(limit_s - elapsed_s)} left")

    with Live(get_renderable=line, console=Console(stderr=True), refresh_per_second=1, transient=True):
        yield


def clock_face(seconds: float) -> str:
    """``1:02:03``, or ``2:03`` within the first hour."""
    minutes, seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
