"""`workers = N`: the first process, with its log and its signals, and how workers write to that log."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from emailproxy.cli.logfile import Log
from emailproxy.cli.serve import Running, Source, toggle_debug
from emailproxy.config import ini
from emailproxy.config.model import Config
from emailproxy.errors import ConfigError, Fault, ServiceError
from emailproxy.net.activation import Activated, inherited
from emailproxy.service import Reloaded
from emailproxy.workers import worker
from emailproxy.workers.crew import Crew
from emailproxy.workers.member import LENGTH
from emailproxy.workers.nursery import Nursery

if TYPE_CHECKING:
    from emailproxy.admin.routes import Answers, FromElsewhere


WHAT_LOGINS_NEED = (
    *("uvloop", "filelock", "encodings.idna", "emailproxy.oauth.generic", "oauthlib.oauth2", "aiohttp", "jwt"),
    *(f"cryptography.hazmat.primitives.{name}" for name in ("hpke", "kdf.argon2", "kdf.hkdf", "ciphers.aead")),
)
"""Imported late by a single server, as it may never need it."""


class ToTheFirst(logging.Handler):
    """Hands each record's text to the first process."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__()
        self._end = end

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode(errors="backslashreplace")
        with suppress(OSError):  # it has ended, and so does this process
            self._end.sendall(LENGTH.pack(len(text)) + text)


def prepared(source: Source, config: Config, *, debug: bool) -> Callable[[Log], Running]:
    """Forks the process that workers come from; there may be no thread yet. What runs them takes the log, then.

    Raises:
        ConfigError: this system cannot fork.
    """
    if not hasattr(os, "fork"):
        what = "more than one worker needs a system that forks processes, as Unix does"
        fault = Fault(str(config.path), None, "emailproxy", "workers", what, "remove the line, or write workers = 1")
        raise ConfigError((fault,))
    preload()
    activated = Activated(inherited(os.environ))

    def work(end: socket.socket, texts: socket.socket) -> NoReturn:
        texts.setblocking(True)
        log = Log([ToTheFirst(texts)], logging.INFO)
        worker.work(end, config, source.parse, log.close)

    nursery = Nursery(work, activated.close)
    return lambda log: RunningWorkers(source, config, nursery, activated, log, debug=debug)


def preload() -> None:
    """Imports once for all what every worker comes to need, as they share the memory."""
    for name in WHAT_LOGINS_NEED:
        with suppress(ImportError):  # the loop's library is not for every system
            import_module(name)


class RunningWorkers(Running):
    """Several processes; this one serves no mail."""

    def __init__(
        self, source: Source, config: Config, nursery: Nursery, activated: Activated, log: Log, *, debug: bool
    ) -> None:
        self._crew = Crew(config, nursery, activated, written=log.take, on_fault=self._give_up, debug=debug)
        super().__init__(source, config, self._crew)

    def _give_up(self, fault: ServiceError) -> None:
        self._fault = fault
        self._ended.set()

    def _answers(self) -> Answers:
        from emailproxy.workers.routes import CrewRoutes

        return CrewRoutes(self._crew, self.reload)

    async def _put_in_force(self, elsewhere: FromElsewhere | None) -> tuple[Config, Reloaded]:
        """It is read once: all workers get the same text."""
        path = self._source.path if elsewhere is None else elsewhere.path
        if elsewhere is None:
            octets = (await asyncio.to_thread(ini.read, path))[0]
            text = octets.decode(errors="surrogateescape")  # what is no UTF-8 is refused as such
        else:
            text = elsewhere.text
        config = await asyncio.to_thread(self._source.parse, text, path)
        return config, await self._crew.reload(config, text.encode(errors="surrogatepass"), path)

    def _on_end(self) -> None:
        super()._on_end()
        self._crew.hasten()

    def _toggle_debug(self) -> None:
        self._crew.set_debug(toggle_debug())
