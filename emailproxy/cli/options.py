"""Options that several commands share, and where they lead."""

from __future__ import annotations

from pathlib import Path

import click

from emailproxy.config import ini
from emailproxy.errors import ConfigError

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    help="The configuration file. Default: ./emailproxy.ini or ./emailproxy.config, then the user's, then "
    "/etc/emailproxy/emailproxy.ini.",
)
state_option = click.option(
    "--state",
    "state_dir",
    type=click.Path(file_okay=False, readable=False, path_type=Path),
    help="The state folder, in place of the configuration's state_dir.",
)
log_file_option = click.option(
    "--log-file",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    help="The log file, in place of the configuration's log_file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def state_place(config_path: Path | None, given: Path | None) -> Path:
    """The state folder: as given, else as the configuration says, wrong as it may be elsewhere."""
    return given or _places(config_path)["state_dir"]


def log_place(config_path: Path | None, given: Path | None) -> Path:
    """The log file, likewise."""
    return given or _places(config_path)["log_file"]


def _places(config_path: Path | None) -> dict[str, Path]:
    try:
        path = ini.find(config_path)
    except ConfigError:  # there is none: the places are the default ones
        return {"state_dir": ini.default_state_dir(), "log_file": ini.default_log_file()}
    return ini.places(path)
