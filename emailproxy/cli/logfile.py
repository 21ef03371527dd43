"""The server's log: a file of mode 0600 that rotates, written beside the event loop."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from emailproxy.config.model import MIB
from emailproxy.errors import ServiceError, StateError
from emailproxy.store.files import as_root, make_folder

LINE = "%(asctime)s %(levelname)s %(message)s"
SHOWN = "emailproxy: %(message)s"
GATHER_S = 0.05  # how long a line may wait for others
PRIVATE = 0o600
READABLE_BY_OTHERS = 0o004
# C0, DEL, C1, and what Unicode ends lines with: none may end a line, or speak to a terminal
UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160), 0x2028, 0x2029), "?")
# Neither follow a link that the service's user put there for root, nor wait where it is a FIFO.
CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
SAID_OTHERWISE = (
    "Please visit",
    "Visit ",
    "the sign-in of",
    "%s login ",  # a check's
)  # how records begin that the command itself puts in its own words


class OneLine(logging.Formatter):
    """One record, one line: no message can forge another. Tracebacks follow indented."""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler's, which is not indented
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(UNPRINTABLE)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {line.translate(UNPRINTABLE)}" for line in super().formatException(ei).split("\n"))


class Briefly(logging.Filter):
    """Each kind of record once, but for those that the command itself puts in its own words."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg)
        if kind.startswith(SAID_OTHERWISE) or kind in self._shown:
            return False
        self._shown.add(kind)
        return True


class PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """Rotates by size. Its files are 0600 from the first octet: consent URLs are in them."""

    flags = 0
    complained = False

    def _open(self) -> TextIOWrapper:
        return _opened(self.baseFilename, self.flags)

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """As soon as the limit is passed: nothing is written twice to find out how long it would be."""
        self.stream = self.stream or self._open()
        now = os.fstat(self.stream.fileno())
        return 0 < self.maxBytes <= now.st_size and stat.S_ISREG(now.st_mode)

    def doRollover(self) -> None:
        """Goes on in the same file where it cannot be moved away."""
        try:
            super().doRollover()
        except OSError:
            self._complain()
            self.stream = self._open()

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk: what is lost here is on standard error, and no traceback a record comes with it."""
        self._complain()

    def close(self) -> None:
        """Ends, though a full disk may not take the last record."""
        try:
            super().close()
        except OSError:
            self._complain()

    def _complain(self) -> None:
        """Says once why the file cannot be written."""
        if not self.complained:
            self.complained = True
            with suppress(OSError, ValueError):
                sys.stderr.write(f"emailproxy: the log file {self.baseFilename} is incomplete: {sys.exc_info()[1]}\n")


class AppendedFile(PrivateRotatingFile):
    """The server's log, for another command: that one rotates nothing."""

    flags = CAREFUL


def _make_folder(folder: Path) -> None:
    """Makes the log's folder where there is none; root's belongs to who owns the folder above, as the log does.

    Raises:
        OSError: it cannot be made.
    """
    if folder.exists():
        return
    try:
        make_folder(folder)
    except StateError as error:
        raise (error.__cause__ if isinstance(error.__cause__, OSError) else OSError(None, str(error))) from None


def _opened(path: str, flags: int) -> TextIOWrapper:
    """The log, to append to; a new one that root makes belongs to who owns its folder, so that the service can go on.

    Raises:
        OSError: it cannot be opened.
    """
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT | flags
    try:
        descriptor = os.open(path, appending | os.O_EXCL, PRIVATE)
    except FileExistsError:
        descriptor = os.open(path, appending, PRIVATE)
    else:
        if as_root():
            owner = os.stat(os.path.dirname(path) or os.curdir)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


Records = queue.SimpleQueue[logging.LogRecord | str | None]
"""Records, or finished lines; None ends."""


class ToQueue(logging.handlers.QueueHandler):
    """Hands records on as they are: what they become is made beside the event loop."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class Batches(logging.handlers.QueueListener):
    """After what there was to write it lets more come for a moment: under load its thread wakes a few times a second,
    not with every login. The first line after a silence is written at once."""

    def __init__(self, records: Records, *handlers: logging.Handler) -> None:
        super().__init__(records, *handlers)
        self._records = records
        self._lines = OneLine(LINE)
        self._ending = threading.Event()

    def dequeue(self, block: bool) -> Any:
        try:
            return self._records.get(block=False)
        except queue.Empty:
            self._ending.wait(GATHER_S)
            return self._records.get(block)

    def prepare(self, record: logging.LogRecord | str) -> logging.LogRecord:
        return logging.makeLogRecord({"msg": record if isinstance(record, str) else self._lines.format(record)})

    def stop(self) -> None:
        """Writes out what waits, and ends the thread."""
        self._ending.set()
        super().stop()


class Log:
    """A running log. Records pass a queue, so that no disk ever holds the event loop.

    What libraries warn of is in it, too.
    """

    def __init__(self, handlers: list[logging.Handler], level: int) -> None:
        self._records: Records = queue.SimpleQueue()
        self._handler = ToQueue(self._records)
        self._listener = Batches(self._records, *handlers)
        self._handlers = handlers
        logging.getLogger("emailproxy").setLevel(level)
        logging.getLogger().addHandler(self._handler)
        self._listener.start()

    def take(self, text: str) -> None:
        """A record that another process of ours has made a text of."""
        self._records.put(text)

    def close(self) -> None:
        """Writes out what waits."""
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()
        for handler in self._handlers:
            handler.close()


def start(path: Path, *, size_mib: int, files: int, debug: bool = False) -> Log:
    """Logs to `path` and to standard error.

    Raises:
        ServiceError: the file cannot be written.
    """
    try:
        _make_folder(path.parent)
        to_file = PrivateRotatingFile(path, maxBytes=size_mib * MIB, backupCount=files)
    except OSError as error:
        raise ServiceError(f"the log file {path} cannot be written: {error.strerror}; set log_file") from None
    # What no line of ours shows needs no looking up (the standard library's own advice on speed).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    log = Log([to_file, logging.StreamHandler(sys.stderr)], logging.DEBUG if debug else logging.INFO)
    mode = path.stat().st_mode
    if os.name == "posix" and stat.S_ISREG(mode) and mode & READABLE_BY_OTHERS:
        logging.getLogger("emailproxy").warning(
            "every user of this machine can read the sign-in URLs in %s; run 'chmod 600 %s'", path, path
        )
    return log


@contextmanager
def appended(path: Path) -> Iterator[None]:
    """Adds what another command logs to the server's log, and shows its warnings; it rotates nothing."""
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)
    shown.setFormatter(OneLine(SHOWN))
    shown.addFilter(Briefly())
    handlers: list[logging.Handler] = []
    # Where it is another user's log, the command's own output has to do.
    with suppress(OSError):
        _make_folder(path.parent)
        handlers.append(AppendedFile(path))
    log = Log(handlers, logging.INFO)
    logging.getLogger().addHandler(shown)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(shown)
        log.close()
