"""`emailproxy register`: writes or extends the configuration."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from emailproxy.cli.interview import ask
from emailproxy.cli.options import config_option, json_option
from emailproxy.cli.registered import facts, summary
from emailproxy.cli.wishes import wishes_of
from emailproxy.config import edit, ini, presets, values
from emailproxy.config.draft import LOCAL_PORTS, STARTTLS_PORTS, TLS_PORTS, draft
from emailproxy.config.model import FlowName, MailProtocol
from emailproxy.errors import EmailProxyError

SOURCES = ", or env:NAME, or keyring:SERVICE/NAME"
SEEN = "Other users can see it in the list of processes."

EPILOG = """\b
Examples:
  A provider that is known by name, one account:
    emailproxy register --provider=google --account=me@gmail.com \\
      --oauth2-client-id=ID --oauth2-client-secret-file=-
  Every mailbox of a Microsoft 365 tenant, no person involved:
    emailproxy register --provider=microsoft --tenant=contoso.onmicrosoft.com \\
      --oauth2-flow=client_credentials --oauth2-client-id=ID \\
      --jwt-certificate-path=client.pem --jwt-key-path=client.key
  Every mailbox of a Google Workspace domain:
    emailproxy register --provider=google --account=@example.com \\
      --service-account-key=key.json
  Tokens from another program:
    emailproxy register --imap-server-address=imap.example.com \\
      --token-command="mytool token"
  See what would be written:
    emailproxy register --provider=yahoo --dry-run

\b
Questions:
  What do I still have to fill in?   It says so at the end; serve refuses what is left.
  Will it overwrite my file?         Never a section, unless --force is given; comments survive.
  Where is the file?                 --config; else the first there is; else the user's own.
  What is --account=@?               Every user name without a section of its own.
"""


class GroupedOption(click.Option):
    """An option that `--help` lists under a heading."""

    def __init__(self, *args: Any, heading: str = "Options", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.heading = heading


class GroupedCommand(click.Command):
    """A command whose `--help` lists options under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                groups.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _option(heading: str, name: str, help_text: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(name, cls=GroupedOption, heading=heading, help=help_text, **attributes)


def _server_options(command: Any) -> Any:
    for protocol in reversed(MailProtocol):
        name, heading = protocol.lower(), f"{protocol} server"
        ports = f"{TLS_PORTS[protocol]}, or {STARTTLS_PORTS[protocol]} with STARTTLS"
        port = click.IntRange(1, values.MAX_PORT)
        local = f"Where clients connect. [default: {LOCAL_PORTS[protocol]}]"
        command = _option(heading, f"--{name}-local-port", local, type=port, metavar="PORT")(command)
        starttls = "Begin TLS by STARTTLS; without this flag TLS is spoken from the first byte."
        command = _option(heading, f"--{name}-server-starttls", starttls, is_flag=True)(command)
        command = _option(heading, f"--{name}-server-port", f"[default: {ports}]", type=port, metavar="PORT")(command)
        command = _option(heading, f"--{name}-server-address", "The provider's host name.", metavar="HOST")(command)
    return command


@click.command(cls=GroupedCommand, epilog=EPILOG)
@_option("Provider", "--provider", "Fill in servers and endpoints.", type=click.Choice(list(presets.PROVIDERS)))
@_server_options
@_option("OAuth 2.0", "--oauth2-token-url", "The token endpoint.")
@_option("OAuth 2.0", "--oauth2-permission-url", "The authorization endpoint, where a person signs in.")
@_option("OAuth 2.0", "--oauth2-scope", "The scopes, with spaces between them.")
@_option(
    "OAuth 2.0",
    "--oauth2-flow",
    f"One of {', '.join(FlowName)}. [default: authorization_code with a permission URL]",
)
@_option("OAuth 2.0", "--oauth2-client-id", "The client id that the provider gave you.")
@_option("OAuth 2.0", "--oauth2-client-secret", f"Its secret{SOURCES}. {SEEN}")
@_option(
    "OAuth 2.0", "--oauth2-client-secret-file", "A file to copy the secret from; - is standard input.", metavar="FILE"
)
@_option("OAuth 2.0", "--redirect-uri", "Where the provider sends browsers. [default: http://localhost:8801/]")
@_option("OAuth 2.0", "--redirect-listen-address", "Where emailproxy listens for them, behind a reverse proxy.")
@_option("Other ways in", "--tenant", "Microsoft: the tenant's ID or domain, or common, organizations or consumers.")
@_option("Other ways in", "--oauth2-resource", "With the password flow: the resource, in place of scopes.")
@_option(
    "Other ways in",
    "--jwt-certificate-path",
    "In place of a secret: the client's certificate, PEM or PFX.",
    metavar="FILE",
)
@_option(
    "Other ways in", "--jwt-key-path", "Its private key, where the certificate's file does not hold it.", metavar="FILE"
)
@_option("Other ways in", "--jwt-key-passphrase", f"The passphrase of either{SOURCES}. {SEEN}")
@_option(
    "Other ways in",
    "--client-assertion-file",
    "In place of a secret: a token that the platform renews.",
    metavar="FILE",
)
@_option("Other ways in", "--managed-identity", "Azure: system, or the client ID of a user-assigned identity.")
@_option("Other ways in", "--service-account-key", "Google: the JSON key of a service account.", metavar="FILE")
@_option("Other ways in", "--service-account-email", "Google: the service account to act as, without a key of its own.")
@_option("Other ways in", "--token-command", "A program with its arguments that prints access tokens.")
@_option("Account", "--account", "user@domain, @domain, or @ for every user. [default: @]")
@config_option
@click.option("--dry-run", is_flag=True, help="Print the file, secrets hidden, and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite sections that are there already.")
@json_option
def register(config_path: Path | None, dry_run: bool, force: bool, as_json: bool, **given: Any) -> None:
    """Write or extend the configuration.

    Spaces, quotes and Markdown links around pasted values are dropped. Run bare on a terminal, it asks.
    """
    if not _says_something(given):
        if not sys.stdin.isatty():
            raise click.UsageError("nothing to register: name a --provider or servers, or run it on a terminal")
        given |= ask(given)
    path = config_path or ini.own_file()
    wishes = wishes_of(given)
    result = draft(path, wishes, force=force)
    if not dry_run:
        try:
            edit.write(path, result.text)
        except OSError as error:
            raise EmailProxyError(f"{path} cannot be written: {error.strerror}; choose a place by --config") from None
    if as_json:
        click.echo(json.dumps(facts(path, wishes, result, written=not dry_run), indent=2))
        return
    if dry_run:
        click.echo(edit.masked(result.text))
    config_flag = f" --config={shlex.quote(str(config_path))}" if config_path else ""
    click.echo(summary(path, wishes, result, written=not dry_run, config_flag=config_flag))


def _says_something(given: dict[str, Any]) -> bool:
    return any(value for name, value in given.items() if name != "account" and not name.endswith("_local_port"))
