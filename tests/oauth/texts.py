"""Errors as providers and mail servers word them, whole, from the files of `errors/`.

An entry there is a headline, ``## NAME -> PIECE OF THE ACTION``, and below it the text; ``~>`` in place of ``->`` says
that the error passes by itself. Identifiers in the texts are made up, in the form that each service gives them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HEADLINE = re.compile(r"^## (.+?) (->|~>) (.+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Known:
    text: str
    piece: str
    """Of the action that is advised."""
    passes: bool


def entries(file: Path) -> dict[str, Known]:
    _, *parts = HEADLINE.split(file.read_text("utf-8"))
    return {
        f"{file.stem} {name}": Known("\r\n".join(text.strip().splitlines()), piece, arrow == "~>")
        for name, arrow, piece, text in zip(*(parts[at::4] for at in range(4)), strict=True)
    }


ALL = {
    name: known
    for file in sorted(Path(__file__).with_name("errors").glob("*.txt"))
    for name, known in entries(file).items()
}
