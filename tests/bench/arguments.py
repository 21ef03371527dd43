"""What the command lines of ``scripts/bench`` and ``scripts/endure`` share. Needs the standard library alone."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

INTERRUPTED = 130
"""The exit code of shells for SIGINT: 128 + 2."""
PICTURES = (".svg", ".png")
SERVERS_OF_DEBIAN = ("/usr/sbin", "/sbin")
"""Where only root's PATH looks."""


def count(text: str) -> int:
    """A type of argparse: a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def minutes(text: str) -> float:
    """A type of argparse: a length of time, in minutes."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0")
    return found


def written_file(text: str) -> Path:
    """A type of argparse: a file that can be written, as is better known before a long run than after it."""
    path = Path(text)
    try:
        if path.exists():
            path.open("a").close()
        else:
            folder = next(parent for parent in path.absolute().parents if parent.exists())
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from None
    return path


def picture(text: str) -> str:
    """A type of argparse: the name of pictures that can be written, without their suffix."""
    for suffix in PICTURES:
        text = text.removesuffix(suffix)
    for suffix in PICTURES:
        written_file(f"{text}{suffix}")
    return text


def find_servers(program: str, first: Path | None = None) -> None:
    """Completes this process's PATH; ends it where there is no Dovecot."""
    places = (*([str(first)] if first else ()), os.environ.get("PATH", os.defpath), *SERVERS_OF_DEBIAN)
    os.environ["PATH"] = os.pathsep.join(places)
    if shutil.which("dovecot") is None:
        sys.exit(f"{program}: there is no Dovecot here; install dovecot-imapd, dovecot-pop3d and dovecot-submissiond")
