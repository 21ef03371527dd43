"""The local password, as commands are given it: by a file, or at a terminal without echo."""

from __future__ import annotations

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


def first_line(file: IO[str]) -> Secret:
    """The password of a `--password-file`.

    Raises:
        click.BadParameter: there is none.
    """
    try:
        line = file.readline(MAX_PASSWORD + 1).rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.BadParameter("it is not UTF-8 text", param_hint="--password-file") from None
    if not line or len(line) > MAX_PASSWORD:
        what = "is empty" if not line else f"has more than {MAX_PASSWORD} characters"
        raise click.BadParameter(f"its first line, the local password, {what}", param_hint="--password-file")
    return Secret(line)
