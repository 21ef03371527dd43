"""The whole server: its listeners, what they share, and how another configuration comes into force."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

from emailproxy import __version__
from emailproxy.config.model import Config, Server
from emailproxy.errors import ServiceError
from emailproxy.net import tls
from emailproxy.net.activation import Activated, inherited
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Listener
from emailproxy.net.section import Section
from emailproxy.net.shared import SessionLimits, Shared
from emailproxy.net.tokens import TokenSource
from emailproxy.oauth.clock import rfc3339
from emailproxy.oauth.standin import StandIn
from emailproxy.service.among import Among
from emailproxy.service.authority import Authority
from emailproxy.service.reloading import Plan, Reloaded, explained, in_force
from emailproxy.service.tally import Tally
from emailproxy.service.words import beyond, local_security, place, started

log = logging.getLogger("emailproxy")

CUT_S = 2.0  # for the loop to close what was cut, which it does at once

Facts = dict[str, object]


class Service:
    """The whole server. `start` it once, `reload` it as often as you like, `stop` it once."""

    def __init__(self, config: Config, among: Among | None = None) -> None:
        """`among` is what it has of the others, where it is one of several processes."""
        self._config = config
        self._among = among
        self._stack = AsyncExitStack()
        self._refusals: Counter[str] = Counter()
        self._listeners: dict[str, Listener] = {}
        self._retired: list[Listener] = []
        """Of sections that are gone or listen elsewhere by now, while connections of theirs stand."""
        self._one_at_a_time = asyncio.Lock()
        self._stopping = False
        self._hurried = asyncio.Event()
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
        authority = self._authority = await self._stack.enter_async_context(self._new_authority())
        dialer = Dialer(authority.outbound)
        self._stack.callback(dialer.close)
        among = self._among
        activated = Activated(inherited(os.environ)) if among is None else among.sockets
        self._stack.callback(activated.close)
        tokens = Tally(authority.broker, self._refusals)
        places = None if among is None else among.places
        self._shared = Shared(dialer, tokens, SessionLimits.of(settings, self._config.prewarmed), activated, places)
        self._listeners = await self._opened(self._config.servers)
        self._say_started(self._config.servers)  # only now: where one port is in use, that is all there is to say
        for notice in activated.notices():
            log.warning("%s", notice)
        authority.broker.start()
        if among is None:
            await authority.broker.resume()

    def _new_authority(self) -> Authority:
        return Authority(self._config, listener=None if self._among is None else self._among.redirects)

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
        if self._among is not None and self._among.quiet:
            return
        for server in servers:
            for line in started(server, self._listeners[server.section].addresses):
                log.info("%s", line)

    # ---- another configuration

    async def reload(self, config: Config) -> Reloaded:
        """Puts another configuration in force: new listeners accept before any old one ends, sessions live on.

        Raises:
            ServiceError: a section cannot be opened, a file of its cannot be used, or the server is about to end;
                nothing has changed.
        """
        async with self._one_at_a_time:
            if self._stopping:
                raise ServiceError("the server is stopping")
            plan = Plan.of(self._config, config)
            renewed = await asyncio.to_thread(tls.changed, [server.ca_file for server in config.servers])
            for server in plan.updated:
                Section.of(server, self._shared, None)  # reads its files
            try:
                opened = await self._opened(plan.opened)
            except ServiceError as error:
                raise explained(error, plan, self.addresses) from None
            self._config = in_force(self._config, config)
            self._loaded_s = time.time()
            tls.trust(renewed)
            self._authority.configure(self._config)
            self._shared.update(SessionLimits.of(self._config.settings, self._config.prewarmed))
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
            "listeners": self._listener_facts(),
            "accounts": accounts,
            "degraded": [account["account"] for account in accounts if account["storage"] == "degraded"],
            "refused": dict(sorted(self._refusals.items())),
        }

    def counts(self) -> Facts:
        """What of `status` this process alone knows, for whoever adds those of several up."""
        broker = self._authority.broker
        return {
            "listeners": self._listener_facts(),
            "sessions": dict(self._shared.places.standing()),
            "unlocked": sorted(broker.unlocked),
            "degraded": sorted(broker.unsaved),
            "refused": dict(self._refusals),
        }

    def _listener_facts(self) -> list[Facts]:
        return [
            *(self._facts_of(listener, retired=False) for listener in self._listeners.values()),
            *(self._facts_of(listener, retired=True) for listener in self._standing()),
        ]

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
            "prewarmed": facts.prewarmed,
            "retired": retired,
        }

    # ---- the end

    @property
    def drain_timeout_s(self) -> float:
        """How long `stop` waits at most for what is under way."""
        return self._config.settings.drain_timeout

    async def stop(self) -> None:
        """Takes no more connections and logins, lets what is under way come to its end, and closes everything."""
        async with self._one_at_a_time:
            self._stopping = True
        await self._drain([*self._listeners.values(), *self._retired])
        await self._stack.aclose()

    def hurry(self) -> None:
        """`stop` waits no longer: what is left is cut."""
        self._hurried.set()

    async def _drain(self, listeners: list[Listener]) -> None:
        limit_s = self.drain_timeout_s
        for listener in listeners:
            listener.stop_accepting()
        standing = sum(listener.logged_in for listener in listeners)
        if standing:
            log.info("sessions end as soon as they are idle, within %g s (drain_timeout): %d", limit_s, standing)
        closing: asyncio.Future[Any] = asyncio.gather(*(listener.close() for listener in listeners))
        hurried: asyncio.Future[Any] = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({closing, hurried}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not closing.done():
            log.warning("sessions that were not idle yet were cut: %d", sum(map(Listener.abort, listeners)))
            await asyncio.wait({closing}, timeout=CUT_S)
