"""A worker's own process: a `Service` whose sockets and orders come from the first process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import NoReturn

from emailproxy.config.model import Account, Config
from emailproxy.errors import ServiceError, StateError, TooManySessions
from emailproxy.net.activation import Handed
from emailproxy.net.places import Place, Places
from emailproxy.service import Service, new_event_loop, settled
from emailproxy.service.among import Among
from emailproxy.service.reloading import in_force
from emailproxy.workers.channel import Channel, Facts, Message
from emailproxy.workers.nursery import LEFT_TO_THE_FIRST

log = logging.getLogger("emailproxy.workers")

Parse = Callable[[str, Path], Config]
"""Makes a configuration of a text that has this path."""


class Elsewhere(Place):
    """A place that the first process gave."""

    def __init__(self, places: CommonPlaces, key: tuple[str, str], number: int) -> None:
        super().__init__(places, key)
        self._give_back = places.give_back
        self._number: int | None = number

    def leave(self) -> None:
        super().leave()
        number, self._number = self._number, None
        if number is not None:
            self._give_back(number)


class CommonPlaces(Places):
    """The sessions of all accounts: where there is a limit, it is that of all workers together.

    Sessions without one are counted here only, and are not held against those with one.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._numbers = count(1)

    async def take(self, account: str, protocol: str, limit: int | None, patience_s: float) -> Place:
        if limit is None:
            return await super().take(account, protocol, None, patience_s)
        number = next(self._numbers)
        try:
            await self._channel.ask(
                "take", place=number, account=account, protocol=protocol, limit=limit, patience_s=patience_s
            )
        except ServiceError as error:
            raise TooManySessions(str(error)) from None
        except asyncio.CancelledError:
            self.give_back(number)
            raise
        self._count(account, protocol)
        return Elsewhere(self, (account, protocol), number)

    def take_at_once(self, account: str, protocol: str, limit: int | None) -> Place | None:
        return super().take_at_once(account, protocol, None) if limit is None else None

    def _count(self, account: str, protocol: str) -> None:
        super().take_at_once(account, protocol, None)

    def give_back(self, number: int) -> None:
        self._channel.tell("leave", place=number)


class Redirects:
    """Whoever of the workers listens for the provider's redirects."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def ensure(self, account: Account) -> None:
        try:
            await self._channel.ask("ensure", account=account.name)
        except ServiceError as error:
            log.warning("nobody listens for the sign-in of %s: %s", account.name, error)


class Worker:
    """What the first process tells and asks."""

    def __init__(self, end: socket.socket, config: Config, parse: Parse) -> None:
        """`config` is what was in force when the nursery was forked."""
        self._config = config
        self._parse = parse
        self._handed = Handed()
        self._channel = Channel(end, self)
        self._service: Service | None = None
        self._over = asyncio.Event()

    @property
    def service(self) -> Service:
        """That which is started first of all."""
        assert self._service is not None
        return self._service

    async def serve(self) -> None:
        """Until it is told to end, or nobody is there any more to tell it."""
        loop = asyncio.get_running_loop()
        for name in LEFT_TO_THE_FIRST:
            loop.add_signal_handler(getattr(signal, name), lambda: None)
        await self._over.wait()
        if self._service is not None:
            await self._service.stop()

    def ended(self) -> None:
        """Whoever starts emailproxy again wants the ports: nothing is waited for."""
        if self._service is not None:
            self._service.hurry()
        self._over.set()

    def told(self, message: Message) -> None:
        match message.what:
            case "sockets":
                self._handed.give(message.facts["section"], message.sockets)
            case "debug":
                set_debug(message.facts["debug"])
            case "ping":
                self._channel.tell("pong")
            case "stop":
                self._over.set()
            case "hurry" if self._service is not None:
                self._service.hurry()

    async def asked(self, message: Message) -> Facts:
        facts = message.facts
        match message.what:
            case "start":
                await self._start(message.octets, **facts)
            case "reload":
                await self._reload(message.octets, **facts)
            case "status":
                return await self.service.status()
            case "counts":
                return self.service.counts()
            case "ensure":
                authority = self.service.authority
                await authority.redirects.ensure(authority.resolve(facts["account"]))
            case "resume":
                await self.service.authority.broker.resume()
            case "route":
                return await self._route(message.octets, **facts)
        return {}

    async def _start(self, text: bytes, path: str, *, number: int, quiet: bool, debug: bool) -> None:
        """
        Raises:
            ServiceError, StateError: it cannot; the process ends.
        """
        set_debug(debug)
        config = in_force(self._config, await self._read(text, path)) if text else self._config
        self._among = Among(self._handed, CommonPlaces(self._channel), Redirects(self._channel), quiet)
        service = self._service = Service(config, self._among)
        try:
            await service.start()
            settled()
        except BaseException:
            self._service = None
            self._over.set()
            raise
        finally:
            self._handed.close()
        log.info("worker %d is process %d", number, os.getpid())

    async def _reload(self, text: bytes, path: str, *, quiet: bool) -> None:
        """
        Raises:
            ConfigError, ServiceError: nothing has changed.
        """
        self._among.quiet = quiet
        try:
            await self.service.reload(await self._read(text, path))
        finally:
            self._handed.close()

    async def _read(self, text: bytes, path: str) -> Config:
        return await asyncio.to_thread(self._parse, text.decode("utf-8", "surrogatepass"), Path(path))

    async def _route(self, body: bytes, method: str, path: str, query: dict[str, str]) -> Facts:
        from emailproxy.admin.routes import Routes

        answer = await Routes(self.service, _reloads_nothing).answer(method, path, query, body)
        return {"status": HTTPStatus(answer.status).value, "facts": answer.facts}


async def _reloads_nothing(_elsewhere: object) -> NoReturn:
    raise StateError("the first process reads the configuration")


def set_debug(debug: bool) -> None:
    logging.getLogger("emailproxy").setLevel(logging.DEBUG if debug else logging.INFO)


def work(end: socket.socket, config: Config, parse: Parse, close_log: Callable[[], None]) -> NoReturn:
    """The whole life of a worker's process; its log runs."""
    code = 1
    try:
        asyncio.Runner(loop_factory=new_event_loop).run(_serve(end, config, parse))
        code = 0
    except Exception:
        log.exception("this worker cannot go on: this is a fault of emailproxy's own")
    finally:
        close_log()
        os._exit(code)  # neither the loop nor the interpreter could be closed before a look-up of a name has ended


async def _serve(end: socket.socket, config: Config, parse: Parse) -> None:
    await Worker(end, config, parse).serve()
