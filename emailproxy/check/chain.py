"""The chain: each kind of link is tried for all that it concerns, and the next only where none is broken."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sized
from contextlib import aclosing
from urllib.parse import urlsplit

from emailproxy.check import accounts as state_of
from emailproxy.check.endpoints import endpoints
from emailproxy.check.finding import Finding, Grade, Link, refused
from emailproxy.check.logins import log_in
from emailproxy.check.network import Place, reach
from emailproxy.config import catchall
from emailproxy.config.model import Account, Config, ProviderName, Server
from emailproxy.config.presets import PROVIDERS
from emailproxy.config.sources import HookCommand
from emailproxy.errors import LoginRefused, StateError
from emailproxy.net.dial import Dialer
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Approval
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from emailproxy.service import Authority

NO_PASSWORD = "no local password was given, so that nothing is unlocked and nobody logs in"  # noqa: S105 - a sentence
NO_ACCOUNT = "name an account to have a login tried"


async def check(config: Config, account: Account | None, password: Secret | None = None) -> AsyncIterator[Finding]:
    """Goes down the chain, and ends at the first broken link.

    Args:
        account: whose login to try; without one, what can be told of all accounts is.
        password: its local password; without it the chain ends before the token is unlocked.
    """
    dialer = Dialer()
    try:
        async with aclosing(links(config, account, password, dialer)) as findings:
            async for finding in findings:
                yield finding
    finally:
        dialer.close()


async def links(
    config: Config, account: Account | None, password: Secret | None, dialer: Dialer
) -> AsyncGenerator[Finding, None]:
    concerned: list[Account] = []
    async for finding in configuration(config, account, concerned):
        yield finding
        if finding.breaks:
            return
    servers = servers_of(config, account)
    stages = (
        reached(dialer, servers),
        endpoints(dialer, concerned, config.settings.ca_file),
        known(config, concerned),
    )
    for stage in stages:
        broken = False
        async for finding in stage:
            yield finding
            broken = broken or finding.breaks
        if broken:
            return
    if account is None or password is None:
        about = "" if account is None else account.name
        yield Finding(Link.LOGIN, about, Grade.SKIPPED, NO_ACCOUNT if account is None else NO_PASSWORD)
        return
    async for finding in unlocked(config, account, password, servers, dialer):
        yield finding


async def configuration(config: Config, account: Account | None, concerned: list[Account]) -> AsyncIterator[Finding]:
    """What the file says; its faults have been told by whoever read it. Fills in the accounts that it is about."""
    about = str(config.path)
    for notice in config.notices:
        yield Finding(Link.CONFIGURATION, "", Grade.WARNING, notice)  # it names the place itself
    try:
        concerned += catchall.accounts(config) if account is None else (account,)
    except LoginRefused as error:
        yield refused(Link.CONFIGURATION, about, error)
        return
    for what, program in programs(config, concerned):
        if shutil.which(program) is None:
            text = f"{what}: no program {program} can be run here"
            yield Finding(Link.CONFIGURATION, about, Grade.WARNING, text, "give its full path, or install it")
    facts = {"servers": len(config.servers), "accounts": len(concerned)}
    configured = (counted(config.servers, "server"), counted(catchall.accounts(config), "account"))
    text = f"{' and '.join(configured)}"
    yield Finding(Link.CONFIGURATION, about, Grade.OK, text, facts=facts)


def programs(config: Config, concerned: Iterable[Account]) -> Iterator[tuple[str, str]]:
    """The programs that hooks and accounts run, each with the key that names it."""
    for key, hook in config.settings:
        if isinstance(hook, HookCommand):
            yield f"[emailproxy] {key}", hook.arguments[0]
    for account in concerned:
        if account.token_command:
            yield f"[{account.section}] token_command", account.token_command[0]


def counted(what: Sized, name: str) -> str:
    return f"{len(what)} {name}{'' if len(what) == 1 else 's'}"


def servers_of(config: Config, account: Account | None) -> tuple[Server, ...]:
    """The servers that an account can log in to: not those that are known to be another provider's."""
    if account is None:
        return config.servers
    owners = {host.address: name for name, known in PROVIDERS.items() for host in known.servers.values()}
    mine = provider_of(account)
    fitting = [server for server in config.servers if owners.get(server.server_address.casefold()) in (None, mine)]
    return tuple(fitting) if mine is not None and fitting else config.servers


def provider_of(account: Account) -> str | None:
    """The provider, by a name of `register`'s; None where it is another."""
    if account.provider is not ProviderName.GENERIC:
        return account.provider.value
    host = urlsplit(account.token_url).netloc
    return next((name for name, known in PROVIDERS.items() if urlsplit(known.token_url).netloc == host), None)


async def reached(dialer: Dialer, servers: Iterable[Server]) -> AsyncIterator[Finding]:
    for server in servers:
        place = Place(
            f"{server.section} at {server.server_address}",
            server.server_address,
            server.server_port,
            starttls=server.protocol if server.server_starttls else None,
            ca_file=server.ca_file,
        )
        async for finding in reach(dialer, place):
            yield finding


async def known(config: Config, concerned: Iterable[Account]) -> AsyncIterator[Finding]:
    """Certificates, and the state of each account, as far as it needs no password."""
    secrets = Secrets(Commands(config.variables))
    try:
        async with Authority(config) as authority:
            for account in concerned:
                finding = await state_of.credential(account, secrets)
                if finding is not None:
                    yield finding
                yield await state_of.state(account, authority)
    except StateError as error:
        yield Finding(Link.TOKEN, str(config.settings.state_dir), Grade.FAILED, str(error))


async def unlocked(
    config: Config, account: Account, password: Secret, servers: Iterable[Server], dialer: Dialer
) -> AsyncIterator[Finding]:
    """The token, then a login at each server."""
    async with Authority(quiet(config)) as authority:
        is_known = await authority.records.load(account.key) is not None
        finding = await state_of.token(account, authority, password, known=is_known)
        yield finding
        if finding.breaks:
            return
        if not is_known:
            first = "the mail program's first login" if needs_own(account, authority) else "'emailproxy authorize'"
            text = f"nobody has logged in here yet; {first} sets the local password"
            yield Finding(Link.LOGIN, account.name, Grade.SKIPPED, text)
            return
        for server in servers:
            yield await log_in(server, account, password, authority.broker, dialer)


def needs_own(account: Account, authority: Authority) -> bool:
    return authority.flows(account).approval is Approval.PASSWORD


def quiet(config: Config) -> Config:
    """A check waits for no person, and tells nobody that its login failed: its own findings say so."""
    settings = config.settings.model_copy(update={"consent_wait": 0.0, "on_login_failed": None})
    return config.model_copy(update={"settings": settings})
