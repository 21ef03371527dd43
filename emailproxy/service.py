"""Builds everything from a configuration, starts it, drains it, stops it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

from emailproxy.config import catchall
from emailproxy.config.model import Account, Config
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Doorman, Listener, descriptor_cap
from emailproxy.net.session import Upstream
from emailproxy.oauth.broker import TokenBroker
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.consent import Consents
from emailproxy.oauth.flows import Flows
from emailproxy.oauth.hooks import Hooks
from emailproxy.oauth.redirect import RedirectListener
from emailproxy.oauth.secrets import Secrets
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore

log = logging.getLogger("emailproxy")

STOP_S = 2.0  # for sessions to end by themselves; with what follows, a service manager sees the end within 5 s


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's on Unix, winloop's on Windows, asyncio's own where neither installs."""
    try:
        if sys.platform == "win32":
            import winloop as fast
        else:
            import uvloop as fast
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = fast.new_event_loop()
    return loop


class Authority:
    """The half that deals in tokens: state, provider, consents, broker. The command line uses it alone."""

    def __init__(self, config: Config) -> None:
        settings = config.settings
        resolve: Callable[[str], Account] = lambda name: catchall.resolve(config, name)  # noqa: E731
        self.records = IniStore(settings.state_dir)
        self.pending = IniPendingStore(settings.state_dir)
        commands = Commands(config.variables)
        secrets = Secrets(commands)
        self.flows = Flows(secrets, commands, ca_file=settings.ca_file)
        self._hooks = Hooks(settings, commands, secrets)
        notify = self._hooks.notify
        self.consents = Consents(self.pending, self.records, self.flows, resolve, notify=notify)
        self.redirects = RedirectListener(self.consents)
        self.broker = TokenBroker(
            resolve,
            self.records,
            self.consents,
            self.flows,
            listener=self.redirects,
            consent_wait_s=settings.consent_wait,
            refresh_margin_s=settings.refresh_margin,
            keep_alive_s=settings.keep_alive,
            notify=notify,
        )

    async def __aenter__(self) -> Self:
        """Makes the state folder.

        Raises:
            StateError: it cannot be used.
        """
        await asyncio.to_thread(self.records.prepare)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redirects.close()
        await self.broker.close()
        await asyncio.gather(self.flows.close(), self._hooks.close())
        self.pending.close()
        self.records.close()


class Service:
    """The whole server. `start` it once, `stop` it once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._listeners: dict[str, Listener] = {}

    @property
    def addresses(self) -> dict[str, list[tuple[str, int]]]:
        """Where each section listens: its name to (address, port) pairs."""
        return {section: list(listener.addresses) for section, listener in self._listeners.items()}

    async def start(self) -> None:
        """Listens on every section, or on none.

        Raises:
            ServiceError, StateError: the server cannot start; nothing is left open.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._config.settings
        authority = await self._stack.enter_async_context(Authority(self._config))
        dialer = Dialer()
        self._stack.callback(dialer.close)
        most = min(settings.max_connections, descriptor_cap())
        doorman = Doorman(most, settings.max_connections_per_address)
        for server in self._config.servers:
            upstream = Upstream(server, dialer, authority.broker, settings.login_timeout)
            listener = self._listeners[server.section] = Listener(upstream, doorman)
            await listener.open()
        for server in self._config.servers:  # only now: where one port is in use, that is all there is to say
            way = "STARTTLS" if server.server_starttls else "TLS"
            for host, port in self._listeners[server.section].addresses:
                place = f"[{host}]" if ":" in host else host
                log.info(
                    "%s: listening on %s:%d for %s:%d (%s)",
                    server.section, place, port, server.server_address, server.server_port, way,
                )  # fmt: skip
        authority.broker.start()
        await authority.broker.resume()

    async def stop(self) -> None:
        """Stops accepting, tells the clients, gives sessions 2 s, and closes everything."""
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*(listener.close() for listener in self._listeners.values()))
        except TimeoutError:
            log.warning("some connections did not end in time and were cut")
            for listener in self._listeners.values():
                listener.abort()
        await self._stack.aclose()
