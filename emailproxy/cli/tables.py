"""Tables for people: on a terminal as wide as that, elsewhere as wide as they need to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 200  # columns where it goes to another program: no line is broken


def console() -> Console:
    from rich.console import Console

    shown = Console(soft_wrap=True)
    return shown if shown.is_terminal else Console(soft_wrap=True, width=WIDTH)


def show(shown: Console, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table whose cells are text and nothing else: a name or an error may look like markup."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    shown.print(table, soft_wrap=False)


def say(shown: Console, text: str) -> None:
    from rich.text import Text

    shown.print(Text(text))


def local(moment: str | None) -> str:
    """A moment of RFC 3339 as the clock on the wall shows it; empty for none."""
    return "" if moment is None else f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
