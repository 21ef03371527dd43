"""The chain: each kind of link is tried for all that it concerns, and the next only where none is broken."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sized
from contextlib import aclosing
from dataclasses import replace

from emailproxy.check import accounts as state_of
from emailproxy.check.endpoints import endpoints
from emailproxy.check.finding import Finding, Grade, Link, refused
from emailproxy.check.local import local_certificates
from emailproxy.check.logins import log_in
from emailproxy.check.network import Place, reach
from emailproxy.check.ways import Way, ways_of, without_way
from emailproxy.config import catchall
from emailproxy.config.keys import HOOKS
from emailproxy.config.model import Account, Config
from emailproxy.config.outbound import Outbound
from emailproxy.config.proxies import UnusableProxy
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
    dialer = Dialer(Outbound.of(config.settings, os.environ))
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
    ways = ways_of(config, account)
    stages = (
        reached(dialer, ways),
        endpoints(dialer, concerned, config.settings),
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
    async for finding in unlocked(config, account, password, ways, dialer):
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
    for finding in local_certificates(config.servers):
        yield finding
    for finding in () if account is None else without_way(config, account):
        yield finding
    facts = {"servers": len(config.servers), "accounts": len(concerned)}
    configured = (counted(config.servers, "server"), counted(catchall.accounts(config), "account"))
    text = f"{' and '.join(configured)}"
    yield Finding(Link.CONFIGURATION, about, Grade.OK, text, facts=facts)


def programs(config: Config, concerned: Iterable[Account]) -> Iterator[tuple[str, str]]:
    """The programs that hooks and accounts run, each with the key that names it."""
    for key in HOOKS:
        hook = getattr(config.settings, key)
        if isinstance(hook, HookCommand):
            yield f"[emailproxy] {key}", hook.arguments[0]
    for account in concerned:
        if account.token_command:
            yield f"[{account.section}] token_command", account.token_command[0]


def counted(what: Sized, name: str) -> str:
    return f"{len(what)} {name}{'' if len(what) == 1 else 's'}"


async def reached(dialer: Dialer, ways: Iterable[Way]) -> AsyncIterator[Finding]:
    for way in ways:
        try:
            proxy = dialer.proxy_for(way.target.address)
        except UnusableProxy as error:
            yield Finding(Link.TCP, way.about, Grade.FAILED, str(error))
            return
        place = Place(
            way.about,
            way.target.address,
            way.target.port,
            starttls=way.server.protocol if way.target.starttls else None,
            ca_file=way.server.ca_file,
            mend=f"check {way.option}",
            proxy=proxy,
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
                yield await state_of.state(config, account, authority)
    except StateError as error:
        yield Finding(Link.TOKEN, str(config.settings.state_dir), Grade.FAILED, str(error))


async def unlocked(
    config: Config, account: Account, password: Secret, ways: Iterable[Way], dialer: Dialer
) -> AsyncIterator[Finding]:
    """The token, then a login at each server."""
    async with Authority(quiet(config)) as authority:
        is_known = await authority.records.load(account.key) is not None
        if not is_known and state_of.is_kept_elsewhere(config, account):
            text = "nobody has logged in here yet; the first login takes over what another proxy keeps"
            yield Finding(Link.LOGIN, account.name, Grade.SKIPPED, text)
            return
        finding = await state_of.token(account, authority, password, known=is_known)
        yield finding
        if finding.breaks:
            return
        if not is_known:
            first = "the mail program's first login" if needs_own(account, authority) else "'emailproxy authorize'"
            text = f"nobody has logged in here yet; {first} sets the local password"
            yield Finding(Link.LOGIN, account.name, Grade.SKIPPED, text)
            return
        for way in ways:
            yield await log_in(way, account, password, authority.broker, dialer)


def needs_own(account: Account, authority: Authority) -> bool:
    return authority.flows(account).approval is Approval.PASSWORD


def quiet(config: Config) -> Config:
    """A check waits for no person, and tells nobody that its login failed: its own findings say so."""
    settings = replace(config.settings, consent_wait=0.0, on_login_failed=None)
    return replace(config, settings=settings)
