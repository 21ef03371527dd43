"""The half that deals in tokens: state, provider, consents, broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Self

from emailproxy.config import catchall
from emailproxy.config.model import Account, Config
from emailproxy.config.outbound import Outbound
from emailproxy.errors import LoginRefused
from emailproxy.oauth.broker import BrokerSettings, TokenBroker
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.flows import Flows
from emailproxy.oauth.happenings import Happening
from emailproxy.oauth.hooks import Hooks
from emailproxy.oauth.redirect import RedirectListener
from emailproxy.oauth.secrets import Secrets
from emailproxy.oauth.signins import Listener
from emailproxy.service.facts import account_lines
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore

HOOKS = (
    "on_consent_required",
    "on_sign_in_needed",
    "on_token_refreshed",
    "on_login_failed",
    "hook_timeout",
    "hook_secret",
)
"""The settings that hooks are made of."""


class Authority:
    """State, provider, consents and broker, under one configuration at a time. The command line uses it alone."""

    def __init__(self, config: Config, *, listener: Listener | None = None) -> None:
        """`listener` takes the provider's redirects, where this process does not do so itself."""
        settings = config.settings
        self._config = config
        self.records = IniStore(settings.state_dir)
        self.pending = IniPendingStore(settings.state_dir)
        self.outbound = Outbound.of(settings, os.environ)
        self._commands = Commands(config.variables)
        self.secrets = Secrets(self._commands)
        self.flows = Flows(self.secrets, self._commands, ca_file=settings.ca_file, outbound=self.outbound)
        self._hooks = self._new_hooks()
        self._former_hooks: set[asyncio.Task[None]] = set()
        self.consents = Consents(self.pending, self.records, self.flows, self.resolve, notify=self._notify)
        self.redirects = RedirectListener(self.consents)
        self.broker = TokenBroker(
            self.resolve,
            self.records,
            self.consents,
            self.flows,
            listener=listener or self.redirects,
            cached=lambda account: catchall.cached(self._config, account.key),
            settings=BrokerSettings.of(settings),
            notify=self._notify,
        )

    async def __aenter__(self) -> Self:
        """Makes the state folder.

        Raises:
            StateError: it cannot be used.
        """
        await asyncio.to_thread(self.records.prepare)
        await self.pending.prepare()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redirects.close()
        await self.broker.close()
        await asyncio.gather(self.flows.close(), self._hooks.close(), *self._former_hooks)
        self.pending.close()
        self.records.close()

    # ---- the configuration in force

    def resolve(self, name: str) -> Account:
        """The account of a login name.

        Raises:
            UnknownAccount, AccountUnusable: there is none, or it lacks something.
        """
        return catchall.resolve(self._config, name)

    def configure(self, config: Config) -> None:
        """Puts another configuration in force: its accounts count from the next login or renewal on."""
        before, self._config = self._config.settings, config
        settings = config.settings
        self._commands.hide(config.variables)
        self.broker.configure(BrokerSettings.of(settings))
        if any(getattr(before, name) != getattr(settings, name) for name in HOOKS):
            former = asyncio.get_running_loop().create_task(self._hooks.close())
            self._former_hooks.add(former)
            former.add_done_callback(self._former_hooks.discard)
            self._hooks = self._new_hooks()

    def _new_hooks(self) -> Hooks:
        return Hooks(self._config.settings, self._commands, self.secrets, outbound=self.outbound)

    def _notify(self, happening: Happening) -> None:
        self._hooks.notify(happening)

    # ---- for the control socket

    async def forget(self, name: str) -> None:
        """Drops what is in memory of an account whose state was removed, and its consent that waits.

        Raises:
            StateError: the consent cannot be removed.
        """
        key = name.casefold()
        with suppress(LoginRefused):  # not configured any more
            key = self.resolve(name).key
        if await self.records.load(key) is None:
            await self.consents.discard(key)
            self.broker.forget(key)

    async def facts(self, sessions: Mapping[str, int]) -> list[dict[str, Any]]:
        """What is known of each account, here and in its file.

        Args:
            sessions: how many of each account stand, by key.

        Raises:
            StateError: the state folder cannot be used.
        """
        names = await asyncio.to_thread(catchall.keys, self._config)
        unsaved = self.broker.unsaved
        lines = account_lines(self.records, self.pending, names, self._config.settings.refresh_margin)
        return [
            asdict(line)
            | {
                "unlocked": self.broker.is_unlocked(line.account),
                "storage": "degraded" if line.account in unsaved else "ok",
                "sessions": sessions.get(line.account, 0),
            }
            async for line in lines
        ]
