"""The bare command: the server, as another proxy's command line starts it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from emailproxy.config import ini
from emailproxy.errors import ConfigError, Fault


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says."""

    config_file: Path | None
    cache_store: str | None
    log_file: Path | None
    debug: bool
    external_auth: bool
    says_something: bool
    """Whether there is any option at all."""


def run(ctx: click.Context, wish: Wish) -> None:
    """Runs the server; with nothing said and no configuration, tells how to begin.

    Raises:
        ConfigError: there is no configuration, or the cache is where it cannot be read.
    """
    cache_store = _cache_file(wish.cache_store)
    if not wish.says_something and not ini.search_path():
        click.echo(f"{ctx.get_help()}\n\nThere is no configuration yet: start as above.", err=True)
        ctx.exit(2)
    path = ini.find(wish.config_file, drop_in=wish.says_something)
    for notice in _notices(wish, path):
        click.echo(f"emailproxy: {notice}", err=True)
    from emailproxy.cli import serve

    serve.run(path, state_dir=None, log_file=wish.log_file, debug=wish.debug, cache_store=cache_store)


def _notices(wish: Wish, path: Path) -> Iterator[str]:
    """What is otherwise here than the options say."""
    if wish.external_auth:
        yield (
            "--external-auth: to finish a sign-in by pasting where the browser ended, run "
            f"'emailproxy authorize ACCOUNT --paste --config {shlex.quote(str(path))}' beside this server"
        )
    if wish.cache_store:
        yield (
            f"--cache-store: {wish.cache_store} is read and never written; an account's tokens move to emailproxy's "
            "own state folder at its first login"
        )


def _cache_file(store: str | None) -> Path | None:
    """The file of `--cache-store`, which may name a secrets manager instead."""
    if store is None or not store.startswith("aws:"):
        return None if store is None else Path(store)
    what = "a cache in AWS Secrets Manager is not supported yet"
    mend = (
        "leave the option out, and sign each account in with emailproxy authorize ACCOUNT; or write the secret's "
        "values to a file, as [ACCOUNT] sections of KEY = VALUE, and name that"
    )
    raise ConfigError((Fault("--cache-store", None, None, None, what, mend),))
