"""Configuration files: where they are, and INI text to a `Config`. A wrong file yields all its faults at once."""

from __future__ import annotations

import os
from pathlib import Path

from emailproxy.config.catchall import folder
from emailproxy.config.model import Config
from emailproxy.config.reader import FOREIGN_NAME, Reader
from emailproxy.config.scan import MAX_FILE_OCTETS, Report, Section, decode, in_order, scan
from emailproxy.config.section import SETTINGS_NAME, SectionReader
from emailproxy.errors import ConfigError, Fault

FILE_NAME = "emailproxy.ini"
DROP_IN = Path(FOREIGN_NAME)
"""What another proxy's configuration file is called; it is read as ours is, and never written."""
SYSTEM_FILE = Path("/etc/emailproxy") / FILE_NAME
READABLE_BY_OTHERS = 0o004


def load(
    path: Path,
    *,
    state_dir: Path | None = None,
    log_file: Path | None = None,
    cache_store: Path | None = None,
    allow_placeholders: bool = False,
) -> Config:
    """The configuration of a file. `state_dir` and `log_file` override what the file says.

    Args:
        cache_store: the file in which another proxy keeps its cached values, where it is not the same one.
        allow_placeholders: take a draft, which may still hold placeholders and lack servers or accounts.

    Raises:
        ConfigError: a file cannot be read, or is wrong; it holds every fault.
    """
    octets, mode = read(path)
    exposed = _is_exposed(mode)
    store = _stored(cache_store, path)
    return _config(octets, path, (state_dir, log_file), draft=allow_placeholders, exposed=exposed, store=store)


def loads(
    text: str,
    path: Path,
    *,
    state_dir: Path | None = None,
    log_file: Path | None = None,
    cache_store: Path | None = None,
    allow_placeholders: bool = False,
) -> Config:
    """The configuration of a text, as `load` does it; `path` is what messages name and paths are relative to."""
    octets = text.encode("utf-8", "surrogatepass")
    store = _stored(cache_store, path)
    return _config(octets, path, (state_dir, log_file), draft=allow_placeholders, store=store)


def places(path: Path) -> dict[str, Path]:
    """`state_dir` and `log_file`, however wrong a file is elsewhere: what is there to be seen must not hide behind it.

    Raises:
        ConfigError: the file cannot be read, or is wrong in these very keys.
    """
    report = Report(str(path))
    reader = SectionReader(folder(path), report)
    found = {"state_dir": default_state_dir(), "log_file": default_log_file()}
    for section in scan(decode(read(path)[0], report), report):
        if section.name == SETTINGS_NAME:
            found |= {key: value for key, value in reader.settings(section).items() if key in found}
    faults = [fault for fault in report.faults if fault.key in found]
    if faults:
        raise ConfigError(in_order(faults))
    return found


def placeholders(config: Config) -> tuple[Fault, ...]:
    """The values that still wait to be filled in, each with its name and line."""
    return config.placeholders


def find(explicit: Path | None = None, *, drop_in: bool = False) -> Path:
    """The configuration file to use: the one that is named, or the first there is.

    Args:
        drop_in: prefer another proxy's file in the working directory, as its command line does.

    Raises:
        ConfigError: none is named, and there is none.
    """
    if explicit is not None:
        return explicit
    for candidate in sorted(search_path(), key=lambda place: drop_in and place != DROP_IN):
        if candidate.is_absolute() or _safe_here(candidate):
            return candidate
    places = ", ".join(map(str, _places()))
    what = f"there is no configuration file; looked for {places}"
    raise ConfigError((Fault(FILE_NAME, None, None, None, what, "write one with emailproxy register"),))


def own_file() -> Path:
    """Where commands write that add to the configuration: the first file of ours there is, or the user's."""
    return next((place for place in search_path() if place != DROP_IN), user_file())


def user_file() -> Path:
    """Where this user's configuration file belongs."""
    from platformdirs import user_config_path

    return user_config_path("emailproxy", appauthor=False) / FILE_NAME


def default_state_dir() -> Path:
    """`$STATE_DIRECTORY` where systemd sets it (systemd.exec(5)), else the user's; the folder is ours alone."""
    service = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if service:
        return Path(service) / "state"
    from platformdirs import user_state_path

    return user_state_path("emailproxy", appauthor=False) / "state"


def default_log_file() -> Path:
    """In `$LOGS_DIRECTORY` where systemd sets it (systemd.exec(5)), else in the user's folder of logs."""
    service = os.environ.get("LOGS_DIRECTORY", "").partition(":")[0]
    if service:
        return Path(service) / "emailproxy.log"
    from platformdirs import user_log_path

    return user_log_path("emailproxy", appauthor=False) / "emailproxy.log"


def search_path() -> list[Path]:
    """The files there are, in the order in which they are preferred."""
    return [place for place in _places() if os.path.isfile(place)]


def _places() -> tuple[Path, ...]:
    return Path(FILE_NAME), DROP_IN, user_file(), SYSTEM_FILE


def _safe_here(path: Path) -> bool:
    """Root obeys a file in the working directory only if nobody else could have put it there."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return True
    return path.stat().st_uid == 0 and path.lstat().st_uid == 0 and path.absolute().parent.stat().st_uid == 0


def read(path: Path) -> tuple[bytes, int]:
    """The octets of a file, and its mode."""
    mend = "name the file with --config, or write one with emailproxy register"
    return _octets(path, mend, "run this as the user that may read it, or as root")


def _octets(path: Path, mend: str, denied: str) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_OCTETS + 1), os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it has no such name"
        if isinstance(error, PermissionError):
            mend = denied
        raise ConfigError((Fault(str(path), None, None, None, f"cannot be read: {reason}", mend),)) from None


def _is_exposed(mode: int) -> bool:
    return os.name == "posix" and bool(mode & READABLE_BY_OTHERS)


def _tell_of_exposure(report: Report, path: Path) -> None:
    report.notice(None, "every user of this machine can read the secrets in it", f"chmod 600 {path}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _stored(path: Path | None, config: Path) -> tuple[list[Section], Report] | None:
    """The sections of a file of cached values; whatever is wrong with it is a notice, for it is not needed.

    Raises:
        ConfigError: it is there and cannot be read, so that whoever signed in would have to do so again.
    """
    if path is None or _is_same(path, config):
        return None
    report = Report(str(path))
    if not os.path.lexists(path):
        report.notice(None, "is not there: another proxy has kept nothing in it", "check --cache-store")
        return [], report
    mend = "let this user read it, or leave --cache-store out"
    octets, mode = _octets(path, mend, mend)
    sections = scan(decode(octets, report), report)
    report.notices += report.faults
    report.faults.clear()
    if sections and _is_exposed(mode):
        _tell_of_exposure(report, path)
    return sections, report


def _config(
    octets: bytes,
    path: Path,
    places: tuple[Path | None, Path | None],
    *,
    draft: bool,
    exposed: bool = False,
    store: tuple[list[Section], Report] | None = None,
) -> Config:
    report = Report(str(path))
    reader = Reader(path, report, draft=draft)
    reader.read(scan(decode(octets, report), report), *(store or ()))
    state_dir, log_file = places
    reader.place("state_dir", state_dir, default_state_dir)
    reader.place("log_file", log_file, default_log_file)
    if exposed and reader.holds_secrets:
        _tell_of_exposure(report, path)
    if report.faults:
        raise ConfigError(in_order(report.faults))
    return reader.config()
