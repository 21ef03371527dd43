"""`emailproxy accounts`: who has tokens here, and how to forget them."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from emailproxy.cli.main import EXIT_FAILED
from emailproxy.cli.options import config_option, json_option, state_option, state_place
from emailproxy.errors import StateError
from emailproxy.store.base import Pending, Record
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore

LATEST_S = 253_402_214_400  # 9999-12-31: what a damaged file says beyond it no calendar can show


@dataclass(frozen=True, slots=True)
class Line:
    """One account as the list shows it."""

    account: str
    state: str
    token_expires: str | None = None
    """In UTC (RFC 3339); None where there is no access token, or the provider did not tell."""
    passwords: int = 0
    last_error: str = ""


@click.group()
def accounts() -> None:
    """List the accounts that have tokens here, or remove one."""


@accounts.command("list")
@json_option
@config_option
@state_option
def list_accounts(as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Each account's state: live, needs sign-in, consent pending, or unusable (with the reason)."""
    lines = asyncio.run(_lines(state_place(config_path, state_dir)))
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
    elif lines:
        _show(lines)
    else:
        click.echo("No account has signed in yet. Sign one in with: emailproxy authorize ACCOUNT")


def _show(lines: list[Line]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title in ("Account", "State", "Access token ends", "Local passwords", "Last error"):
        table.add_column(title, overflow="fold")
    for line in lines:
        cells = (line.account, line.state, _local_time(line.token_expires), str(line.passwords), line.last_error)
        table.add_row(*map(Text, cells))  # a name or an error may look like markup
    Console().print(table)


def _local_time(moment: str | None) -> str:
    if moment is None:
        return ""
    ends = datetime.fromisoformat(moment)
    over = "" if ends > datetime.now(UTC) else " (refreshed at the next login)"
    return f"{ends.astimezone():%Y-%m-%d %H:%M}{over}"


@accounts.command()
@click.argument("account")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@state_option
def remove(account: str, yes: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Forget an account's tokens, local password and pending consent. Its configuration stays."""
    where = state_place(config_path, state_dir)
    if not yes:
        click.confirm(f"Forget the tokens and the local password of {account}? It must sign in again", abort=True)
    if not (where.is_dir() and asyncio.run(_remove(where, account))):
        click.echo(f"emailproxy: {account} has no tokens and no pending consent in {where}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(f"{account} is forgotten. A running server notices at its next login; sessions that stand go on.")


async def _remove(where: Path, account: str) -> bool:
    records, pending = IniStore(where), IniPendingStore(where)
    try:
        removed = await records.remove(account)
        return await pending.discard(account) or removed  # last: a login meanwhile may have begun one anew
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
        return Line(name, "unusable", last_error=str(error))
    if record is None:
        return Line(name, "consent pending")
    return Line(name, _state(record, consent), _expiry(record), len(record.lockbox.slots), record.last_error)


def _state(record: Record, consent: Pending | None) -> str:
    if consent is not None:
        return "consent pending"
    return "needs sign-in" if record.needs_sign_in else "live"


def _expiry(record: Record) -> str | None:
    if record.expires_at_s is None:
        return None
    return datetime.fromtimestamp(min(record.expires_at_s, LATEST_S), UTC).isoformat().replace("+00:00", "Z")
