"""`emailproxy accounts`: who has tokens here, how to forget them, and the local passwords."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emailproxy.cli import keyslots, tables
from emailproxy.cli.main import EXIT_FAILED
from emailproxy.cli.options import config_option, json_option, state_option
from emailproxy.cli.reach import Place
from emailproxy.config import catchall
from emailproxy.errors import addressed
from emailproxy.oauth.lifetimes import MARGIN_S
from emailproxy.oauth.states import Live

if TYPE_CHECKING:
    from emailproxy.service.facts import Line


@dataclass(frozen=True, slots=True)
class Known:
    """What the configuration says of the accounts here; nothing where it is not to be had."""

    names: frozenset[str] = frozenset()
    margin_s: float = MARGIN_S


@click.group()
def accounts() -> None:
    """List the accounts, make one forgotten, and administer local passwords: one a device, each revoked alone."""


for command in (keyslots.passwords, keyslots.add_password, keyslots.change_password, keyslots.remove_password):
    accounts.add_command(command)


@accounts.command("list", short_help="Each account's state, and its last error with what to do.")
@json_option
@config_option
@state_option
def list_accounts(as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Each account's state: absent, consent pending, live, refreshing, needs sign-in; or unusable, with the reason.

    What is known about an account's last error, and what to do about it, is told with it.
    """
    place = Place.of(config_path, state_dir)
    lines = asyncio.run(_lines(place.state_dir, _known(place)))
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
    elif lines:
        _show(lines)
    else:
        click.echo(f"No account has signed in yet in {place.state_dir}. Sign one in with: emailproxy authorize ACCOUNT")


async def _lines(where: Path, known: Known) -> list[Line]:
    from emailproxy.service.facts import account_lines
    from emailproxy.store.ini import IniStore
    from emailproxy.store.pending import IniPendingStore

    records, pending = IniStore(where), IniPendingStore(where)
    try:
        return [line async for line in account_lines(records, pending, known.names, known.margin_s)]
    finally:
        pending.close()
        records.close()


def _known(place: Place) -> Known:
    if place.config is None:
        return Known()
    return Known(catchall.keys(place.config), place.config.settings.refresh_margin)


def _show(lines: list[Line]) -> None:
    shown = tables.console()
    tables.show(
        shown,
        ("Account", "State", "Access token ends", "Local passwords"),
        [(line.account, _state(line), _token_end(line), str(line.passwords)) for line in lines],
    )
    for line in lines:
        if line.last_error:
            tables.say(shown, f"{line.account}: {_explained(line)}")


def _state(line: Line) -> str:
    return f"{line.state} until {tables.local(line.consent_expires)}" if line.consent_expires else line.state


def _token_end(line: Line) -> str:
    if line.token_expires is None:
        return ""
    over = line.state == Live.name and datetime.fromisoformat(line.token_expires) <= datetime.now(UTC)
    return tables.local(line.token_expires) + (" (refreshed at the next login)" if over else "")


def _explained(line: Line) -> str:
    """The last error, and the advice where it does not say that itself."""
    advice = (line.advice.meaning, line.advice.action) if line.advice else ()
    told = "; ".join([line.last_error, *(text for text in advice if text not in line.last_error)])
    return addressed(told, line.account)


@accounts.command(short_help="Forget an account's tokens, passwords and pending sign-in.")
@click.argument("account")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@state_option
def remove(account: str, yes: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """Forget an account's tokens, local passwords and pending consent. Its configuration stays."""
    place = Place.of(config_path, state_dir)
    where, key = place.state_dir, place.key(account)
    if not yes:
        click.confirm(f"Forget the tokens and the local passwords of {account}? It must sign in again", abort=True)
    if not (where.is_dir() and asyncio.run(_forget(where, key))):
        click.echo(f"emailproxy: {account} has no tokens and no pending consent in {where}", err=True)
        sys.exit(EXIT_FAILED)
    if place.tell("/accounts/forget", {"account": account}) is None:
        click.echo(f"{account} is forgotten. A running server notices at its next login; sessions that stand go on.")
    else:
        click.echo(f"{account} is forgotten, by the running server, too; sessions that stand go on.")
    keyslots.warn_of_cached(place, key)


async def _forget(where: Path, key: str) -> bool:
    from emailproxy.service.offline import forget

    return await forget(where, key)
