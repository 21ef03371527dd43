"""`emailproxy logs`: reads the server's log, with or without a running server."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

import click

from emailproxy.cli.main import EXIT_FAILED, EXIT_NEEDS_PERSON
from emailproxy.cli.options import config_option, json_option, log_file_option, state_option
from emailproxy.config import ini
from emailproxy.config.model import Settings
from emailproxy.errors import ConfigError
from emailproxy.store.pending import IniPendingStore

DEFAULT_LINES = 50
FOLLOW_S = 0.25  # how soon a new line is shown
CONSENT = re.compile(r"Please visit the following URL to authenticate account (?P<account>.+): (?P<url>https?://\S+)$")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, across rotation, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=DEFAULT_LINES, show_default=True, help="How many.")
@click.option("--consent", is_flag=True, help="Only the URLs that wait for a person. Exits 3 if there are some.")
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
    emailproxy logs --consent     the URLs that wait for a person, one a line
    """
    if consent and follow:
        raise click.UsageError("--consent prints what waits now; it does not go with --follow")
    where = _places(config_path, state_dir, log_file)
    if consent:
        _show_consents(where, as_json=as_json)
        return
    if not follow and not where.log_file.exists():
        click.echo(f"emailproxy: there is no log at {where.log_file} yet; is it another one? Try --log-file", err=True)
        sys.exit(EXIT_FAILED)
    if not follow:
        for line in deque(_read(_files(where.log_file)), maxlen=lines):
            _print_line(line, as_json=as_json)
        return
    try:
        for line in _follow(where.log_file, lines):
            _print_line(line, as_json=as_json)
    except KeyboardInterrupt:
        return


def _places(config_path: Path | None, state_dir: Path | None, log_file: Path | None) -> Settings:
    """Where log and state are: a configuration that is wrong or absent does not keep anybody from the log."""
    try:
        config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file, allow_placeholders=True)
        return config.settings
    except ConfigError as error:
        if config_path is not None and (state_dir is None or log_file is None):
            raise
        if not log_file:
            click.echo(f"emailproxy: {error.faults[0]}", err=True)
        return Settings(state_dir=state_dir or ini.default_state_dir(), log_file=log_file or ini.default_log_file())


def _files(path: Path) -> list[Path]:
    """The log and the rotated ones, oldest first."""
    pattern = re.compile(re.escape(path.name) + r"\.(\d+)")
    numbered = [(pattern.fullmatch(file.name), file) for file in path.parent.glob(f"{path.name}.*")]
    rotated = sorted(((int(match[1]), file) for match, file in numbered if match), reverse=True)
    return [file for _, file in rotated] + ([path] if path.exists() else [])


def _read(files: list[Path]) -> Iterator[str]:
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as stream:
            yield from (line.rstrip("\n") for line in stream)


def _print_line(line: str, *, as_json: bool) -> None:
    click.echo(json.dumps({"line": line}) if as_json else line)


def _follow(path: Path, count: int) -> Iterator[str]:
    """The last `count` lines, then new ones as they come, from the file that the name means at the time."""
    stream = _open(path)
    tail = deque(_read([file for file in _files(path) if file != path]), maxlen=count)
    whole, rest = _take_lines(stream, "")
    tail.extend(whole)
    yield from tail
    while True:
        whole, rest = _take_lines(stream, rest)
        yield from whole
        if stream is None or _replaced(stream, path):
            if stream is not None:
                stream.close()
            stream, rest = _open(path), ""
        time.sleep(FOLLOW_S)


def _open(path: Path) -> TextIO | None:
    return path.open(encoding="utf-8", errors="replace") if path.exists() else None


def _take_lines(stream: TextIO | None, rest: str) -> tuple[list[str], str]:
    """The whole lines that are there now, and the beginning of the next."""
    *whole, rest = (rest + (stream.read() if stream is not None else "")).split("\n")
    return whole, rest


def _replaced(stream: TextIO, path: Path) -> bool:
    """Whether the log was rotated or cut while we read it, and all of the old one has been read."""
    import os

    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(stream.fileno())
    return (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev) or ours.st_size < stream.tell()


def _show_consents(where: Settings, *, as_json: bool) -> None:
    waiting = asyncio.run(_waiting(where))
    for account, url in waiting.items():
        click.echo(json.dumps({"account": account, "url": url}) if as_json else url)
    if waiting:
        sys.exit(EXIT_NEEDS_PERSON)


async def _waiting(where: Settings) -> dict[str, str]:
    """The URLs in the log whose consent is still pending, by account, the newest of each."""
    pending = IniPendingStore(where.state_dir)
    found: dict[str, str] = {}
    try:
        for line in _read(_files(where.log_file)):
            match = CONSENT.search(line)
            if match is None or match["url"] in found.values():
                continue
            state = parse_qs(urlsplit(match["url"]).query).get("state", [""])[0]
            if state and await pending.by_state(state) is not None:
                found[match["account"]] = match["url"]
    finally:
        pending.close()
    return found
