"""What `emailproxy register` asks when it is run bare on a terminal."""

from __future__ import annotations

from typing import Any

import click

from emailproxy.config.draft import STARTTLS_PORTS, TLS_PORTS
from emailproxy.config.model import FlowName, MailProtocol
from emailproxy.config.presets import PROVIDERS, Provider
from emailproxy.config.values import MAX_PORT


def ask(given: dict[str, Any]) -> dict[str, Any]:
    """Asks a person; an empty answer leaves a placeholder or the default."""
    click.echo("An empty answer takes what is in [brackets]; Ctrl-C leaves without writing anything.\n", err=True)
    other = "other"
    provider = click.prompt("Mail provider", type=click.Choice([*PROVIDERS, other]), default="microsoft", err=True)
    answers: dict[str, Any] = {"provider": None if provider == other else provider}
    if provider == other:
        answers |= _ask_of_an_unknown_provider()
    else:
        answers["oauth2_flow"] = _ask_for_the_flow(PROVIDERS[provider])
    account = "Account: one address, @domain, or @ for every user"
    answers["account"] = given["account"] or click.prompt(account, default="@", err=True)
    if answers.get("oauth2_flow") == FlowName.SERVICE_ACCOUNT:
        answers["service_account_key"] = click.prompt("Path of the service account's JSON key", err=True)
    else:
        answers |= _ask_for_the_client(provider, answers.get("oauth2_flow"))
    click.echo(err=True)
    return answers


def _ask_for_the_flow(provider: Provider) -> str | None:
    """One of the ways in that this provider has; None is a browser."""
    ways: dict[str, str | None] = {"browser": None}
    if provider.device_url:
        ways["device"] = FlowName.DEVICE.value
    if provider.application_scope:
        ways["application"] = FlowName.CLIENT_CREDENTIALS.value
    if provider.service_accounts:
        ways["service-account"] = FlowName.SERVICE_ACCOUNT.value
    if len(ways) == 1:
        return None
    question = "How to sign in: browser, device (a code, typed on another device), or with no person involved"
    return ways[click.prompt(question, type=click.Choice(list(ways)), default="browser", err=True)]


def _ask_for_the_client(provider: str, flow: str | None) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    if provider == "microsoft" and flow == FlowName.CLIENT_CREDENTIALS:
        answers["tenant"] = click.prompt("Tenant, its ID or domain", default="TENANT_ID", err=True)
    answers["oauth2_client_id"] = click.prompt("Client id, as the provider gave it", default="CLIENT_ID", err=True)
    secret = click.prompt(
        "Client secret (not shown; empty if there is none)", default="", hide_input=True, show_default=False, err=True
    )
    answers["oauth2_client_secret"] = secret or None
    return answers


def _ask_of_an_unknown_provider() -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for protocol in MailProtocol:
        name = protocol.lower()
        address = click.prompt(f"{protocol} server (empty for none)", default="", show_default=False, err=True).strip()
        if not address:
            continue
        answers[f"{name}_server_address"] = address
        starttls = click.confirm("  does it begin TLS by STARTTLS", default=False, err=True)
        answers[f"{name}_server_starttls"] = starttls
        usual = (STARTTLS_PORTS if starttls else TLS_PORTS)[protocol]
        answers[f"{name}_server_port"] = click.prompt(
            "  port", type=click.IntRange(1, MAX_PORT), default=usual, err=True
        )
    answers["oauth2_token_url"] = click.prompt("Token URL", err=True)
    permission_url = "Permission URL, where a person signs in (empty if the application opens the mailboxes itself)"
    answers["oauth2_permission_url"] = click.prompt(permission_url, default="", show_default=False, err=True)
    if not answers["oauth2_permission_url"].strip():
        answers["oauth2_flow"] = FlowName.CLIENT_CREDENTIALS.value
    answers["oauth2_scope"] = click.prompt("Scope", err=True)
    return answers
