"""One row of what is known about errors: how it is recognised, what it means, what to do."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from emailproxy.errors import one_line
from emailproxy.wire.events import Advice

MAX_DETAIL = 80  # characters of somebody else's words inside a sentence of ours


@dataclass(frozen=True, slots=True)
class Row:
    """One error that is known.

    `meaning` and `action` may repeat named groups of `pattern`, as ``{scope}``; a group called ``milliseconds`` is
    told as ``{wait}``. Patterns take a time that grows with the text and no faster: no repetition inside another.
    """

    provider: str
    """Whose error it is, for readers of the table."""
    pattern: re.Pattern[str]
    meaning: str
    action: str
    temporary: bool = False

    def advice(self, text: str) -> Advice | None:
        """The advice, where the text is this error."""
        match = self.pattern.search(text)
        if match is None:
            return None
        details = {name: one_line(value, MAX_DETAIL) for name, value in match.groupdict().items()}
        if "milliseconds" in details:
            details["wait"] = duration(int(details["milliseconds"]) / 1000)
        return Advice(self.meaning.format_map(details), self.action.format_map(details), self.temporary)


def row(provider: str, pattern: str, meaning: str, action: str, *, temporary: bool = False) -> Row:
    return Row(provider, re.compile(pattern, re.IGNORECASE), meaning, action, temporary)


def duration(seconds: float) -> str:
    """Rounded up, as people say it: ``45 s``, ``5 min``."""
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"
