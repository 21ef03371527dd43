"""`emailproxy logs`: reads the server's log, with or without a running server."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click

from emailproxy.cli import tail
from emailproxy.cli.main import EXIT_FAILED, EXIT_NEEDS_PERSON
from emailproxy.cli.options import config_option, json_option, log_file_option, log_place, state_option, state_place
from emailproxy.store.pending import IniPendingStore

DEFAULT_LINES = 50
RECORD = re.compile(r"(?P<time>[\d-]+ [\d:,]+) (?P<level>[A-Z]+) (?P<message>.*)")
CONSENT = re.compile(r"Please visit the following URL to authenticate account (?P<account>.+): (?P<url>https?://\S+)")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, across rotation, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=DEFAULT_LINES, metavar="N",
              help=f"How many of the last lines, by default {DEFAULT_LINES}.")  # fmt: skip
@click.option("--consent", is_flag=True, help="The URLs and codes that wait for a person. Exits 3 if there are some.")
@json_option
@config_option
@state_option
@log_file_option
def logs(
    follow: bool,
    lines: int,
    consent: bool,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Show the server's log.

    \b
    emailproxy logs -f            watch it
    emailproxy logs --consent     the URLs, and device codes, that wait for a person, one a line
    """
    if consent and follow:
        raise click.UsageError("--consent prints what waits now; it does not go with --follow")
    log_file = log_place(config_path, log_file)
    if consent:
        _show_consents(log_file, state_place(config_path, state_dir), as_json=as_json)
    elif follow:
        if not tail.is_there(log_file):
            click.echo(f"emailproxy: there is no log at {log_file} yet; waiting for one", err=True)
        try:
            _print(tail.follow(log_file, lines), as_json=as_json)
        except KeyboardInterrupt:
            return
    elif tail.is_there(log_file):
        _print(tail.last(log_file, lines), as_json=as_json)
    else:
        click.echo(f"emailproxy: there is no log at {log_file} yet; is it another one? Try --log-file", err=True)
        sys.exit(EXIT_FAILED)


def _print(lines: Iterable[str], *, as_json: bool) -> None:
    for line in lines:
        click.echo(json.dumps(_facts(line)) if as_json else line)


def _facts(line: str) -> dict[str, str]:
    """One record; a line of a traceback is a message alone."""
    match = RECORD.fullmatch(line)
    return match.groupdict() if match else {"message": line}


@dataclass(frozen=True, slots=True)
class Visit:
    """What waits for a person."""

    account: str
    url: str
    user_code: str = ""
    """What to type there, for a device sign-in."""

    def __str__(self) -> str:
        return f"{self.url} (use code {self.user_code})" if self.user_code else self.url

    def facts(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value}


def _show_consents(log_file: Path, state_dir: Path, *, as_json: bool) -> None:
    waiting = asyncio.run(_waiting(log_file, state_dir))
    for visit in waiting:
        click.echo(json.dumps(visit.facts()) if as_json else str(visit))
    if waiting:
        sys.exit(EXIT_NEEDS_PERSON)


async def _waiting(log_file: Path, state_dir: Path) -> list[Visit]:
    """The URLs in the log whose consent is still pending, the newest of each account; then the device sign-ins."""
    pending = IniPendingStore(state_dir)
    found: dict[str, Visit] = {}
    seen: set[str] = set()
    try:
        for line in tail.lines(log_file):
            record = RECORD.fullmatch(line)
            match = CONSENT.fullmatch(record["message"]) if record else None
            if match is None or match["url"] in seen:
                continue
            state = parse_qs(urlsplit(match["url"]).query).get("state", [""])[0]
            if state and await pending.by_state(state) is not None:
                seen.add(match["url"])
                found[match["account"]] = Visit(match["account"], match["url"])
        devices = [one for one in await pending.waiting() if one.user_code]
        return [*found.values(), *(Visit(one.display_name, one.device_url, one.user_code) for one in devices)]
    finally:
        pending.close()
