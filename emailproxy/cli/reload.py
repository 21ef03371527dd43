"""`emailproxy reload`: the running server reads its configuration again."""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from pathlib import Path

import click

from emailproxy.admin.client import Refused
from emailproxy.cli.main import EXIT_CONFIG, EXIT_FAILED
from emailproxy.cli.options import config_option, json_option, state_option
from emailproxy.cli.reach import Place
from emailproxy.config import ini
from emailproxy.config.scan import Report, decode
from emailproxy.errors import ConfigError


@click.command()
@json_option
@config_option
@state_option
def reload(as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Have the running server read its configuration again, as SIGHUP does. Sessions that stand go on.

    With --config, the server takes that file's text from here: so root's configuration reaches a service that may not
    read it, as under the systemd unit of 'emailproxy serve --print-unit'.

    Exit codes: 0 it is in force, 1 no server runs or a new port is in use, 78 it is wrong; then nothing has changed.
    """
    message = {} if config_path is None else _contents(config_path)
    try:
        facts = Place.of(config_path, state_dir).client().ask("POST", "/reload", message)
    except Refused as error:
        for line in str(error).splitlines():
            click.echo(f"emailproxy: {line}", err=True)
        click.echo("emailproxy: nothing has changed: the configuration before stays in force", err=True)
        sys.exit(EXIT_CONFIG if error.status == HTTPStatus.UNPROCESSABLE_ENTITY else EXIT_FAILED)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo("The configuration is in force.")
    for what in ("added", "changed", "removed", "unchanged"):
        if facts[what]:
            click.echo(f"{what}: {', '.join(facts[what])}")
    for worker in facts.get("late", ()):
        click.echo(f"emailproxy: {worker} has not taken it yet, as it does not answer; see the log", err=True)
    if facts["restart"]:
        click.echo(f"emailproxy: only a restart changes {', '.join(facts['restart'])}", err=True)


def _contents(path: Path) -> dict[str, str]:
    """A configuration file, for a server that may not read it."""
    report = Report(str(path))
    text = decode(ini.read(path)[0], report)
    if report.faults:
        raise ConfigError(tuple(report.faults))
    return {"text": text, "path": str(path.absolute())}
