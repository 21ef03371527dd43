"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file. Default: ./emailproxy.ini, then the user's, then /etc/emailproxy/emailproxy.ini.",
)
state_option = click.option(
    "--state",
    "state_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The state folder, in place of the configuration's state_dir.",
)
log_file_option = click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The log file, in place of the configuration's log_file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
