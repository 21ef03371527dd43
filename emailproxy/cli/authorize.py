"""`emailproxy authorize`: signs an account in with no mail program involved."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import click

from emailproxy.cli import logfile, paste, person
from emailproxy.cli.check import after_sign_in
from emailproxy.cli.main import EXIT_NEEDS_PERSON
from emailproxy.cli.options import config_option, json_option, log_file_option, state_option
from emailproxy.cli.passwords import first_line, password_file_option
from emailproxy.cli.progress import waiting_line
from emailproxy.config import catchall, ini
from emailproxy.config.model import MINUTES, Account, Config, FlowName
from emailproxy.errors import ConsentRequired
from emailproxy.oauth.waiting import Waiting
from emailproxy.secret import Secret
from emailproxy.store.files import as_root
from emailproxy.store.ini import IniStore
from emailproxy.store.slots import FIRST

DEFAULT_WAIT_S = 15 * MINUTES


@dataclass(frozen=True, slots=True)
class Wish:
    """How the person would like it."""

    wait_s: float
    as_json: bool
    paste: bool
    browser: bool
    replaced_by: str = ""
    """What the password is called that takes the place of all others; empty: it is one that the account has."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it."""

    done: bool
    waiting: Waiting | None = None
    """What was, or is, to be visited; None where no person was needed."""
    who: tuple[str, ...] = ()
    """Who signed in, where that is known here."""
    ended: str = ""
    """Why nothing will come of it any more."""


@click.command()
@click.argument("account")
@password_file_option
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=DEFAULT_WAIT_S, metavar="SECONDS",
              help="How long to wait for the person, by default 15 minutes. The sign-in can be finished for 24 hours, "
              "also later.")  # fmt: skip
@click.option("--paste", "by_hand", is_flag=True,
              help="Finish here: paste the address that the browser ends at, or the code in it.")  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Only print the URL, also where a browser could be opened.")
@click.option(
    "--no-check", is_flag=True, help="Do not try the whole chain, up to a login, once the person has signed in."
)
@json_option
@config_option
@state_option
@log_file_option
def authorize(
    account: str,
    password_file: IO[str] | None,
    wait_s: float,
    by_hand: bool,
    no_browser: bool,
    no_check: bool,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Sign ACCOUNT in now: opens the provider's page, or prints its URL, and waits until the person has signed in.

    An account that is new here gets its local password set: the one that mail programs will use. For one that has
    a local password already, that password is asked for.

    Works beside a running server, whose redirect listener then takes the answer, and without one. Where the browser
    is on another computer, --paste finishes the sign-in here. In the end the whole chain is tried, as 'emailproxy
    check' does.
    """
    config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file)
    found = catchall.resolve(config, account)
    if by_hand and found.flow is FlowName.DEVICE:
        raise click.UsageError(f"{found.name} signs in with a device code, in any browser: there is nothing to paste")
    typed = password_file is None or password_file.isatty()  # what a terminal echoes is asked for without echo
    password = _ask(config, found) if typed or password_file is None else first_line(password_file)
    wish = Wish(wait_s, as_json, by_hand, browser=not (no_browser or as_json))
    piped = password_file if password_file is not None and password_file.fileno() == sys.stdin.fileno() else None
    with logfile.appended(config.settings.log_file):
        outcome = sign_in(config, found, password, wish, None if typed else piped)
    report(found.name, outcome, as_json=as_json)
    if not outcome.done:
        sys.exit(EXIT_NEEDS_PERSON)
    if not no_check:
        sys.exit(after_sign_in(config, found, password, as_json=as_json))


def sign_in(config: Config, account: Account, password: Secret, wish: Wish, piped: IO[str] | None) -> Outcome:
    try:
        outcome = asyncio.run(_begin(config, account, password, wish))
        waiting = outcome.waiting
        if waiting is None or not wish.paste:
            return outcome
        who = paste.finish(config, waiting, piped)
    except ConsentRequired as error:  # it ended: declined, somebody else's, too late
        return Outcome(False, ended=str(error))
    return Outcome(who is not None, waiting, who or ())


async def _begin(config: Config, account: Account, password: Secret, wish: Wish) -> Outcome:
    """Begins a sign-in and, unless the person pastes, waits for its end."""
    from emailproxy.service import Authority

    async with Authority(config) as authority:
        waiting = await authority.broker.sign_in(
            account.name, password, replace=bool(wish.replaced_by), slot_name=wish.replaced_by or FIRST
        )
        if waiting is None:
            return Outcome(True)
        _show(waiting, wish)
        if wish.browser and wish.wait_s > 0 and person.has_browser(os.environ, root=as_root()):
            opened = await person.open_browser(waiting.url, config.variables)
            click.echo("Your browser opens." if opened else "No browser could be opened: open the URL.", err=True)
        if wish.paste:
            return Outcome(False, waiting)
        wait_s = max(0.0, min(wish.wait_s, waiting.expires_at_s - time.time()))
        try:
            with waiting_line(f"the sign-in of {account.name}", wait_s):
                return Outcome(await waiting.wait(wait_s), waiting, waiting.who())
        except asyncio.CancelledError:  # Ctrl-C
            return Outcome(False, waiting)


def _show(waiting: Waiting, wish: Wish) -> None:
    """What the person has to do: facts on standard output, how to go about it on standard error."""
    name, code = waiting.account.name, waiting.user_code
    if wish.as_json:
        facts = {"account": name, "url": waiting.url, "link": waiting.link}
        click.echo(json.dumps(facts | ({"user_code": code} if code else {})))
        return
    click.echo(f"Please visit the following URL to authenticate account {name}: {waiting.url}")
    if code:
        click.echo(f"Visit {waiting.link} and use code {code}")
    else:
        click.echo(f"\nShort link to the same page: {waiting.link}", err=True)
    phone = person.for_a_phone(waiting)
    if phone is not None:
        person.show_qr(phone, sys.stderr)
    tunnel = None if wish.paste else person.tunnel(waiting.account, os.environ, person.user_name())
    if tunnel is not None:
        click.echo(
            f"You are here by SSH. For a browser on your own computer, run there first:\n  {tunnel}\n"
            f"Or finish the sign-in here: emailproxy authorize {name} --paste",
            err=True,
        )


def report(name: str, outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        known = {"signed_in_as": outcome.who} if outcome.who else {}
        ended = {"reason": outcome.ended} if outcome.ended else {}
        click.echo(json.dumps({"account": name, "signed_in": outcome.done, **known, **ended}))
    elif outcome.done:
        who = f" as {outcome.who[0]}" if outcome.who else ""
        click.echo(f"{name} is signed in{who}. Mail programs log in with this user name and the local password.")
    elif outcome.ended:
        click.echo(f"emailproxy: {outcome.ended}", err=True)
    else:
        click.echo(f"{name} is not signed in yet. {_still_good(outcome.waiting)}", err=True)


def _still_good(waiting: Waiting | None) -> str:
    if waiting is None or not waiting.user_code:
        return "The URL stays good for 24 hours."
    ends = datetime.fromtimestamp(waiting.expires_at_s).astimezone()
    return f"The code stays good until {ends:%H:%M}; the next login of a mail program takes it up again."


def _ask(config: Config, account: Account) -> Secret:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the local password: give --password-file")
    if account.flow is FlowName.PASSWORD:
        return Secret(click.prompt(f"The mailbox's own password of {account.name}", hide_input=True))
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
