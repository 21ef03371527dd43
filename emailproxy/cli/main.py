"""The command line: a lazy group, so that `--help` stays quick, and the way from an error to an exit code."""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from emailproxy import __version__
from emailproxy.errors import ConfigError, EmailProxyError

EXIT_FAILED, EXIT_NEEDS_PERSON, EXIT_CONFIG = 1, 3, 78  # 78: sysexits' EX_CONFIG; 2, usage, is click's own

COMMANDS = {
    "serve": "Run the proxy: headless, in the foreground.",
    "register": "Write or extend the configuration; asks when run bare on a terminal.",
    "authorize": "Sign an account in now, with no mail program involved.",
    "logs": "Show the server's log; --consent lists what waits for a person.",
    "check": "Try every link of the chain, from the configuration to a real login; --json for monitoring.",
    "accounts": "List the accounts, with their state and last error; or make one forgotten.",
    "demo": "Try everything on this machine: an embedded provider and mailbox behind the real proxy.",
}
EPILOG = """\b
Start here:
  emailproxy demo                see it work, nothing to configure
  emailproxy register            write the configuration
  emailproxy serve               run the proxy
  emailproxy authorize ACCOUNT   sign an account in, and check that all works
  emailproxy logs --consent      the URLs that wait for a person

\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a person is needed, 78 the configuration is wrong.
"""


class LazyGroup(click.Group):
    """Imports a command's module only when the command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"emailproxy.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _complain(error)
            sys.exit(EXIT_CONFIG)
        except EmailProxyError as error:
            _complain(error)
            sys.exit(EXIT_FAILED)


def _complain(error: EmailProxyError) -> None:
    for line in str(error).splitlines():
        click.echo(f"emailproxy: {line}", err=True)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emailproxy")
def cli() -> None:
    """A local OAuth 2.0 proxy for IMAP, POP3 and SMTP.

    Mail programs that only know host, port, user name and password log in here; emailproxy logs in to the mail
    provider with an OAuth 2.0 access token and passes the mail through.
    """


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a name is no reason to end
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="emailproxy")
