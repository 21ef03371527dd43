"""The systemd unit that `emailproxy serve --print-unit` prints: the packaged one, with this installation's paths."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from emailproxy.cli.manager import CLOSE_S
from emailproxy.config import ini
from emailproxy.config.model import DEFAULT_DRAIN_TIMEOUT_S
from emailproxy.errors import ConfigError

# ProtectHome= and PrivateTmp= of the unit: what lies there the service does not see (systemd.exec(5)).
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - compared, not used


def unit(config_path: Path | None) -> str:
    """The unit, for the configuration at this path, or at the system's place."""
    template = files("emailproxy").joinpath("data/emailproxy.service").read_text("utf-8")
    command = " ".join(map(quoted, installed()))
    config = os.path.abspath(config_path or ini.SYSTEM_FILE)
    words = {
        "@COMMAND@": command,
        "@CONFIG_WORD@": quoted(config),
        "@CONFIG@": config.replace("%", "%%"),
        "@STOP_S@": f"{drain_timeout_s(Path(config)) + CLOSE_S:.0f}",
    }
    for name, text in words.items():
        template = template.replace(name, text)
    return template


def drain_timeout_s(config: Path) -> float:
    """What the configuration says, if there is one by now that can be read."""
    try:
        return ini.load(config, allow_placeholders=True).settings.drain_timeout
    except ConfigError:
        return DEFAULT_DRAIN_TIMEOUT_S


def hidden() -> Path | None:
    """What of this installation the service could not see, if anything."""
    places = {Path(place).resolve() for place in (installed()[0], __file__, sys.prefix, sys.base_prefix)}
    return next((place for place in sorted(places) if any(map(place.is_relative_to, HIDDEN))), None)


def installed() -> list[str]:
    """The absolute command line of this emailproxy."""
    called = shutil.which(sys.argv[0])
    beside = Path(sys.executable).with_name("emailproxy")
    for script in (called, beside):
        if script and os.access(script, os.X_OK) and Path(script).stem == "emailproxy":
            return [os.path.abspath(script)]
    return [os.path.abspath(sys.executable), "-m", "emailproxy"]


def quoted(word: str) -> str:
    """A word of a command line in a unit file (systemd.service(5), systemd.unit(5) on specifiers)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in word for character in " \t\"'\\;") else escaped
