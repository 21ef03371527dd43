"""The whole server: its listeners, what they share, and how another configuration comes into force."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack

from emailproxy import __version__
from emailproxy.config.model import Config, Server
from emailproxy.errors import ServiceError
from emailproxy.net.activation import Activated, inherited
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Listener
from emailproxy.net.section import Section
from emailproxy.net.session import TokenSource
from emailproxy.net.shared import SessionLimits, Shared
from emailproxy.oauth.clock import rfc3339
from emailproxy.oauth.standin import StandIn
from emailproxy.service.authority import Authority
from emailproxy.service.reloading import Plan, Reloaded, in_force
from emailproxy.service.tally import Tally
from emailproxy.service.words import beyond, local_security, place, started

log = logging.getLogger("emailproxy")

STOP_S = 2.0  # for sessions to end by themselves; with what follows, a service manager sees the end within 5 s

Facts = dict[str, object]


class Service:
    """The whole server. `start` it once, `reload` it as often as you like, `stop` it once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._refusals: Counter[str] = Counter()
        self._listeners: dict[str, Listener] = {}
        self._retired: list[Listener] = []
        """Of sections that are gone or listen elsewhere by now, while connections of theirs stand."""
        self._one_at_a_time = asyncio.Lock()
        self._started_s = self._loaded_s = time.time()

    @property
    def authority(self) -> Authority:
        return self._authority

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
            async with self._one_at_a_time:
                await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._config.settings
        authority = self._authority = await self._stack.enter_async_context(Authority(self._config))
        dialer = Dialer(authority.outbound)
        self._stack.callback(dialer.close)
        activated = Activated(inherited(os.environ))
        self._stack.callback(activated.close)
        tokens = Tally(authority.broker, self._refusals)
        self._shared = Shared(dialer, tokens, SessionLimits.of(settings), activated)
        self._listeners = await self._opened(self._config.servers)
        self._say_started(self._config.servers)  # only now: where one port is in use, that is all there is to say
        for notice in activated.notices():
            log.warning("%s", notice)
        authority.broker.start()
        await authority.broker.resume()

    async def _opened(self, servers: Iterable[Server]) -> dict[str, Listener]:
        """Listeners that accept, by section; all of them or none.

        Raises:
            ServiceError: one cannot be opened.
        """
        opened: dict[str, Listener] = {}
        try:
            for server in servers:
                listener = Listener(server, self._shared, self._tokens_of(server))
                await listener.open()
                opened[server.section] = listener
        except BaseException:
            for listener in opened.values():
                listener.stop_accepting()
                listener.abort()
            raise
        return opened

    def _tokens_of(self, server: Server) -> TokenSource | None:
        """A section's own source of tokens; None: the one that all share."""
        if server.login_as is None or server.login_as_password is None:
            return None
        standin = StandIn(self._authority.broker, server.login_as, self._authority.secrets, server.login_as_password)
        return Tally(standin, self._refusals)

    def _say_started(self, servers: Iterable[Server]) -> None:
        for server in servers:
            for line in started(server, self._listeners[server.section].addresses):
                log.info("%s", line)

    # ---- another configuration

    async def reload(self, config: Config) -> Reloaded:
        """Puts another configuration in force: new listeners accept before any old one ends, sessions live on.

        Raises:
            ServiceError: a section cannot be opened, or a file of its cannot be used; nothing has changed.
        """
        async with self._one_at_a_time:
            plan = Plan.of(self._config, config)
            for server in plan.updated:
                Section.of(server, self._shared, None)  # reads its files
            try:
                opened = await self._opened(plan.opened)
            except ServiceError as error:
                raise self._explained(error, plan) from None
            self._config = in_force(self._config, config)
            self._loaded_s = time.time()
            self._authority.configure(self._config)
            self._shared.update(SessionLimits.of(self._config.settings))
            for server in plan.updated:
                self._update(server)
            for section in plan.ended:
                self._retire(section)
            self._listeners |= opened
            self._say_started((*plan.opened, *plan.updated))
            return plan.outcome

    def _update(self, server: Server) -> None:
        try:
            self._listeners[server.section].update(server, self._tokens_of(server))
        except ServiceError as error:  # a file has changed in this very moment
            log.error("%s; [%s] keeps its settings", error, server.section)

    def _retire(self, section: str) -> None:
        """Takes no more connections; those that stand live on."""
        listener = self._listeners.pop(section)
        listener.stop_accepting()
        log.info("%s accepts no more connections; %d live on", section, listener.sessions)
        self._retired = [*self._standing(), listener]

    def _standing(self) -> list[Listener]:
        return [listener for listener in self._retired if listener.sessions]

    def _explained(self, error: ServiceError, plan: Plan) -> ServiceError:
        """A port that this very server holds for a section that ends cannot be had before."""
        ports = {port for section in plan.ended for _, port in self._listeners[section].addresses}
        if not any(server.local_port in ports for server in plan.opened):
            return error
        return ServiceError(f"{error}. If emailproxy itself has that port, for another section or address, restart it")

    # ---- what it does

    async def status(self) -> Facts:
        """What `emailproxy status` shows.

        Raises:
            StateError: the state folder cannot be used.
        """
        settings = self._config.settings
        now_s = time.time()
        accounts = await self._authority.facts(self._shared.places.standing())
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": rfc3339(self._started_s),
            "uptime_s": int(now_s - self._started_s),
            "config": {"path": str(self._config.path.absolute()), "loaded": rfc3339(self._loaded_s)},
            "state_dir": str(settings.state_dir),
            "listeners": [
                *(self._facts_of(listener, retired=False) for listener in self._listeners.values()),
                *(self._facts_of(listener, retired=True) for listener in self._standing()),
            ],
            "accounts": accounts,
            "degraded": [account["account"] for account in accounts if account["storage"] == "degraded"],
            "refused": dict(sorted(self._refusals.items())),
        }

    @staticmethod
    def _facts_of(listener: Listener, *, retired: bool) -> Facts:
        facts, server = listener.facts(), listener.section.server
        return {
            "section": facts.section,
            "protocol": str(server.protocol),
            "addresses": [place(host, port) for host, port in facts.addresses],
            "tls": local_security(server),
            "server": beyond(server),
            "sessions": facts.sessions,
            "logged_in": facts.logged_in,
            "retired": retired,
        }

    # ---- the end

    async def stop(self) -> None:
        """Stops accepting, tells the clients, gives sessions 2 s, and closes everything."""
        listeners = [*self._listeners.values(), *self._retired]
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*(listener.close() for listener in listeners))
        except TimeoutError:
            log.warning("some connections did not end in time and were cut")
            for listener in listeners:
                listener.abort()
        await self._stack.aclose()
