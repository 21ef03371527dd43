"""Private files: whole or not at all, and nobody else's to read.

A file is 0600 and a folder 0700 from the first moment. What is found otherwise is refused, and left as it is.
Windows has no such modes: there the folder's access list, inherited from the user's profile, does the guarding.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from emailproxy.errors import StateDamaged, StateError, StateExposed

POSIX = os.name == "posix"
FILE_MODE = 0o600
FOLDER_MODE = 0o700
OTHERS = 0o077  # the bits of a mode that let group and others in
MAX_FILE = 1024 * 1024  # octets; a state file has a few KiB
TEMPORARY = ".tmp"  # with a dot in front: no account's file name begins with one
STALE_S = 600  # a temporary lives for milliseconds; one of ten minutes belongs to a process that was killed
# Neither follow a link, nor wait for a writer where somebody put a FIFO, nor pass the file on to children.
OPEN_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC if POSIX else getattr(os, "O_BINARY", 0)
)

MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount its file system writable",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EIO: "check the disk",
}


def failed(doing: str, path: Path, error: OSError) -> NoReturn:
    """Raises the `StateError` that says what could not be done, why, and the mend."""
    reason = error.strerror or type(error).__name__
    mend = MENDS.get(error.errno or 0, "give it to the user that runs emailproxy, or name another state_dir")
    raise StateError(f"cannot {doing} {path}: {reason}; {mend}") from error


def as_root() -> bool:
    return POSIX and os.geteuid() == 0


def _check_owner(path: Path, info: os.stat_result) -> None:
    if POSIX and not as_root() and info.st_uid != os.geteuid():
        raise StateExposed(
            f"{path} belongs to another user (uid {info.st_uid}, this is uid {os.geteuid()}); "
            f"give it back with 'chown {os.geteuid()} {path}', or run emailproxy as that user"
        )


def _check_mode(path: Path, info: os.stat_result, right: int) -> None:
    mode = stat.S_IMODE(info.st_mode)
    if POSIX and mode & OTHERS:
        raise StateExposed(f"{path} is open to other users (mode {mode:04o}); run 'chmod {right:o} {path}'")


# ---- folders


def check_folder(folder: Path) -> bool:
    """Whether the folder exists.

    Raises:
        StateExposed: others may get in, or it is not ours.
    """
    try:
        info = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        failed("look into", folder, error)
    if not stat.S_ISDIR(info.st_mode):
        raise StateExposed(f"{folder} is not a folder; move it away")
    _check_owner(folder, info)
    _check_mode(folder, info, FOLDER_MODE)
    return True


def make_folder(folder: Path) -> None:
    """Makes the folder, and those above it that are missing, 0700 and owned as the folder they are made in.

    Raises:
        StateExposed: it is there, and others may get in.
    """
    if check_folder(folder):
        return
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    try:
        for path in reversed(missing):
            with suppress(FileExistsError):  # another process was faster
                path.mkdir(FOLDER_MODE)
                _give(path, path.parent.stat())
                with suppress(PermissionError):  # a folder that may be written to, but not read
                    _sync_folder(path.parent)
    except OSError as error:
        failed("make the folder", folder, error)
    check_folder(folder)


def _give(folder: Path, owner: os.stat_result) -> None:
    if not as_root():
        return
    # By descriptor: whoever owns the folder above could put a link in this one's place.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Makes the names in it durable."""
    if not POSIX:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path, now_s: float) -> None:
    """Removes the temporaries that killed processes left behind."""
    try:
        with os.scandir(folder) as entries:
            left = [entry.path for entry in entries if _is_stale(entry, now_s)]
    except OSError as error:
        failed("list", folder, error)
    for path in left:
        with suppress(OSError):  # gone already, or the file system is read-only: no harm either way
            os.unlink(path)


def _is_stale(entry: os.DirEntry[str], now_s: float) -> bool:
    if not (entry.name.startswith(".") and entry.name.endswith(TEMPORARY)):
        return False
    try:
        return now_s - entry.stat(follow_symlinks=False).st_mtime > STALE_S
    except FileNotFoundError:
        return False


def stems(folder: Path, suffix: str) -> list[str]:
    """The names of the files with this suffix, without it, sorted."""
    try:
        return sorted(name.removesuffix(suffix) for name in os.listdir(folder) if _is_ours(name, suffix))
    except OSError as error:
        failed("list", folder, error)


def _is_ours(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


# ---- files


class Stamp(NamedTuple):
    """What tells one state of a file from the next: each is written to a new inode."""

    inode: int
    changed_ns: int
    octets: int


class File(NamedTuple):
    data: bytes
    stamp: Stamp


def stamp_of(info: os.stat_result) -> Stamp:
    return Stamp(info.st_ino, info.st_mtime_ns, info.st_size)


def stamp(path: str | Path) -> Stamp | None:
    """The stamp of the file that is there now, or None: one system call of some 2 µs, fit for an event loop."""
    try:
        return stamp_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def read(path: Path) -> File | None:
    """The file, or None where there is none.

    Raises:
        StateExposed: others may read it, it is not ours, or not a regular file.
        StateDamaged: it is too large to be a state file; the caller knows the mend.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        _not_opened(path, error)
    try:
        info = os.fstat(descriptor)
        _check_file(path, info)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(min(info.st_size, MAX_FILE) + 1)  # to ask for a MiB costs as much as all the rest
    except OSError as error:
        failed("read", path, error)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE:
        raise StateDamaged(f"it has more than {MAX_FILE} octets")
    return File(data, stamp_of(info))


def _check_file(path: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise StateExposed(f"{path} is not a regular file; move it away")
    _check_owner(path, info)
    _check_mode(path, info, FILE_MODE)


def _not_opened(path: Path, error: OSError) -> NoReturn:
    """Says why: a link, or another user's file."""
    try:
        _check_file(path, path.lstat())
    except OSError as second:
        failed("read", path, second)
    failed("read", path, error)


def write(path: Path, data: bytes, mode: int = FILE_MODE) -> Stamp:
    """Puts the file in place, whole and durable; its owner stays, or is the folder's for a new one.

    Args:
        mode: another one for what is no secret. It is given to the open file: whoever owns the folder could put a link
            in the place of its name.

    Raises:
        StateError: it could not be written, and what was there before is unchanged; or, the folder's fsync
            failing last, the new file is there but may not outlast a power cut.
    """
    if len(data) > MAX_FILE:
        raise StateError(f"cannot write {path}: {len(data)} octets, where at most {MAX_FILE} are read again")
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")
    try:
        written = _write_new(temporary, data, _owner_of(path), mode)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            failed("write", path, error)
        raise
    return written


def create_empty(path: Path) -> None:
    """Makes the file where there is none, with its owner from the first moment, as `write` does."""
    if path.exists():
        return
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")
    try:
        _write_new(temporary, b"", _owner_of(path))
        with suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        failed("write", path, error)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _owner_of(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except FileNotFoundError:
        return path.parent.stat()


def _write_new(path: Path, data: bytes, owner: os.stat_result, mode: int = FILE_MODE) -> Stamp:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        if as_root():  # a service that runs as another user must be able to read what root's shell wrote
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        if POSIX and mode != FILE_MODE:
            os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
        return stamp_of(os.fstat(descriptor))


def remove(path: Path) -> bool:
    """Removes the file for good. Of any number of callers, in any number of processes, one is told True."""
    try:
        path.unlink()
        _sync_folder(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        failed("remove", path, error)
    return True
