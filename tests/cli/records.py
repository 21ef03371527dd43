"""Logs as the server writes them, for tests that read them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from emailproxy.cli import logfile

log = logging.getLogger("emailproxy.tests")


@contextlib.contextmanager
def logging_to(path: Path, *, octets: int = 0, files: int = 3) -> Iterator[None]:
    """The server's own log, rotating after so many octets."""
    path.parent.mkdir(exist_ok=True)
    running = logfile.Log([logfile.PrivateRotatingFile(path, maxBytes=octets, backupCount=files)], logging.INFO)
    try:
        yield
    finally:
        running.close()


def messages(text: str) -> list[str]:
    return [line.split(" ", 3)[3] for line in text.splitlines()]


def numbered(first: int, last: int) -> list[str]:
    return [f"record {number}" for number in range(first, last + 1)]


def write(first: int, last: int) -> None:
    for message in numbered(first, last):
        log.info(message)
