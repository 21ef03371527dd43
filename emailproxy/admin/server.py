"""What answers a control socket's connections, made at the first: most servers are never asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emailproxy.admin.routes import Answers


class Answering:
    """Protocols for connections."""

    def __init__(self, answers: Callable[[], Answers]) -> None:
        self._answers = answers
        self._api: Callable[[], asyncio.Protocol] | None = None

    def __call__(self) -> asyncio.Protocol:
        if self._api is None:
            from emailproxy.admin.api import Api

            self._api = Api(self._answers())
        return self._api()
