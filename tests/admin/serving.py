"""A server in the test's own process, and its control socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emailproxy.admin.client import Client
from emailproxy.admin.control import ControlSocket
from emailproxy.admin.paths import socket_name
from emailproxy.admin.routes import FromElsewhere, Routes
from emailproxy.admin.server import Answering
from emailproxy.config import ini
from emailproxy.secret import Secret
from emailproxy.service import Reloaded, Service
from emailproxy.wire.events import Credential, Login, Visit
from tests.cli.site import ADA, PASSWORD, Site


@dataclass
class Serving:
    site: Site
    service: Service
    socket: Path
    given: list[FromElsewhere | None] = field(default_factory=list)
    """What reloads were given."""

    async def ask(self, method: str, path: str, message: dict[str, object] | None = None, **query: str) -> Any:
        """As a command asks."""
        client = Client(self.site.state, self.socket.parent)
        return await asyncio.to_thread(client.ask, method, path, message, **query)

    async def log_in(
        self, user: str = ADA, password: str = PASSWORD, protocol: str = "IMAP", rejected: str | None = None
    ) -> Credential:
        """A mail program's login, as far as the token."""
        visit = Visit("s", protocol, "127.0.0.1", True)
        login = Login(user, Secret(password))
        credential = await self.service.authority.broker.token(login, visit, rejected)
        await self.service.authority.broker.accepted(login, visit)
        return credential

    async def reload(self, elsewhere: FromElsewhere | None) -> Reloaded:
        self.given.append(elsewhere)
        config = ini.load(self.site.config) if elsewhere is None else ini.loads(elsewhere.text, elsewhere.path)
        return await self.service.reload(config)


@contextlib.asynccontextmanager
async def serving(site: Site, folder: Path) -> AsyncIterator[Serving]:
    service = Service(ini.load(site.config))
    await service.start()
    path = folder / "run" / socket_name(site.state)
    running = Serving(site, service, path)
    control = ControlSocket(path, Answering(lambda: Routes(service, running.reload)))
    await control.open()
    try:
        yield running
    finally:
        await control.close()
        await service.stop()
