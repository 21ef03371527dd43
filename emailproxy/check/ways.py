"""Which listening sections an account can use, and the mail server behind each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.config import catchall
from emailproxy.config.model import Account, Config, MailServer, ProviderName, Server
from emailproxy.config.presets import PROVIDERS
from emailproxy.net.section import OPTIONS


@dataclass(frozen=True, slots=True)
class Way:
    """From a listening section to a mail server: the section's own, or an account's."""

    server: Server
    target: MailServer
    option: str = "server_address and server_port"
    """What names the mail server."""

    @property
    def about(self) -> str:
        return f"{self.server.section} at {self.target.address}"


def ways_of(config: Config, account: Account | None) -> tuple[Way, ...]:
    """What an account can log in to; without one, all that there is. Servers that are known to be another provider's
    are left out."""
    fixed = [Way(server, target) for server in config.servers if (target := server.target) is not None]
    if account is not None:
        owners = {host.address: name for name, known in PROVIDERS.items() for host in known.servers.values()}
        mine = provider_of(account)
        fitting = [way for way in fixed if owners.get(way.target.address.casefold()) in (None, mine)]
        fixed = fitting if mine is not None and fitting else fixed
    asked = catchall.accounts(config) if account is None else (account,)
    found = {(way.server.section, way.target): way for way in fixed}
    for way in own_ways(config, asked):
        found.setdefault((way.server.section, way.target), way)
    order = [server.section for server in config.servers]
    return tuple(sorted(found.values(), key=lambda way: order.index(way.server.section)))


def own_ways(config: Config, accounts: Sequence[Account]) -> Iterator[Way]:
    """Those to the accounts' own servers."""
    for server in config.servers:
        if server.target is None:
            for account in accounts:
                target = account.server_for(server.protocol)
                if target is not None:
                    yield Way(server, target, OPTIONS[server.protocol])


def without_way(config: Config, account: Account) -> Iterator[Finding]:
    """The sections that leave the server to the account, which names none."""
    for server in config.servers:
        if server.target is None and account.server_for(server.protocol) is None:
            option = OPTIONS[server.protocol]
            text = f"{account.name} has no {option}, and [{server.section}] no server_address"
            mend = f"if it is to be used there, set {option} = HOST:PORT in [{account.section}]"
            yield Finding(Link.CONFIGURATION, server.section, Grade.SKIPPED, text, mend)


def provider_of(account: Account) -> str | None:
    """The provider, by a name of `register`'s; None where it is another."""
    if account.provider is not ProviderName.GENERIC:
        return account.provider.value
    host = urlsplit(account.token_url).netloc
    return next((name for name, known in PROVIDERS.items() if urlsplit(known.token_url).netloc == host), None)
