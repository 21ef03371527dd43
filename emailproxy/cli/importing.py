"""`emailproxy import`: accounts and tokens from the files of other programs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from emailproxy.cli import merge, tables
from emailproxy.cli.main import EXIT_FAILED
from emailproxy.cli.merge import Merged, Outcome, Wanted
from emailproxy.cli.options import config_option, json_option, state_option
from emailproxy.cli.passwords import first_line
from emailproxy.config import catchall, edit, ini
from emailproxy.config import importing as formats
from emailproxy.config.draft import CATCH_ALL_KEY
from emailproxy.config.grants import KEY_FILE
from emailproxy.config.importing import ImportedAccount
from emailproxy.config.model import Config
from emailproxy.config.references import is_reference
from emailproxy.config.scan import MAX_FILE_OCTETS, shown
from emailproxy.config.section import SETTINGS_NAME
from emailproxy.config.values import BOOLEANS
from emailproxy.errors import EmailProxyError, system_words
from emailproxy.secret import Secret

if TYPE_CHECKING:
    from emailproxy.cli.handover import Kept

SETTINGS = (
    CATCH_ALL_KEY,
    "encrypt_client_secret_on_first_use",
    "use_login_password_as_client_credentials_secret",
)
"""Another proxy's settings for all accounts that mean the same here, where they are on."""
PATHS = ("jwt_certificate_path", "jwt_key_path", "local_certificate_path", "local_key_path")

EPILOG = """\b
Examples:
  emailproxy import --dry-run ~/emailproxy.config
  emailproxy import ~/.mutt/ada@example.com.tokens

\b
Questions:
  Is my file changed?           Never: it is only read.
  Which password do I use?      With another proxy's encrypted values the old one, which the first login proves.
                                Tokens that lie in the clear come under a generated password, shown here once,
                                or under the one of --password-file.
  What if I run it twice?       What is there already stays, unless --force is given.
"""


@dataclass(slots=True)
class Report:
    """What was found, and what became of it."""

    path: Path
    """Our configuration."""
    merged: Merged
    written: bool = False
    tokens: Mapping[str, Kept] = field(default_factory=dict)
    """What became of tokens that lie in the clear, by account."""


@dataclass(frozen=True, slots=True)
class Read:
    """All that the files hold."""

    sections: Sequence[Wanted]
    tokens: Sequence[ImportedAccount]
    """Accounts whose tokens are in the clear."""
    unread: Sequence[str]
    """What could not be read or has no counterpart here, with what to do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to become of tokens."""

    password: Secret | None
    """The local password that they come under; None: each account gets one of its own."""
    force: bool
    dry_run: bool


@click.command("import", epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, metavar="FILE...",
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--format", "format_name", type=click.Choice(formats.FORMATS),
              help="Whose files they are. Default: what they look like.")  # fmt: skip
@click.option("--password-file", type=click.File("r", encoding="utf-8-sig"), metavar="FILE",
              help="Keep tokens under the first line of this file as local password; - is standard input. Default: at "
              "a terminal one is generated for each account, else tokens are left out.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option("--force", is_flag=True, help="Replace sections, tokens and local passwords that are there already.")
@json_option
@config_option
@state_option
def importing(
    files: tuple[Path, ...],
    format_name: str | None,
    password_file: IO[str] | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
) -> None:
    """Take accounts over from the files of another program: an emailproxy.config, or the token files of mutt_oauth2,
    oama, pizauth or sasl-xoauth2.

    Accounts and servers become sections of emailproxy's own configuration. The files themselves are only read.
    """
    path = config_path or ini.own_file()
    password = None if password_file is None else first_line(password_file)
    read = _read(files, format_name, path)
    report = Report(path, merge.merge(path, read.sections, force=force))
    if report.merged.changes and not dry_run:
        _write(path, report.merged.text)
        report.written = True
    report.tokens = _keep(read.tokens, report, state_dir, Wish(password, force, dry_run))
    if as_json:
        click.echo(json.dumps(_facts(report, read), indent=2))
    else:
        _show(report, read, dry_run=dry_run)
    known = any(section.outcome is not Outcome.REFUSED for section in read.sections)
    if not known and not any(kept.stored for kept in report.tokens.values()):
        sys.exit(EXIT_FAILED)


# ---- reading


def _read(files: Sequence[Path], format_name: str | None, ours: Path) -> Read:
    """What the files hold together. What cannot be read is told, and the rest goes on."""
    names = [shown(str(file)) for file in files]
    for file, name in zip(files, names, strict=True):
        if ours.exists() and file.samefile(ours):
            raise click.UsageError(f"{name} is the configuration that would be written; name another one by --config")
    imported = formats.read_all([(_octets(file), str(file)) for file in files], format=format_name)
    source, base = ", ".join(names), files[0].parent
    sections = [Wanted(name, _rebased(values, base), source) for name, values in imported.sections.items()]
    settings = [section for section in sections if section.name == SETTINGS_NAME]
    for section in settings:
        section.values = {key: value for key, value in section.values.items() if key in SETTINGS and _is_on(value)}
    return Read(
        [
            *(section for section in settings if section.values),
            *(section for section in sections if section.name != SETTINGS_NAME),
            *(Wanted(account.name, _rebased(account.settings, base), source) for account in imported.accounts),
        ],
        [account for account in imported.accounts if account.refresh_token or account.access_token],
        imported.unread,
    )


def _is_on(value: str) -> bool:
    return BOOLEANS.get(value.casefold(), False)


def _octets(file: Path) -> bytes:
    """The file, or somewhat more of it than a configuration may have: then its reader says that it is too large."""
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_OCTETS + 1)
    except OSError as error:
        raise EmailProxyError(f"{shown(str(file))} cannot be read: {system_words(error)}") from None


def _rebased(settings: Mapping[str, str], base: Path) -> dict[str, str]:
    """The settings with whole paths: relative ones began at the folder of the file that they stood in."""
    paths = {*PATHS, "client_secret"} if settings.get("client_id", "").casefold() == KEY_FILE else {*PATHS}
    return {
        key: os.path.join(os.path.abspath(base), value) if _is_relative(key, value, paths) else value
        for key, value in settings.items()
    }


def _is_relative(key: str, value: str, paths: set[str]) -> bool:
    return key in paths and bool(value) and not value.startswith("~") and not is_reference(value)


# ---- keeping


def _write(path: Path, text: str) -> None:
    try:
        edit.write(path, text)
    except OSError as error:
        raise EmailProxyError(f"{path} cannot be written: {system_words(error)}; choose a place by --config") from None


def _keep(accounts: Sequence[ImportedAccount], report: Report, state_dir: Path | None, wish: Wish) -> dict[str, Kept]:
    """Seals the tokens of the accounts that our configuration has, if somebody will know their passwords."""
    from emailproxy.cli import handover

    config = report.merged.config
    ours = [account for account in accounts if _is_configured(config, account.name)]
    kept = {account.name: handover.Kept(False, "no such account is configured") for account in accounts}
    if wish.password is None and not sys.stdout.isatty():
        why = "there is no terminal to show a new local password at; run it on one, or give --password-file"
        return kept | {account.name: handover.Kept(False, why) for account in ours}
    place = state_dir or config.settings.state_dir
    if wish.dry_run:
        return kept | asyncio.run(handover.foresee(config, place, ours, force=wish.force))
    return kept | asyncio.run(handover.store(config, place, ours, wish.password, force=wish.force))


def _is_configured(config: Config, name: str) -> bool:
    return bool(catchall.chain(config.sections, name, catch_all=config.settings.allow_catch_all_accounts))


# ---- telling


def _facts(report: Report, read: Read) -> dict[str, Any]:
    """The outcome for programs."""
    return {
        "config": str(report.path),
        "written": report.written,
        "sections": [
            {"name": section.name, "outcome": section.outcome.value, "why": section.why} for section in read.sections
        ],
        "tokens": [_token_facts(name, kept) for name, kept in report.tokens.items()],
        "unread": list(read.unread),
        "placeholders": [str(left) for left in ini.placeholders(report.merged.config)],
        "notices": list(report.merged.config.notices),
    }


def _token_facts(name: str, kept: Kept) -> dict[str, Any]:
    facts = {"account": name, "stored": kept.stored, "why": kept.why}
    return facts | ({"password": kept.password.reveal()} if kept.password else {})


def _show(report: Report, read: Read, *, dry_run: bool) -> None:
    """The outcome for people."""
    console = tables.console()
    rows = list(_rows(report, read, dry_run=dry_run))
    if rows:
        tables.show(console, ("Found", "Outcome"), rows)
    for line in read.unread:
        tables.say(console, f"Not taken over: {line}")
    for left in ini.placeholders(report.merged.config):
        tables.say(console, f"To fill in: {left}")
    for notice in report.merged.config.notices:
        tables.say(console, f"Please note: {notice}")
    if dry_run:
        tables.say(console, f"Nothing was written; without --dry-run it would go to {report.path}.")
    elif report.written:
        tables.say(console, f"Wrote {report.path}. Next: emailproxy serve, or emailproxy reload if it runs.")
    generated = {name: kept.password for name, kept in report.tokens.items() if kept.password}
    if generated:
        tables.say(console, "These local passwords are shown here only; mail programs log in with them:")
    for name, password in generated.items():
        click.echo(f"{name}  {password.reveal()}")


def _rows(report: Report, read: Read, *, dry_run: bool) -> Iterator[tuple[str, str]]:
    would = "would be " if dry_run else ""
    for section in read.sections:
        outcome = f"{would if section.is_taken else ''}{section.outcome}"
        yield f"[{section.name}]", f"{outcome}{_because(section.why)}{_hint(section, report)}"
    for account, kept in report.tokens.items():
        yield f"tokens of {account}", f"{would}stored" if kept.stored else f"left out{_because(kept.why)}"


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _hint(section: Wanted, report: Report) -> str:
    moves = section.is_taken and section.name.casefold() in report.merged.config.cached
    return "; its tokens move at the first login with the old password" if moves else ""
