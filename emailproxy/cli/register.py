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
from emailproxy.config import edit, ini, keys, presets, repairs, values
from emailproxy.config.draft import (
    LOCAL_PORTS,
    STARTTLS_PORTS,
    TLS_PORTS,
    ServerWish,
    Wishes,
    account_values,
    draft,
)
from emailproxy.config.model import MailProtocol
from emailproxy.errors import EmailProxyError
from emailproxy.names import is_a_name

MAX_SECRET = 16_384  # characters; a service account's JSON, the longest secret there is, has 2,400

EPILOG = """\b
Examples:
  A provider that is known by name, one account:
    emailproxy register --provider=google --account=me@gmail.com \\
      --oauth2-client-id=ID --oauth2-client-secret-file=-
  Every mailbox of a Microsoft 365 tenant, no person involved:
    emailproxy register --provider=microsoft --oauth2-flow=client_credentials \\
      --oauth2-token-url=https://login.microsoftonline.com/TENANT/oauth2/v2.0/token \\
      --oauth2-client-id=ID --oauth2-client-secret-file=secret.txt
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
    f"One of {', '.join(keys.SUPPORTED_FLOWS)}. [default: authorization_code with a permission URL]",
)
@_option("OAuth 2.0", "--oauth2-client-id", "The client id that the provider gave you.")
@_option("OAuth 2.0", "--oauth2-client-secret", "Its secret. Other users can see it in the list of processes.")
@_option("OAuth 2.0", "--oauth2-client-secret-file", "A file that holds the secret; - is standard input.")
@_option("OAuth 2.0", "--redirect-uri", "Where the provider sends browsers. [default: http://localhost:8801/]")
@_option("OAuth 2.0", "--redirect-listen-address", "Where emailproxy listens for them, behind a reverse proxy.")
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
    path = config_path or next(iter(ini.search_path()), ini.user_file())
    wishes = _wishes(given)
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


def _wishes(given: dict[str, Any]) -> Wishes:
    provider = presets.PROVIDERS.get(given["provider"] or "")
    servers = {}
    for protocol in MailProtocol:
        wish = _server(given, protocol, provider)
        if wish:
            servers[protocol] = wish
    local_ports = [wish.local_port or LOCAL_PORTS[protocol] for protocol, wish in servers.items()]
    if len(set(local_ports)) < len(local_ports):
        raise click.UsageError("two servers cannot share a local port: change one --imap-, --pop- or --smtp-local-port")
    return Wishes(servers, _account_name(given["account"]), _account(given, provider))


def _server(given: dict[str, Any], protocol: MailProtocol, provider: presets.Provider | None) -> ServerWish | None:
    name = protocol.lower()
    address = _value("server_address", f"--{name}-server-address", given[f"{name}_server_address"])
    port, local_port = given[f"{name}_server_port"], given[f"{name}_local_port"]
    starttls = bool(given[f"{name}_server_starttls"])
    if address:
        return ServerWish(address, port, starttls, local_port)
    if provider:
        preset = provider.servers[protocol]
        return ServerWish(preset.address, port or preset.port, starttls or preset.starttls, local_port)
    if port or starttls or local_port:
        raise click.UsageError(f"--{name}-server-address is missing")
    return None


def _account(given: dict[str, Any], provider: presets.Provider | None) -> dict[str, str]:
    """The account's keys, or none where only servers are registered."""
    flags = {
        "token_url": "oauth2_token_url",
        "permission_url": "oauth2_permission_url",
        "oauth2_scope": "oauth2_scope",
        "oauth2_flow": "oauth2_flow",
        "client_id": "oauth2_client_id",
        "client_secret": "oauth2_client_secret",
        "redirect_uri": "redirect_uri",
        "redirect_listen_address": "redirect_listen_address",
    }
    given = given | {"oauth2_client_secret": _secret(given)}
    found = {key: _value(key, f"--{flag.replace('_', '-')}", given[flag]) for key, flag in flags.items()}
    cleaned = {key: value for key, value in found.items() if value}
    if not cleaned and not provider:
        return {}
    complete = account_values(cleaned, provider)
    missing = [key for key in ("token_url", "oauth2_scope") if key not in complete]
    if "permission_url" not in complete and "oauth2_flow" not in complete:
        missing.append("permission_url")
    if missing:
        names = ", ".join(f"--{flags[key].replace('_', '-')}" for key in missing)
        raise click.UsageError(f"{names} missing: give it, or a --provider that knows it")
    return complete


def _secret(given: dict[str, Any]) -> str | None:
    secret, file_name = given["oauth2_client_secret"], given["oauth2_client_secret_file"]
    if secret and file_name:
        raise click.UsageError("give --oauth2-client-secret or --oauth2-client-secret-file, not both")
    if not file_name:
        return str(secret) if secret else None
    try:
        with click.open_file(file_name, encoding="utf-8-sig") as file:
            text: str = file.read(MAX_SECRET + 1).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise click.BadParameter(reason, param_hint="--oauth2-client-secret-file") from None
    if not text or len(text) > MAX_SECRET:
        raise click.BadParameter("it holds no secret", param_hint="--oauth2-client-secret-file")
    return text


def _account_name(given: str | None) -> str:
    name = (given or "@").strip().strip("'\"").strip()
    if "@" not in name or not is_a_name(name) or any(mark in name for mark in "[]\n") or name[0] in "#;":
        raise click.BadParameter("write user@domain, @domain or @", param_hint="--account")
    return name


def _value(key: str, flag: str, given: str | None) -> str | None:
    """A pasted value as it was meant, checked as the file's reader would."""
    value = repairs.repair(key, given or "").value
    if not value or repairs.placeholder(key, value):
        return value or None
    reader: Callable[[str], Any] = values.host if key == "server_address" else keys.ACCOUNT_KEYS[key]
    if key == "oauth2_flow":
        reader = values.one_of(keys.SUPPORTED_FLOWS, keys.SUPPORTED_FLOWS)
    try:
        return str(reader(value))
    except values.Wrong as wrong:
        raise click.BadParameter(str(wrong), param_hint=flag) from None
