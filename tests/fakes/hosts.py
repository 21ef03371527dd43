"""What providers have in common that are reached through a tunnel: hosts with TLS, and a key that signs tokens."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Self

from aiohttp import web

from emailproxy.demo.certificates import Authority
from emailproxy.demo.ledger import Ledger


class Hosts(ABC):
    """One server for all hosts of a provider, from ``async with`` until the end."""

    def __init__(self, authority: Authority, hosts: tuple[str, ...], ledger: Ledger) -> None:
        self.stopping = asyncio.Event()
        self._hosts = hosts
        self._ledger = ledger
        self._tls = authority.issue(*hosts).server_context()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @abstractmethod
    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Answers a request to any path of any host."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *details: object) -> None:
        self.stopping.set()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def targets(self) -> dict[tuple[str, int], int]:
        """What a tunnel leads here."""
        return {(host, 443): self._port for host in self._hosts}

    @property
    def public_key_pem(self) -> str:
        """What a mail server checks the mailboxes' access tokens with."""
        return self._ledger.public_key_pem
