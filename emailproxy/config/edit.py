"""Changes to a configuration file, comments and order kept, and its safe writing."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from configupdater import ConfigUpdater, Option

from emailproxy.config.references import is_reference
from emailproxy.config.repairs import SECRET_KEYS, placeholder

OWNER_ONLY = 0o600
PRIVATE_FOLDER = 0o700
READABLE_BY_GROUP = 0o040

MASK = "********"
INDENT = "    "  # of what goes on below its key


def set_keys(text: str, section: str, values: Mapping[str, str], *, replace: bool = False) -> tuple[str, list[str]]:
    """The text with an existing section's keys set; with `replace`, its other keys are removed.

    Returns:
        The new text, and the names of the keys that were removed.
    """
    updater = _parsed(text)
    block = updater[section]
    for key, value in values.items():
        options = list(block.option_blocks())
        if key not in block and options:
            options[-1].add_after.option(key, "")
        elif key not in block:
            block.set(key, "")
        _assign(block[key], value)
    removed = [key for key in block.options() if key not in values] if replace else []
    for key in removed:
        del block[key]
    return str(updater), removed


def append_section(text: str, section: str, values: Mapping[str, str], comment: str = "") -> str:
    """The text with a new section at its end, a comment of whole lines above it."""
    head = text.rstrip("\n")
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f"[{section}]", *(f"{key} = {_indented(value)}".rstrip() for key, value in values.items())]
    return (f"{head}\n\n" if head else "") + "\n".join(lines) + "\n"


def masked(text: str) -> str:
    """The text with every secret hidden, for showing; placeholders stay as they are."""
    updater = _parsed(text)
    for section in updater.iter_sections():
        for option in section.option_blocks():
            shown = not option.value or is_reference(option.value) or placeholder(option.key, option.value)
            if option.key in SECRET_KEYS and not shown:
                option.value = MASK
    return str(updater)


def write(path: Path, text: str) -> None:
    """Puts the text in the file's place, whole or not at all, for its owner's eyes alone.

    An existing file's owner and group are kept, and its group may go on reading, so that a file that root
    changes still serves its service. A symbolic link is followed.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner(target, file.fileno())
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _keep_owner(target: Path, descriptor: int) -> None:
    if not hasattr(os, "fchown") or not target.exists():
        return
    old = target.stat()
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except PermissionError:  # a user may change another's file where the folder allows it; it becomes theirs
            return
    os.fchmod(descriptor, OWNER_ONLY | old.st_mode & READABLE_BY_GROUP)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _assign(option: Option, value: str) -> None:
    if "\n" in value:
        option.set_values(value.split("\n"), indent=INDENT, prepend_newline=False)
    else:
        option.value = value


def _indented(value: str) -> str:
    """A value of several lines, as a file has it: what goes on below its key is indented."""
    return value.replace("\n", f"\n{INDENT}")


def _parsed(text: str) -> ConfigUpdater:
    updater = ConfigUpdater()
    updater.read_string(text)
    return updater
