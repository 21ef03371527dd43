"""Where a server's control socket lies: its name says whose state folder, its folder lets nobody else in."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from emailproxy.config.model import Settings

DIGITS = 16  # of the digest: 64 bits tell a machine's state folders apart
SUFFIX = ".sock"
FOLDER = "emailproxy"
SYSTEM_FOLDER = Path("/run") / FOLDER
"""What `RuntimeDirectory=emailproxy` of a systemd unit makes (systemd.exec(5))."""
USERS_FOLDERS = Path("/run/user")
"""Where each user's runtime folder is, by user ID (pam_systemd(8))."""
MAX_PATH = 107  # octets, and a NUL: `sun_path` of unix(7)


def socket_name(state_dir: Path) -> str:
    """One for each state folder, by whatever way it is reached."""
    real = os.path.realpath(state_dir)
    return hashlib.sha256(os.fsencode(real)).hexdigest()[:DIGITS] + SUFFIX


def server_place(settings: Settings) -> Path:
    """Where a server with these settings has its socket."""
    folder = settings.runtime_dir or _service_folder() or _user_folder() or settings.state_dir
    return folder.absolute() / socket_name(settings.state_dir)


def client_places(state_dir: Path, runtime_dir: Path | None = None) -> tuple[Path, ...]:
    """Where the socket of a server may be that has this state folder: its environment is not known here.

    Args:
        runtime_dir: the configuration's setting.
    """
    folders = [runtime_dir, _service_folder(), _user_folder(), state_dir, SYSTEM_FOLDER, _owner_folder(state_dir)]
    name = socket_name(state_dir)
    return tuple(dict.fromkeys(folder.absolute() / name for folder in folders if folder is not None))


def _service_folder() -> Path | None:
    """`$RUNTIME_DIRECTORY`, where systemd sets it."""
    service = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(service) if service else None


def _user_folder() -> Path | None:
    """This user's, where the session manager made one: no temporary folder stands in for it, as others get there."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(given) and os.path.isdir(given):
        return Path(given) / FOLDER
    return _folder_of(os.geteuid()) if hasattr(os, "geteuid") else None


def _owner_folder(state_dir: Path) -> Path | None:
    """The state folder's owner's, for root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    try:
        return _folder_of(state_dir.stat().st_uid)
    except OSError:
        return None


def _folder_of(uid: int) -> Path | None:
    folder = USERS_FOLDERS / str(uid)
    return folder / FOLDER if folder.is_dir() else None
