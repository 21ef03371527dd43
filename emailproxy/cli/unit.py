"""The systemd unit that `emailproxy serve --print-unit` prints: the packaged one, with this installation's paths."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from emailproxy.cli.manager import CLOSE_S
from emailproxy.config import ini
from emailproxy.config.model import DEFAULT_DRAIN_TIMEOUT_S
from emailproxy.errors import ConfigError

# ProtectHome= and PrivateTmp= of the unit: what lies there the service does not see (systemd.exec(5)).
HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - compared, not used


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit, for the configuration at this path."""

    config: Path
    drain_timeout_s: float = DEFAULT_DRAIN_TIMEOUT_S
    fault: ConfigError | None = None
    """Why the configuration says nothing of its own."""

    @classmethod
    def of(cls, config_path: Path | None) -> Unit:
        """For the configuration at this path, or at the system's place."""
        config = Path(os.path.abspath(config_path or ini.SYSTEM_FILE))
        try:
            return cls(config, ini.load(config, allow_placeholders=True).settings.drain_timeout)
        except ConfigError as error:
            return cls(config, fault=error)

    @property
    def stop_s(self) -> float:
        """How long a stop may take."""
        return self.drain_timeout_s + CLOSE_S

    @property
    def is_early(self) -> bool:
        """Whether the configuration is yet to be written."""
        return not os.path.lexists(self.config)

    @property
    def assumed(self) -> str:
        """What it says for want of a configuration."""
        return (
            f"the unit is for the default, drain_timeout = {self.drain_timeout_s:.0f} s "
            f"(TimeoutStopSec={self.stop_s:.0f}): print it again if {self.config} is to say otherwise"
        )

    def __str__(self) -> str:
        template = files("emailproxy").joinpath("data/emailproxy.service").read_text("utf-8")
        words = {
            "@COMMAND@": " ".join(map(quoted, installed())),
            "@CONFIG_WORD@": quoted(str(self.config)),
            "@CONFIG@": str(self.config).replace("%", "%%"),
            "@STOP_S@": f"{self.stop_s:.0f}",
        }
        for name, text in words.items():
            template = template.replace(name, text)
        return template


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
