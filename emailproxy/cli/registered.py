"""What `emailproxy register` tells when it is done: what is left to do, and how clients reach the proxy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from emailproxy.config import catchall, edit, grants, ini
from emailproxy.config.draft import Draft, Wishes
from emailproxy.config.hosts import host_and_port
from emailproxy.config.model import DEFAULT_REDIRECT_URI, FlowName, MailProtocol, Server

SAMPLE_DOMAIN = "example.com"
LOCAL_PASSWORD = "any password: the first one you use becomes the local password"  # noqa: S105 - advice

OWN_PASSWORD = "the mailbox's own password, which the provider checks"  # noqa: S105 - advice


def facts(path: Path, wishes: Wishes, draft: Draft, *, written: bool) -> dict[str, Any]:
    """The outcome for programs."""
    return {
        "config": str(path),
        "written": written,
        "sections": list(draft.changed),
        "removed": list(draft.removed),
        "placeholders": [
            {"line": left.line, "section": left.section, "key": left.key, "what": left.what}
            for left in ini.placeholders(draft.config)
        ],
        "notices": list(draft.config.notices),
        "clients": [
            {"protocol": server.protocol.value, "host": _local_host(server), "port": server.local_port}
            for server in draft.config.servers
        ],
        **({} if written else {"text": edit.masked(draft.text)}),
    }


def summary(path: Path, wishes: Wishes, draft: Draft, *, written: bool, config_flag: str) -> str:
    """The outcome for people; `config_flag` is what the next commands need to find the file."""
    sections = ", ".join(f"[{name}]" for name in draft.changed) or "nothing new"
    lines = [f"{'Wrote' if written else 'Would write'} {path}: {sections}"]
    lines += [f"Dropped {key}, which the new section does not have" for key in draft.removed]
    left = ini.placeholders(draft.config)
    if left:
        lines += ["", "Fill these in before emailproxy serve:", *(f"  {fault}" for fault in left)]
    if draft.config.notices:
        lines += ["", "Please note:", *(f"  {notice}" for notice in draft.config.notices)]
    user = _sample_user(wishes.account)
    flow = _flow(draft, wishes.account)
    lines += _clients(draft.config.servers, user, OWN_PASSWORD if flow is FlowName.PASSWORD else LOCAL_PASSWORD)
    if flow is FlowName.AUTHORIZATION_CODE and wishes.account_values:
        uri = wishes.account_values.get("redirect_uri", DEFAULT_REDIRECT_URI)
        lines += ["", f"The provider must know this redirect URI of your application: {uri}"]
    lines += ["", "Next:", f"  emailproxy serve{config_flag}"]
    if wishes.account_values:
        lines.append(f"  emailproxy authorize {shlex.quote(user)}{config_flag}")
    if flow in (FlowName.AUTHORIZATION_CODE, FlowName.DEVICE):
        lines.append(f"  emailproxy logs --consent{config_flag}")
    return "\n".join(lines)


def _clients(servers: tuple[Server, ...], user: str, password: str) -> list[str]:
    if not servers:
        return ["", "There is no server yet: run register again with --imap-server-address or --provider."]
    lines = ["", "Point mail programs at it, without TLS or SSL:"]
    lines += [f"  {s.protocol:<4}  host {_local_host(s)}, port {s.local_port}" for s in servers]
    lines += [f"  user name {user}", f"  {password}"]
    return [*lines, "", "For example, while emailproxy serve runs:", f"  {_example(servers[0], user)}"]


def _example(server: Server, user: str) -> str:
    """A command that logs in through the proxy; curl asks for the password."""
    address = host_and_port(_local_host(server), server.local_port)
    login = f"curl --user {shlex.quote(user)}"
    match server.protocol:
        case MailProtocol.IMAP:
            return f"{login} imap://{address}/INBOX"
        case MailProtocol.POP:
            return f"{login} pop3://{address}/"
        case MailProtocol.SMTP:
            sender = shlex.quote(user)
            return f"{login} --mail-from {sender} --mail-rcpt {sender} --upload-file message.eml smtp://{address}"


def _local_host(server: Server) -> str:
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told, not bound
    address = server.local_address or "127.0.0.1"
    return wildcards.get(address, address)


def _sample_user(account: str) -> str:
    return f"user{account if len(account) > 1 else f'@{SAMPLE_DOMAIN}'}" if account.startswith("@") else account


def _flow(draft: Draft, account: str) -> FlowName | None:
    sections = draft.config.sections
    catch_all = draft.config.settings.allow_catch_all_accounts
    return grants.flow_of(catchall.merge(sections, catchall.chain(sections, account, catch_all=catch_all)))[0]
