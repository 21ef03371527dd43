"""What answers a control socket's connections, made at the first: most servers are never asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from emailproxy.admin.routes import Reload, Routes
from emailproxy.service import Service


class Answering:
    """Protocols for connections."""

    def __init__(self, service: Service, reload: Reload) -> None:
        self._service = service
        self._reload = reload
        self._api: Callable[[], asyncio.Protocol] | None = None

    def __call__(self) -> asyncio.Protocol:
        if self._api is None:
            from emailproxy.admin.api import Api

            self._api = Api(Routes(self._service, self._reload))
        return self._api()
