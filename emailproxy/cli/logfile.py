"""The server's log: a file of mode 0600 that rotates, written beside the event loop."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from emailproxy.config.model import MIB
from emailproxy.errors import ServiceError

LINE = "%(asctime)s %(levelname)s %(message)s"
PRIVATE = 0o600
UNPRINTABLE = dict.fromkeys((*range(32), 127, 133, 8232, 8233), "?")


class OneLine(logging.Formatter):
    """One record, one line: no message can forge another. Tracebacks follow indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(UNPRINTABLE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {line}" for line in super().formatException(ei).splitlines())


class PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """Rotates by size. Its files are 0600 from the first octet: consent URLs are in them."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


class Log:
    """A running log. Records pass a queue, so that no disk ever holds the event loop."""

    def __init__(self, handlers: list[logging.Handler], level: int) -> None:
        records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._logger = logging.getLogger("emailproxy")
        self._handler = logging.handlers.QueueHandler(records)
        self._listener = logging.handlers.QueueListener(records, *handlers)
        self._handlers = handlers
        self._logger.setLevel(level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._listener.start()

    def close(self) -> None:
        """Writes out what waits."""
        self._logger.removeHandler(self._handler)
        self._listener.stop()
        for handler in self._handlers:
            handler.close()


def start(path: Path, *, size_mib: int, files: int, debug: bool = False) -> Log:
    """Logs to `path` and to standard error.

    Raises:
        ServiceError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        to_file = PrivateRotatingFile(path, maxBytes=size_mib * MIB, backupCount=files)
    except OSError as error:
        raise ServiceError(f"the log file {path} cannot be written: {error.strerror}; set log_file") from None
    handlers: list[logging.Handler] = [to_file, logging.StreamHandler(sys.stderr)]
    for handler in handlers:
        handler.setFormatter(OneLine(LINE))
    return Log(handlers, logging.DEBUG if debug else logging.INFO)


@contextmanager
def appended(path: Path) -> Iterator[None]:
    """Adds what another command logs to the server's log; it rotates nothing."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError:  # another user's log: the command's own output has to do
        yield
        return
    handler.setFormatter(OneLine(LINE))
    log = Log([handler], logging.INFO)
    try:
        yield
    finally:
        log.close()
