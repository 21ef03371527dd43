"""What ``scripts/bench`` and ``scripts/endure`` print, and their end where nobody can take it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


@contextmanager
def told_to(program: str) -> Iterator[None]:
    """Whatever is printed meanwhile; the process ends, with a line, where that cannot be written."""
    stream = sys.stdout
    sys.stdout = cast("TextIO", _Output(stream, program))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stream


class _Output:
    """A text stream, but for its errors."""

    def __init__(self, stream: TextIO, program: str) -> None:
        self._stream = stream
        self._program = program

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        return self._done(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._done(self._stream.flush)

    def _done(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except OSError as error:
            # The interpreter would try again at its end, complain, and exit with a code of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            sys.exit(f"{self._program}: the output cannot be written: {error.strerror}")
