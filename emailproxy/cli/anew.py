"""`emailproxy accounts add-password --consent`: a fresh sign-in unlocks an account whose passwords nobody knows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emailproxy.cli import authorize, logfile
from emailproxy.cli.main import EXIT_NEEDS_PERSON
from emailproxy.config import catchall, ini
from emailproxy.store.slots import generate_password

if TYPE_CHECKING:
    from emailproxy.cli.keyslots import New


def add(
    account: str,
    new: New,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Signs the account in anew; the new password is its only one then."""
    if new.is_limited:
        raise click.UsageError(
            "the only password of an account has no limits: leave --protocol, --from and --expires out, and add a "
            "limited one afterwards"
        )
    config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file)
    found = catchall.resolve(config, account)
    if not yes:
        click.confirm(
            f"A new sign-in of {found.name} ends all its local passwords but the new one, once it is done. Go on?",
            abort=True,
            err=True,
        )
    password = new.password or generate_password()
    wish = authorize.Wish(authorize.DEFAULT_WAIT_S, as_json, False, browser=not as_json, replaced_by=new.name)
    with logfile.appended(config.settings.log_file):
        outcome = authorize.sign_in(config, found, password, wish, None)
    if as_json:
        told = {} if new.password is not None else {"password": password.reveal()}
        click.echo(json.dumps({"account": found.name, "name": new.name, "signed_in": outcome.done, **told}))
    else:
        authorize.report(found.name, outcome, as_json=False)
        if new.password is None and not outcome.ended:
            click.echo(f"The password {new.name} of {found.name}, which counts once it is signed in:", err=True)
            click.echo(password.reveal())
    if not outcome.done:
        sys.exit(EXIT_NEEDS_PERSON)
