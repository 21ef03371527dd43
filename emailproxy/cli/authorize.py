"""`emailproxy authorize`: signs an account in with no mail client involved."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import IO

import click

from emailproxy.cli import logfile
from emailproxy.cli.main import EXIT_NEEDS_PERSON
from emailproxy.cli.options import config_option, json_option, log_file_option, state_option
from emailproxy.config import catchall, ini
from emailproxy.config.model import KIB, MINUTES, Account, Config
from emailproxy.secret import Secret
from emailproxy.store.ini import IniStore

DEFAULT_WAIT_S = 15 * MINUTES
MAX_PASSWORD = 4 * KIB  # characters; beyond it somebody named the wrong file


@click.command()
@click.argument("account")
@click.option(
    "--password-file",
    type=click.File("r", encoding="utf-8-sig"),
    help="Read the local password from the first line of this file; - is standard input. Default: asked for.",
)
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=DEFAULT_WAIT_S, show_default="15 minutes",
              help="Seconds to wait for the person. The sign-in can be finished for 24 hours, also later.")  # fmt: skip
@json_option
@config_option
@state_option
@log_file_option
def authorize(
    account: str,
    password_file: IO[str] | None,
    wait_s: float,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Sign ACCOUNT in now: prints the URL to open and waits until the person has signed in.

    An account that is new here gets its local password set: the one that mail programs will use. For one that has
    a local password already, that password is asked for.

    Works beside a running server, whose redirect listener then takes the answer, and without one.
    """
    config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file)
    found = catchall.resolve(config, account)
    typed = password_file is None or password_file.isatty()  # what a terminal echoes is asked for without echo
    password = _ask(config, found) if typed or password_file is None else _first_line(password_file)
    with logfile.appended(config.settings.log_file):
        done = asyncio.run(_sign_in(config, found, password, wait_s, as_json=as_json))
    if as_json:
        click.echo(json.dumps({"account": found.name, "signed_in": done}))
    elif done:
        click.echo(f"{found.name} is signed in. Mail programs log in with this user name and the local password.")
    else:
        click.echo(f"{found.name} is not signed in yet. The URL stays good for 24 hours.", err=True)
    if not done:
        sys.exit(EXIT_NEEDS_PERSON)


async def _sign_in(config: Config, account: Account, password: Secret, wait_s: float, *, as_json: bool) -> bool:
    from emailproxy.service import Authority

    async with Authority(config) as authority:
        waiting = await authority.broker.sign_in(account.name, password)
        if waiting is None:
            return True
        if as_json:
            click.echo(json.dumps({"account": account.name, "url": waiting.url, "link": waiting.link}))
        else:
            click.echo(f"Please visit the following URL to authenticate account {account.name}: {waiting.url}")
            click.echo(f"\nShort link to the same page: {waiting.link}\nWaiting ...", err=True)
        try:
            return await waiting.wait(wait_s)
        except asyncio.CancelledError:  # Ctrl-C
            return False


def _first_line(file: IO[str]) -> Secret:
    try:
        line = file.readline(MAX_PASSWORD + 1).rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.BadParameter("it is not UTF-8 text", param_hint="--password-file") from None
    if not line or len(line) > MAX_PASSWORD:
        what = "is empty" if not line else f"has more than {MAX_PASSWORD} characters"
        raise click.BadParameter(f"its first line, the local password, {what}", param_hint="--password-file")
    return Secret(line)


def _ask(config: Config, account: Account) -> Secret:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the local password: give --password-file")
    if asyncio.run(_is_known(config, account)):
        return Secret(click.prompt(f"Local password of {account.name}", hide_input=True))
    click.echo(f"{account.name} is new here. Choose the local password that mail programs will use.", err=True)
    return Secret(click.prompt("New local password", hide_input=True, confirmation_prompt=True))


async def _is_known(config: Config, account: Account) -> bool:
    records = IniStore(config.settings.state_dir)
    try:
        return await records.load(account.key) is not None
    finally:
        records.close()
