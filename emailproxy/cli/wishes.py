"""What the options of `emailproxy register` mean: sections to write, every value checked as the file's reader would."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from emailproxy.config import grants, keys, presets, references, repairs, values
from emailproxy.config.draft import LOCAL_PORTS, ServerWish, Wishes, account_values
from emailproxy.config.model import FlowName, MailProtocol
from emailproxy.config.values import Wrong
from emailproxy.names import is_a_name

MAX_SECRET = 16_384  # characters; a service account's JSON, the longest secret there is, has 2,400

FLAGS = {
    "token_url": "--oauth2-token-url",
    "permission_url": "--oauth2-permission-url",
    "oauth2_scope": "--oauth2-scope",
    "oauth2_resource": "--oauth2-resource",
    "oauth2_flow": "--oauth2-flow",
    "client_id": "--oauth2-client-id",
    "client_secret": "--oauth2-client-secret",
    "redirect_uri": "--redirect-uri",
    "redirect_listen_address": "--redirect-listen-address",
    "jwt_certificate_path": "--jwt-certificate-path",
    "jwt_key_path": "--jwt-key-path",
    "jwt_key_passphrase": "--jwt-key-passphrase",
    "client_assertion_file": "--client-assertion-file",
    "managed_identity": "--managed-identity",
    "service_account_email": "--service-account-email",
    "token_command": "--token-command",
}
"""An account's keys and their options."""

IMPLIED_FLOWS = {
    "managed_identity": FlowName.CLIENT_CREDENTIALS,
    "service_account_email": FlowName.SERVICE_ACCOUNT,
    "token_command": FlowName.TOKEN_COMMAND,
}
"""Keys that only one flow has a use for."""


def wishes_of(given: dict[str, Any]) -> Wishes:
    """The sections that the options ask for.

    Raises:
        UsageError: they do not fit together, or a value is wrong.
    """
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
    texts = {key: given[_parameter(flag)] for key, flag in FLAGS.items()}
    texts |= {"client_secret": _secret(given), "token_command": _command(given["token_command"])}
    found = {key: _value(key, FLAGS[key], text) for key, text in texts.items()}
    cleaned = {key: value for key, value in found.items() if value}
    if given["service_account_key"]:
        cleaned |= _key_file(given, cleaned)
    tenant = _value("tenant", "--tenant", given["tenant"])
    provider = _provider_of_tenant(provider) if tenant else provider
    if not cleaned and not provider:
        return {}
    implied = next((flow.value for key, flow in IMPLIED_FLOWS.items() if key in cleaned), None)
    if implied:
        cleaned.setdefault("oauth2_flow", implied)
    _check_flow(cleaned, provider)
    complete = account_values(cleaned, provider, tenant)
    _check(complete)
    return complete


def _parameter(flag: str) -> str:
    """The name by which click hands an option over."""
    return flag.removeprefix("--").replace("-", "_")


def _provider_of_tenant(provider: presets.Provider | None) -> presets.Provider:
    if provider not in (None, presets.MICROSOFT):
        raise click.UsageError("--tenant is Microsoft's: leave it out, or give --provider=microsoft")
    return presets.MICROSOFT


def _key_file(given: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    """A service account's key, by its path."""
    taken = {"client_id", "client_secret"} & values.keys()
    if taken:
        raise click.UsageError(f"give --service-account-key or {FLAGS[min(taken)]}, not both")
    try:
        path = references.existing_file(Path.cwd())(given["service_account_key"].strip())
    except Wrong as wrong:
        raise click.BadParameter(str(wrong), param_hint="--service-account-key") from None
    flow = {} if "oauth2_flow" in values else {"oauth2_flow": FlowName.SERVICE_ACCOUNT.value}
    return {**flow, "client_id": grants.KEY_FILE, "client_secret": str(path)}


def _check_flow(given: dict[str, str], provider: presets.Provider | None) -> None:
    """Refuses a flow that the provider does not have, unless its endpoint is given, too."""
    flow = given.get("oauth2_flow")
    if provider is None or flow is None:
        return
    if flow == FlowName.SERVICE_ACCOUNT and not provider.service_accounts:
        raise click.UsageError("service accounts are Google's: give --provider=google, or another --oauth2-flow")
    without_device = flow == FlowName.DEVICE and not (provider.device_url or "permission_url" in given)
    no_application = flow == FlowName.CLIENT_CREDENTIALS and not (provider.application_scope or "token_url" in given)
    if without_device or no_application:
        raise click.UsageError(f"of the known providers only microsoft has {flow} for mail: give another --oauth2-flow")


def _check(complete: dict[str, str]) -> None:
    """Refuses an account that could not be used once its placeholders are filled in."""
    readers = keys.account_keys(Path.cwd())
    typed = {}
    for key, text in complete.items():
        try:
            typed[key] = readers[key](text)
        except Wrong:  # a placeholder
            typed[key] = text
    found = grants.problems(typed)
    lacking = [problem.key for problem in found if problem.key not in complete]
    if lacking:
        names = ", ".join(FLAGS["permission_url" if key == "oauth2_flow" else key] for key in lacking)
        raise click.UsageError(f"{names} missing; give each, or name a --provider")
    for problem in found:
        raise click.BadParameter(f"{problem.what}; {problem.mend}", param_hint=FLAGS.get(problem.key, "--provider"))


def _command(given: str | None) -> str | None:
    """A program and its arguments, as JSON or as a shell would take them apart."""
    if not given or given.lstrip().startswith("["):
        return given
    try:
        return json.dumps(shlex.split(given))
    except ValueError as error:
        raise click.BadParameter(f"{error}", param_hint=FLAGS["token_command"]) from None


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
    """A pasted value as it was meant, checked as the file's reader would, on one line; relative paths begin here."""
    value = repairs.repair(key, given or "").value
    if not value or repairs.placeholder(key, value):
        return value or None
    reader = values.host if key == "server_address" else keys.account_keys(Path.cwd())[key]
    try:
        meant = reader(value)
    except Wrong as wrong:
        raise click.BadParameter(str(wrong), param_hint=flag) from None
    return str(meant) if isinstance(meant, str | Path) else " ".join(value.splitlines())
