"""Local passwords, as commands are given them: by a file, or at a terminal without echo."""

from __future__ import annotations

import sys
from typing import IO

import click

from emailproxy.config.model import KIB
from emailproxy.secret import Secret

MAX_PASSWORD = 4 * KIB  # characters; beyond it somebody named the wrong file

password_file_option = click.option(
    "--password-file",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="Read the local password from the first line of this file; - is standard input. Default: asked for.",
)

new_password_option = click.option(
    "--password-file",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="Take the first line of this file as the new password; - is standard input. Default: one is generated.",
)
ask_option = click.option("--ask", is_flag=True, help="Ask for the new password at the terminal.")
unlock_option = click.option(
    "--unlock-file",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="Read the existing password from the first line of this file; - is standard input. Default: asked for.",
)


def first_line(file: IO[str], option: str = "--password-file") -> Secret:
    """The password of a file that this option names.

    Raises:
        click.BadParameter: there is none.
    """
    try:
        line = file.readline(MAX_PASSWORD + 1).rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.BadParameter("it is not UTF-8 text", param_hint=option) from None
    if not line or len(line) > MAX_PASSWORD:
        what = "is empty" if not line else f"has more than {MAX_PASSWORD} characters"
        raise click.BadParameter(f"its first line, the local password, {what}", param_hint=option)
    return Secret(line)


def check_inputs(password_file: IO[str] | None, unlock_file: IO[str] | None, *, ask: bool) -> None:
    """Whether the new password comes from one place, and the existing one from another."""
    if password_file is not None and ask:
        raise click.UsageError("--ask and --password-file do not go together")
    if password_file is not None and unlock_file is not None and _is_stdin(password_file) and _is_stdin(unlock_file):
        raise click.UsageError(
            "--password-file and --unlock-file cannot both be standard input: give one of them by a file"
        )


def _is_stdin(file: IO[str]) -> bool:
    return getattr(file, "name", "<stdin>") == "<stdin>"


def chosen(password_file: IO[str] | None, *, ask: bool) -> Secret | None:
    """The new password as it is given; None: it is to be generated."""
    if password_file is not None:
        return first_line(password_file)
    if not ask:
        return None
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the new password: give --password-file")
    return Secret(click.prompt("New local password", hide_input=True, confirmation_prompt=True, err=True))


def existing(account: str, unlock_file: IO[str] | None, else_: str) -> Secret:
    """The password that unlocks the account; `else_` says what to do where it is not to be had."""
    if unlock_file is not None:
        return first_line(unlock_file, "--unlock-file")
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"an existing password of {account} is needed: give it by --unlock-file, or run this on a terminal. {else_}"
        )
    return Secret(click.prompt(f"An existing local password of {account}", hide_input=True, err=True))
