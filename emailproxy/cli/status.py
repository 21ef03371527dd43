"""`emailproxy status`: what the running server does."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emailproxy.cli import tables
from emailproxy.cli.options import config_option, json_option, state_option
from emailproxy.cli.reach import Place
from emailproxy.errors import addressed

if TYPE_CHECKING:
    from rich.console import Console

Facts = dict[str, Any]


@click.command()
@json_option
@config_option
@state_option
def status(as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Show what the running server does: listeners, sessions, accounts and their tokens, refused logins.

    Exit codes: 0 it runs, 1 no server runs, or it does not answer.
    """
    facts = Place.of(config_path, state_dir).client().ask("GET", "/status")
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _show(facts)


def _show(facts: Facts) -> None:
    shown = tables.console()
    up = timedelta(seconds=facts["uptime_s"])
    tables.say(shown, f"emailproxy {facts['version']}, process {facts['pid']}, has run for {up}")
    loaded = tables.local(facts["config"]["loaded"])
    tables.say(shown, f"configuration {facts['config']['path']}, as of {loaded}; state {facts['state_dir']}")
    _show_listeners(shown, facts)
    _show_workers(shown, facts)
    _show_accounts(shown, facts)
    for line in facts["accounts"]:
        if line["last_error"]:
            tables.say(shown, f"{line['account']}: {addressed(line['last_error'], line['account'])}")
    for account in facts["degraded"]:
        tables.say(shown, f"{account}: degraded: its newest tokens are in memory only, as its file cannot be written; "
                   "a restart would lose them; see the log")  # fmt: skip
    refused = ", ".join(f"{count} {reason}" for reason, count in facts["refused"].items())
    tables.say(shown, f"logins refused since the start: {refused or 'none'}")


def _show_listeners(shown: Console, facts: Facts) -> None:
    tables.show(
        shown,
        ("Section", "Listens on", "TLS", "Mail server", "Sessions", "Logged in"),
        [
            (
                line["section"] + (" (ends)" if line["retired"] else ""),
                ", ".join(line["addresses"]),
                line["tls"],
                line["server"] + (f", {line['prewarmed']} ready" if line["prewarmed"] else ""),
                str(line["sessions"]),
                str(line["logged_in"]),
            )
            for line in facts["listeners"]
        ],
    )


def _show_workers(shown: Console, facts: Facts) -> None:
    """Where there is more than one process."""
    for line in facts.get("workers", ()):
        up = timedelta(seconds=line["uptime_s"])
        does = "DOES NOT ANSWER" if line["sessions"] is None else f"{line['sessions']} sessions"
        tables.say(shown, f"worker {line['worker']}: process {line['pid']}, has run for {up}, {does}")


def _show_accounts(shown: Console, facts: Facts) -> None:
    tables.show(
        shown,
        ("Account", "State", "Access token obtained", "ends", "Sessions", "Storage"),
        [
            (
                line["account"],
                line["state"] if line["unlocked"] else f"{line['state']}, locked",
                tables.local(line["token_obtained"]),
                tables.local(line["token_expires"]),
                str(line["sessions"]),
                line["storage"],
            )
            for line in facts["accounts"]
        ],
    )
