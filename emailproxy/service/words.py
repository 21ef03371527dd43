"""A listening section in the words that people search logs for."""

from __future__ import annotations

from collections.abc import Iterable

from emailproxy.config.model import LocalStartTls, MailServer, Server


def started(server: Server, addresses: Iterable[tuple[str, int]]) -> list[str]:
    """A line for each address that a section listens on, as people search logs for them."""
    return [
        f"Starting {server.protocol} server at {place(host, port)} ({local_security(server)}) proxying {beyond(server)}"
        for host, port in addresses
    ]


def place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_security(server: Server) -> str:
    """What protects the client's side."""
    if server.local_certificate is None:
        return "unsecured"
    return "SSL/TLS" if server.local_starttls is LocalStartTls.OFF else "STARTTLS"


def beyond(server: Server) -> str:
    target = server.target
    return "each account's own server" if target is None else described(target)


def described(target: MailServer) -> str:
    return f"{place(target.address, target.port)} ({'STARTTLS' if target.starttls else 'SSL/TLS'})"
