"""`emailproxy accounts`: who has tokens here, and how to forget them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from emailproxy.cli.main import EXIT_FAILED
from emailproxy.cli.options import config_option, json_option, state_option
from emailproxy.config import ini
from emailproxy.errors import StateError
from emailproxy.store.base import Pending, Record
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore


@dataclass(frozen=True, slots=True)
class Line:
    """One account as the list shows it."""

    account: str
    state: str
    token_expires: str
    passwords: int
    last_error: str


@click.group()
def accounts() -> None:
    """List the accounts that have tokens here, or remove one."""


@accounts.command("list")
@json_option
@config_option
@state_option
def list_accounts(as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Each account's state: live, needs sign-in, consent pending, or unusable (with the reason)."""
    lines = asyncio.run(_lines(_state_dir(config_path, state_dir)))
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    if not lines:
        click.echo("No account has signed in yet. Sign one in with: emailproxy authorize ACCOUNT")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Account", "State", "Access token ends", "Local passwords", "Last error")
    for line in lines:
        table.add_row(line.account, line.state, line.token_expires, str(line.passwords), line.last_error)
    Console().print(table)


@accounts.command()
@click.argument("account")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@state_option
def remove(account: str, yes: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Forget an account's tokens, local password and pending consent. Its configuration stays."""
    where = _state_dir(config_path, state_dir)
    if not yes:
        click.confirm(f"Forget the tokens and the local password of {account}? It must sign in again", abort=True)
    if not asyncio.run(_remove(where, account.casefold())):
        click.echo(f"emailproxy: {account} has no tokens and no pending consent in {where}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(f"{account} is forgotten. A running server goes on with what it holds in memory until it is restarted.")


def _state_dir(config_path: Path | None, state_dir: Path | None) -> Path:
    if state_dir is not None:
        return state_dir
    return ini.load(ini.find(config_path), allow_placeholders=True).settings.state_dir


async def _remove(where: Path, account: str) -> bool:
    records, pending = IniStore(where), IniPendingStore(where)
    try:
        discarded = await pending.discard(account)
        return await records.remove(account) or discarded
    finally:
        pending.close()
        records.close()


async def _lines(where: Path) -> list[Line]:
    records, pending = IniStore(where), IniPendingStore(where)
    try:
        waiting = {consent.account: consent for consent in await pending.waiting()}
        names = sorted({*await records.accounts(), *waiting})
        return [await _line(records, name, waiting.get(name)) for name in names]
    finally:
        pending.close()
        records.close()


async def _line(records: IniStore, name: str, consent: Pending | None) -> Line:
    try:
        record = await records.load(name)
    except StateError as error:
        return Line(name, "unusable", "", 0, str(error))
    if record is None:
        return Line(name, "consent pending", "", 0, "")
    return Line(name, _state(record, consent), _expiry(record), len(record.lockbox.slots), record.last_error)


def _state(record: Record, consent: Pending | None) -> str:
    if consent is not None:
        return "consent pending"
    return "needs sign-in" if record.needs_sign_in else "live"


def _expiry(record: Record) -> str:
    if record.expires_at_s is None:
        return "not told"
    moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.expires_at_s))
    return moment if record.expires_at_s > time.time() else f"{moment} (refreshed at the next login)"
