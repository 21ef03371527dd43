"""The command line: a lazy group, so that `--help` stays quick, and the way from an error to an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from emailproxy import __version__
from emailproxy.errors import ConfigError, EmailProxyError, system_words

EXIT_FAILED, EXIT_NEEDS_PERSON, EXIT_CONFIG = 1, 3, 78  # 78: sysexits' EX_CONFIG; 2, usage, is click's own

COMMANDS = {
    "serve": "Run the proxy: headless, in the foreground.",
    "register": "Write or extend the configuration; asks when run bare on a terminal.",
    "authorize": "Sign an account in now, with no mail program involved.",
    "logs": "Show the server's log; --consent lists what waits for a person.",
    "check": "Try every link of the chain, from the configuration to a real login; --json for monitoring.",
    "status": "Show what the running server does: ports, accounts, ages of tokens, sessions; --json for monitoring.",
    "reload": "Have the running server read its configuration again; sessions that stand live on.",
    "accounts": "The accounts: their state and last error, their local passwords; or make one forgotten.",
    "import": "Take accounts and tokens over from another program's file; --dry-run shows it.",
    "certificate": "Make a certificate for clients that insist on TLS, and tell how they trust it.",
    "demo": "Try everything on this machine: an embedded provider and mailbox behind the real proxy.",
}
TRACEBACK = "EMAILPROXY_TRACEBACK"
"""The environment variable that shows the whole traceback of an error that no command expects."""

PRINTERS = ("click", "rich")
"""Packages that write to standard output and standard error, and to nothing else."""

MODULES = {"import": "importing"}  # where the command's own name cannot be a module's
AS_BEFORE = (
    "emailproxy --no-gui --external-auth --local-server-auth --config-file FILE --cache-store FILE --log-file FILE "
    "--debug: the server, started as another proxy is. The bare emailproxy serves the configuration that it finds."
)
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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._in_full(ctx, args))

    def _in_full(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The options that stand before any command, written out: another proxy's may be shortened."""
        known = [name for option in self.get_params(ctx) for name in option.opts if name.startswith("--")]
        full: list[str] = []
        for position, argument in enumerate(args):
            if argument in COMMANDS:
                return full + args[position:]
            given, equals, value = argument.partition("=")
            meant = [name for name in known if name.startswith(given)] if len(given) > len("--") else []
            exact = given in known or len(meant) != 1
            full.append(argument if exact else f"{meant[0]}{equals}{value}")
        return full

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = MODULES.get(cmd_name, cmd_name)
        command: click.Command = getattr(import_module(f"emailproxy.cli.{module}"), module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        with formatter.section("Also understood"):
            formatter.write_text(AS_BEFORE)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            complain(error)
            sys.exit(EXIT_CONFIG)
        except EmailProxyError as error:
            complain(error)
            sys.exit(EXIT_FAILED)


def complain(error: EmailProxyError | str) -> None:
    """Says on standard error what is wrong; where that cannot be written, the exit code says it alone."""
    with suppress(OSError):
        for line in str(error).splitlines():
            click.echo(f"emailproxy: {line}", err=True)


FILE = click.Path(dir_okay=False, readable=False, path_type=Path)


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="emailproxy")
@click.option("--no-gui", is_flag=True, hidden=True)
@click.option("--external-auth", is_flag=True, hidden=True)
@click.option("--local-server-auth", is_flag=True, hidden=True)
@click.option("--config-file", type=FILE, hidden=True)
@click.option("--cache-store", hidden=True)
@click.option("--log-file", type=FILE, hidden=True)
@click.option("--debug", is_flag=True, hidden=True)
@click.pass_context
def cli(ctx: click.Context, /, **given: Any) -> None:
    """A local OAuth 2.0 proxy for IMAP, POP3 and SMTP.

    Mail programs that only know host, port, user name and password log in here; emailproxy logs in to the mail
    provider with an OAuth 2.0 access token and passes the mail through.
    """
    said = ["--" + name.replace("_", "-") for name, value in given.items() if value]
    if ctx.invoked_subcommand is not None:
        if said:
            name = ctx.invoked_subcommand
            raise click.UsageError(
                f"{said[0]} goes with the bare command; the options of '{name}' stand behind its name"
            )
        return
    from emailproxy.cli import dropin

    wish = dropin.Wish(
        given["config_file"],
        given["cache_store"],
        given["log_file"],
        given["debug"],
        given["external_auth"],
        bool(said),
    )
    dropin.run(ctx, wish)


def main() -> None:
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a name is no reason to end
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="emailproxy")
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        complain(_unexpected(error))
        sys.exit(EXIT_FAILED)
    finally:
        _drop_unwritten()


def _open_closed() -> None:
    """Standard streams that the caller has closed become the null device, or the next socket gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives


def _drop_unwritten() -> None:
    """The interpreter would try again at its end, complain, and exit with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _unexpected(error: Exception) -> str:
    """One line about an error that no command expects. Others' words stay out: they might hold a secret."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {system_words(error)}"
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, OSError) and Path(place.filename).parent.name in PRINTERS:
        return f"the output cannot be written: {system_words(error)}"
    where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    return f"this is a fault of its own: {where}; run it again with {TRACEBACK}=1 in the environment to see all of it"
