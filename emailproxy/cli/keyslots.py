"""`emailproxy accounts passwords` and its kin: an account's local passwords, one a device, each revoked alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from emailproxy.admin.client import NotPermitted, NotRunning, Refused
from emailproxy.cli import logfile, tables
from emailproxy.cli.options import config_option, json_option, log_file_option, log_place, state_option
from emailproxy.cli.passwords import (
    ask_option,
    check_inputs,
    chosen,
    existing,
    new_password_option,
    unlock_option,
)
from emailproxy.cli.reach import Place
from emailproxy.config.model import DAYS
from emailproxy.config.values import Wrong, duration
from emailproxy.errors import PasswordsUnchanged
from emailproxy.secret import Secret

if TYPE_CHECKING:
    from emailproxy.oauth.passwords import Passwords
    from emailproxy.store.base import Slot

Facts = dict[str, Any]

LONGEST_S = 100 * 365 * DAYS

OTHER_WAYS = (
    "Or have the running server unlock it: log in once with a mail program, and run this as root or as the server's "
    "user. Where nobody knows a password any more, --consent signs in anew"
)
NO_OTHER_WAY = "Where nobody knows the old one: add another with add-password, and remove the old one by its name"


def _length(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A length of time, as the configuration has them: 90d, 12 h."""
    if value is None:
        return None
    try:
        return duration(0, LONGEST_S, above_low=True)(value)
    except Wrong as error:
        raise click.BadParameter(str(error), param=param) from None


@dataclass(frozen=True, slots=True)
class New:
    """A password that shall be."""

    name: str
    password: Secret | None
    """None: generated."""
    protocols: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    expires_s: int | None = None

    @property
    def is_limited(self) -> bool:
        return bool(self.protocols or self.networks or self.expires_s is not None)


# ---- looking


@click.command("passwords", short_help="An account's local passwords: names, last use, limits.")
@click.argument("account")
@json_option
@config_option
@state_option
def passwords(account: str, as_json: bool, config_path: Path | None, state_dir: Path | None) -> None:
    """List an account's local passwords: names, when they were made and last used, their limits. Never a secret."""
    place = Place.of(config_path, state_dir)
    lines = asyncio.run(_listed(place, account))
    if as_json:
        click.echo(json.dumps({"account": account, "passwords": lines}, indent=2))
        return
    rows = [
        (
            line["name"],
            tables.local(line["created"]),
            tables.local(line["last_used"]) or "never",
            line["limits"] or "none",
            "expired" if line["expired"] else "",
        )
        for line in lines
    ]
    tables.show(tables.console(), ("Password", "Made", "Last used", "Limits", ""), rows)


async def _listed(place: Place, account: str) -> list[Facts]:
    from emailproxy.service.facts import slot_facts
    from emailproxy.service.offline import passwords_of

    async with passwords_of(place.state_dir) as found:
        return [slot_facts(slot) for slot in await _slots(place, found, account)]


async def _slots(place: Place, found: Passwords, account: str) -> tuple[Slot, ...]:
    """The account's passwords.

    Raises:
        UnknownAccount: it has none, and is not configured either.
        PasswordsUnchanged: it has none; the text says where they were looked for.
    """
    try:
        return await found.list(place.key(account))
    except PasswordsUnchanged as error:
        place.check_configured(account)
        raise PasswordsUnchanged(f"{error} (looked in {place.state_dir})") from None


# ---- adding


@click.command("add-password", short_help="Add a local password, for one more device or program.")
@click.argument("account")
@click.option("--name", required=True, help="What the password is for, e.g. scanner.")
@click.option("--protocol", "protocols", multiple=True, metavar="NAMES",
              help="Good for these only, e.g. imap,smtp. Default: all.")  # fmt: skip
@click.option("--from", "networks", multiple=True, metavar="NETWORK",
              help="Good for logins from there only, e.g. 10.0.0.0/8. May be given several times.")  # fmt: skip
@click.option("--expires", "life_s", callback=_length, metavar="TIME", help="Good for so long only, e.g. 90d.")
@new_password_option
@ask_option
@unlock_option
@click.option("--consent", is_flag=True,
              help="Where no password is known any more: sign in anew. All other passwords end.")  # fmt: skip
@click.option("--yes", is_flag=True, help="With --consent: do not ask.")
@json_option
@config_option
@state_option
@log_file_option
def add_password(
    account: str,
    name: str,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    life_s: float | None,
    password_file: IO[str] | None,
    ask: bool,
    unlock_file: IO[str] | None,
    consent: bool,
    yes: bool,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Add a local password to an account that has one: for one more device or program, which can be revoked alone.

    The account is unlocked by the running server, where somebody has logged in to it since its start (root's say and
    the server's own user's), else by one of its passwords. A generated password is printed once, alone on standard
    output.
    """
    split = tuple(part.strip() for text in protocols for part in text.split(",") if part.strip())
    expires_s = None if life_s is None else int(time.time() + life_s)
    _check(name, split, networks)
    check_inputs(password_file, unlock_file, ask=ask)
    new = New(name, chosen(password_file, ask=ask), split, networks, expires_s)
    if consent:
        from emailproxy.cli import anew

        anew.add(account, new, config_path, state_dir, log_file, yes=yes, as_json=as_json)
        return
    place = Place.of(config_path, state_dir)
    facts = None if unlock_file is not None else _through_server(place, account, new)
    if facts is None:
        with _logged(config_path, log_file):
            facts = asyncio.run(_added(place, account, new, unlock_file))
    _report(account, "is added", facts, generated=new.password is None, as_json=as_json)


def _check(name: str, protocols: tuple[str, ...], networks: tuple[str, ...]) -> None:
    """Whether they can be meant: wrong usage is told as such, whoever would find out later."""
    from emailproxy.store.base import Limits
    from emailproxy.store.bounds import slot_name
    from emailproxy.store.limits import canonical

    for option, limits in (("--protocol", Limits(protocols=protocols)), ("--from", Limits(networks=networks))):
        try:
            canonical(limits)
        except PasswordsUnchanged as error:
            raise click.BadParameter(str(error), param_hint=option) from None
    try:
        slot_name(name)
    except PasswordsUnchanged as error:
        raise click.BadParameter(str(error), param_hint="--name") from None


def _through_server(place: Place, account: str, new: New) -> Facts | None:
    """What the running server did; None where there is none that may be asked, or the account is locked there."""
    message = {
        "account": account,
        "name": new.name,
        "password": None if new.password is None else new.password.reveal(),
        "protocols": new.protocols,
        "networks": new.networks,
        "expires_s": new.expires_s,
    }
    try:
        return place.client().ask("POST", "/accounts/passwords", message)
    except (NotRunning, NotPermitted):
        return None
    except Refused as error:
        if error.status in (HTTPStatus.LOCKED, HTTPStatus.NOT_FOUND):
            return None
        raise


async def _added(place: Place, account: str, new: New, unlock_file: IO[str] | None) -> Facts:
    from emailproxy.oauth.passwords import NewSlot
    from emailproxy.service.facts import slot_facts
    from emailproxy.service.offline import passwords_of
    from emailproxy.store.base import Limits

    key = place.key(account)
    async with passwords_of(place.state_dir) as found:
        await _slots(place, found, account)  # before anybody is asked: there may be none
        opener = existing(account, unlock_file, OTHER_WAYS)
        limits = Limits(new.protocols, new.networks, new.expires_s)
        slot, password = await found.add(key, opener, NewSlot(new.name, new.password, limits))
    return {"account": account, **slot_facts(slot), "password": password.reveal()}


# ---- changing, removing


@click.command("change-password", short_help="Put another local password in the place of one.")
@click.argument("account")
@new_password_option
@ask_option
@unlock_option
@json_option
@config_option
@state_option
@log_file_option
def change_password(
    account: str,
    password_file: IO[str] | None,
    ask: bool,
    unlock_file: IO[str] | None,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Put another local password in the place of one of an account's; the old one says which. No new sign-in is needed.

    A generated password is printed once, alone on standard output.
    """
    check_inputs(password_file, unlock_file, ask=ask)
    place, new = Place.of(config_path, state_dir), chosen(password_file, ask=ask)
    with _logged(config_path, log_file):
        facts = asyncio.run(_changed(place, account, new, unlock_file))
    _report(account, "is changed", facts, generated=new is None, as_json=as_json)


async def _changed(place: Place, account: str, new: Secret | None, unlock_file: IO[str] | None) -> Facts:
    from emailproxy.service.facts import slot_facts
    from emailproxy.service.offline import passwords_of

    key = place.key(account)
    async with passwords_of(place.state_dir) as found:
        await _slots(place, found, account)
        slot, password = await found.change(key, existing(account, unlock_file, NO_OTHER_WAY), new)
    return {"account": account, **slot_facts(slot), "password": password.reveal()}


@click.command("remove-password", short_help="Remove a local password, by its name.")
@click.argument("account")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also the last one, and with it the account's tokens.")
@json_option
@config_option
@state_option
@log_file_option
def remove_password(
    account: str,
    name: str,
    force: bool,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Remove one of an account's local passwords, by its name. It counts at once, on a running server, too.

    Sessions that stand go on. Without its last password an account must sign in at its provider again.
    """
    place = Place.of(config_path, state_dir)
    key = place.key(account)
    with _logged(config_path, log_file):
        last, told = asyncio.run(_removed(place, account, name, force=force))
    if last:
        place.tell("/accounts/forget", {"account": account})
    if as_json:
        click.echo(json.dumps({"account": account, "name": name, "was_last": last}))
    else:
        click.echo(f"{told[:1].upper()}{told[1:]}.")
    if last:
        warn_of_cached(place, key)


async def _removed(place: Place, account: str, name: str, *, force: bool) -> tuple[bool, str]:
    from emailproxy.service.offline import passwords_of

    async with passwords_of(place.state_dir) as found:
        await _slots(place, found, account)
        removed = await found.remove(place.key(account), name, force=force)
        return removed.record, str(removed)


def warn_of_cached(place: Place, key: str) -> None:
    """Of an account that is forgotten here, another proxy's tokens may be left: they would serve it again."""
    path = place.cached_in(key)
    if path is not None:
        click.echo(
            f"emailproxy: {path} still holds another proxy's cached tokens of {key}: the next login with its password "
            "there takes them up again; remove access_token and refresh_token from its section to prevent that",
            err=True,
        )


# ---- in common


@contextmanager
def _logged(config_path: Path | None, log_file: Path | None) -> Iterator[None]:
    """The server's log tells of it, where there is one."""
    path = log_place(config_path, log_file)
    if not path.exists():
        yield
        return
    with logfile.appended(path):
        yield


def _report(account: str, done: str, facts: Facts, *, generated: bool, as_json: bool) -> None:
    """Facts on standard error, a generated password alone on standard output."""
    password = facts.pop("password")
    if as_json:
        click.echo(json.dumps(facts | ({"password": password} if generated else {})))
        return
    limits = f" ({facts['limits']})" if facts["limits"] else ""
    click.echo(f"The password {facts['name']!r} of {account} {done}{limits}.", err=True)
    if generated:
        click.echo("It is shown here only:", err=True)
        click.echo(password)
