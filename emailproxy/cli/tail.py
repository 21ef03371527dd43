"""Reads a log that may rotate meanwhile: its last lines, all of them, or the new ones as they come."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from emailproxy.errors import EmailProxyError

FOLLOW_S = 0.25  # how soon a new line is shown


def is_there(path: Path) -> bool:
    """Whether there is a log, be it one that has just been rotated away."""
    with ExitStack() as stack:
        return bool(_opened(path, stack))


def lines(path: Path) -> Iterator[str]:
    """Every line, oldest first."""
    with ExitStack() as stack:
        for stream in _opened(path, stack):
            yield from map(_text, stream)


def last(path: Path, count: int) -> list[str]:
    """The last `count` lines; older files are read only where the newer ones have not got as many."""
    with ExitStack() as stack:
        return _last(_opened(path, stack), count)


def follow(path: Path, count: int) -> Iterator[str]:
    """The last `count` lines, then new ones as they come, from the file that the name means at the time."""
    with ExitStack() as stack:
        streams = _opened(path, stack)
        current = streams.pop() if streams else None
        newest, rest = _whole_lines(current, b"")
        newest = newest[-count:] if count else []
        yield from _last(streams, count - len(newest))
        yield from newest
        while True:
            news, rest = _whole_lines(current, rest)
            yield from news
            for successor in _successors(path, current, stack):
                news, rest = _whole_lines(current, rest)  # written between our look and the rotation
                yield from news
                if current is not None:
                    current.close()
                current, rest = successor, b""
                news, rest = _whole_lines(current, rest)
                yield from news
            time.sleep(FOLLOW_S)


def _last(streams: list[BinaryIO], count: int) -> list[str]:
    found: list[str] = []
    for stream in reversed(streams):
        if len(found) >= count:
            break
        found[:0] = map(_text, deque(stream, maxlen=count - len(found)))
    return found


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def _whole_lines(stream: BinaryIO | None, rest: bytes) -> tuple[list[str], bytes]:
    """The whole lines that are there now, and the beginning of the next."""
    *whole, rest = (rest + (stream.read() if stream is not None else b"")).split(b"\n")
    return [_text(line) for line in whole], rest


def _opened(path: Path, stack: ExitStack) -> list[BinaryIO]:
    """The log and the rotated ones, oldest first, none twice and none left out, though it may rotate meanwhile."""
    while True:
        found: dict[tuple[int, int], BinaryIO] = {}
        first = _identity_of(path)
        number = 0
        while number <= _oldest(path):
            stream = _open(path.with_name(f"{path.name}.{number}") if number else path)
            if stream is not None:
                stack.enter_context(stream)
                # Where rotating has begun, a file that has just moved up is met again.
                found.setdefault(_identity(os.fstat(stream.fileno())), stream)
            number += 1
        if _identity_of(path) == first:
            return list(reversed(found.values()))
        for stream in found.values():
            stream.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None


def _oldest(path: Path) -> int:
    """The highest number of a rotated log, 0 where there is none."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9]\d{0,3})")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _unreadable(path.parent, error) from None
    return max((int(match[1]) for match in map(pattern.fullmatch, names) if match), default=0)


def _unreadable(path: Path, error: OSError) -> EmailProxyError:
    mend = "run this as root, or as the user that runs emailproxy serve"
    return EmailProxyError(f"the log {path} cannot be read: {error.strerror}; {mend}")


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(path.stat())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from None


def _successors(path: Path, current: BinaryIO | None, stack: ExitStack) -> list[BinaryIO]:
    """The files that were begun after this one, oldest first; the same one anew where somebody cut it."""
    if current is None:
        return _opened(path, stack)
    info = os.fstat(current.fileno())
    ours, there = _identity(info), _identity_of(path)
    if there == ours and info.st_size < current.tell():
        current.seek(0)
    if there in (ours, None):  # None: in the middle of a rotation
        return []
    streams = _opened(path, stack)
    identities = [_identity(os.fstat(stream.fileno())) for stream in streams]
    begun = identities.index(ours) + 1 if ours in identities else len(streams) - 1
    for stream in streams[:begun]:
        stream.close()
    return streams[begun:]
