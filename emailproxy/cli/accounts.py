"""`emailproxy accounts`: who has tokens here, and how to forget them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from emailproxy.cli.main import EXIT_FAILED
from emailproxy.cli.options import config_option, json_option, state_option, state_place
from emailproxy.config import catchall, ini
from emailproxy.errors import AccountUnusable, ConfigError, StateError
from emailproxy.oauth.advice import advise
from emailproxy.oauth.clock import rfc3339
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.states import ConsentPending, Live, state_of
from emailproxy.store.base import Pending
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from emailproxy.wire.events import Advice

WIDTH = 200  # columns of the table where it goes to another program: no line is broken


@dataclass(frozen=True, slots=True)
class Line:
    """One account as the list shows it. Times are in UTC (RFC 3339), None where there is none or nobody told."""

    account: str
    state: str
    token_expires: str | None = None
    token_obtained: str | None = None
    consent_since: str | None = None
    consent_expires: str | None = None
    passwords: int = 0
    last_error: str = ""
    advice: Advice | None = None
    """What is known about the last error."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the configuration says of the accounts here; nothing where it is not to be had, or is another folder's."""

    names: frozenset[str] = frozenset()
    margin_s: float = MARGIN_S


@click.group()
def accounts() -> None:
    """List the accounts, or make one forgotten: its tokens and its local password."""


@accounts.command("list")
@json_option
@config_option
@state_option
def list_accounts(as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Each account's state: absent, consent pending, live, refreshing, needs sign-in; or unusable, with the reason.

    What is known about an account's last error, and what to do about it, is told with it.
    """
    where = state_place(config_path, state_dir)
    lines = asyncio.run(_lines(where, _known(config_path, where)))
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
    elif lines:
        _show(lines)
    else:
        click.echo("No account has signed in yet. Sign one in with: emailproxy authorize ACCOUNT")


def _show(lines: list[Line]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console = Console(soft_wrap=True, width=WIDTH)
    table = Table(box=SIMPLE, pad_edge=False)
    for title in ("Account", "State", "Access token ends", "Local passwords"):
        table.add_column(title, overflow="fold")
    for line in lines:
        cells = (line.account, _state(line), _token_end(line), str(line.passwords))
        table.add_row(*map(Text, cells))  # a name or an error may look like markup
    console.print(table, soft_wrap=False)
    for line in lines:
        if line.last_error:
            console.print(Text(f"{line.account}: {_explained(line)}"))


def _state(line: Line) -> str:
    return f"{line.state} until {_local(line.consent_expires)}" if line.consent_expires else line.state


def _token_end(line: Line) -> str:
    if line.token_expires is None:
        return ""
    over = line.state == Live.name and datetime.fromisoformat(line.token_expires) <= datetime.now(UTC)
    return _local(line.token_expires) + (" (refreshed at the next login)" if over else "")


def _local(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"


def _explained(line: Line) -> str:
    """The last error, and the advice where it does not say that itself."""
    advice = (line.advice.meaning, line.advice.action) if line.advice else ()
    told = "; ".join([line.last_error, *(text for text in advice if text not in line.last_error)])
    return told.replace("authorize ACCOUNT", f"authorize {line.account}")


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


def _known(config_path: Path | None, where: Path) -> Known:
    try:
        config = ini.load(ini.find(config_path))
        if config.settings.state_dir.absolute() != where.absolute():
            return Known()
        names = frozenset(account.key for account in catchall.accounts(config))
    except (ConfigError, AccountUnusable):  # `serve` and `check` say what is wrong with it
        return Known()
    return Known(names, config.settings.refresh_margin)


async def _lines(where: Path, known: Known) -> list[Line]:
    records, pending = IniStore(where), IniPendingStore(where)
    try:
        waiting = {consent.account: consent for consent in await pending.waiting()}
        names = sorted({*await records.accounts(), *waiting, *known.names})
        return [await _line(records, name, waiting.get(name), known.margin_s) for name in names]
    finally:
        pending.close()
        records.close()


async def _line(records: IniStore, name: str, consent: Pending | None, margin_s: float) -> Line:
    try:
        locked = await records.is_locked(name)  # before the record: who has let go since has saved it
        record = await records.load(name)
    except StateError as error:
        return Line(name, "unusable", last_error=str(error))
    state = state_of(record, consent, locked=locked, now_s=time.time(), margin_s=margin_s)
    line = Line(name, state.name)
    if isinstance(state, ConsentPending):
        line = replace(line, consent_since=_utc(state.since_s), consent_expires=_utc(state.expires_s))
    if record is None:
        return line
    return replace(
        line,
        token_expires=_utc(record.expires_at_s),
        token_obtained=_utc(record.obtained_at_s),
        passwords=len(record.lockbox.slots),
        last_error=record.last_error,
        advice=advise(record.last_error) if record.last_error else None,
    )


def _utc(moment_s: int | None) -> str | None:
    if moment_s is None:
        return None
    return rfc3339(moment_s)
