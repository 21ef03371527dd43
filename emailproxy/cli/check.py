"""`emailproxy check`: the whole chain, link by link, with what to do about the first that is broken."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import click

from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.cli import logfile
from emailproxy.cli.main import EXIT_CONFIG, EXIT_FAILED, EXIT_NEEDS_PERSON
from emailproxy.cli.options import config_option, json_option, log_file_option, state_option
from emailproxy.cli.passwords import first_line, password_file_option
from emailproxy.config import catchall, ini
from emailproxy.config.model import Account, Config
from emailproxy.errors import ConfigError, Fault, LoginRefused
from emailproxy.secret import Secret

STYLES = {
    Grade.OK: "green",
    Grade.WARNING: "yellow",
    Grade.SKIPPED: "dim",
    Grade.NEEDS_PERSON: "bold yellow",
    Grade.FAILED: "bold red",
}
WIDTHS = (max(map(len, Grade)), max(map(len, Link)))  # of the first two columns
Show = Callable[[Finding], None]


@click.command()
@click.argument("account", required=False)
@password_file_option
@json_option
@config_option
@state_option
@log_file_option
def check(
    account: str | None,
    password_file: IO[str] | None,
    as_json: bool,
    config_path: Path | None,
    state_dir: Path | None,
    log_file: Path | None,
) -> None:
    """Try every link of the chain: configuration, DNS, TCP, TLS, the provider's endpoints, the token, a real login.

    Ends at the first broken link, and says what to do about it. With ACCOUNT and its local password the token is
    unlocked, and a login is tried at each server; without them, everything is checked that needs no password.

    Exit codes: 0 all is well, 1 a link is broken, 3 a person must sign in, 78 the configuration is wrong.
    """
    findings: list[Finding] = []
    show = findings.append if as_json else shown_as_found(findings)
    try:
        config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file)
        found = None if account is None else catchall.resolve(config, account)
    except ConfigError as error:
        for fault in error.faults:
            show(of_fault(fault))
        code = EXIT_CONFIG
    except LoginRefused as error:  # there is no such account, or it lacks something
        show(Finding(Link.CONFIGURATION, account or "", Grade.FAILED, str(error)))
        code = EXIT_FAILED
    else:
        password = None if found is None else given(found, password_file, ask=not as_json)
        with logfile.appended(config.settings.log_file):
            asyncio.run(run(config, found, password, show))
        code = exit_code(findings)
    if as_json:
        click.echo(json.dumps(document(findings, code), indent=2))
    sys.exit(code)


def given(account: Account, password_file: IO[str] | None, *, ask: bool) -> Secret | None:
    """The local password, as far as it can be had."""
    if password_file is not None and not password_file.isatty():
        return first_line(password_file)
    if not ask or not sys.stdin.isatty():
        return None
    typed = click.prompt(
        f"Local password of {account.name} (empty: none)", hide_input=True, default="", show_default=False
    )
    return Secret(typed) if typed else None


def after_sign_in(config: Config, account: Account, password: Secret, *, as_json: bool) -> int:
    """The same for `authorize`, once it is done: to standard error, or as a document of its own. The exit code."""
    findings: list[Finding] = []
    with logfile.appended(config.settings.log_file):
        show = findings.append if as_json else shown_as_found(findings, err=True)
        asyncio.run(run(config, account, password, show))
    code = exit_code(findings)
    if as_json:
        click.echo(json.dumps({"account": account.name, "check": document(findings, code)}))
    return code


async def run(config: Config, account: Account | None, password: Secret | None, show: Show) -> None:
    from emailproxy.check.chain import check as findings

    async for finding in findings(config, account, password):
        show(finding)


def of_fault(fault: Fault) -> Finding:
    """A fault of the file, as `serve` tells it."""
    place = f"{fault.file}:{fault.line}" if fault.line is not None else fault.file
    where = " ".join(filter(None, (f"[{fault.section}]" if fault.section else "", fault.key or "")))
    text = f"{where}: {fault.what}" if where else fault.what
    return Finding(Link.CONFIGURATION, place, Grade.FAILED, text, fault.mend)


def exit_code(findings: Iterable[Finding]) -> int:
    grades = {finding.grade for finding in findings}
    if Grade.FAILED in grades:
        return EXIT_FAILED
    return EXIT_NEEDS_PERSON if Grade.NEEDS_PERSON in grades else 0


def document(findings: Iterable[Finding], code: int) -> dict[str, object]:
    return {"ok": code == 0, "exit_code": code, "findings": [finding.as_json() for finding in findings]}


def shown_as_found(findings: list[Finding], *, err: bool = False) -> Show:
    """Prints each finding as it comes, and keeps it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=err, highlight=False, soft_wrap=True)

    def show(finding: Finding) -> None:
        findings.append(finding)
        about = f"{finding.about}: " if finding.about else ""
        console.print(
            Text.assemble(
                (f"{finding.grade:<{WIDTHS[0]}}  ", STYLES[finding.grade]),
                f"{finding.link:<{WIDTHS[1]}}  {about}{finding.text}",
            )
        )
        if finding.action:
            console.print(Text(f"{'':{sum(WIDTHS) + 4}}-> {finding.action}"))

    return show
