"""The redirect listener: one HTTP server for all accounts, listening where and when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from emailproxy.config.model import SECONDS, Account, FlowName
from emailproxy.oauth.consent import Consents

if TYPE_CHECKING:
    from emailproxy.oauth.callback import Callback
    from emailproxy.oauth.web import Server

HEADER_S = 10 * SECONDS
CLOSE_S = 0.5 * SECONDS  # for requests under way when the process stops
BACKLOG = 16
ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""This host has no such loopback."""

log = logging.getLogger("emailproxy.oauth")


class RedirectListener:
    """Takes the provider's redirects; any process that shares the state folder may."""

    def __init__(self, consents: Consents, *, header_s: float = HEADER_S) -> None:
        self._consents = consents
        self._header_s = header_s
        self._server: Server | None = None
        self._listening: dict[tuple[str, int], asyncio.Server] = {}
        self._complete: set[str] = set()
        """Listen addresses that need no more looking up."""
        self._complained: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    @cached_property
    def _callback(self) -> Callback:
        from emailproxy.oauth.callback import Callback

        return Callback(self._consents)

    async def ensure(self, account: Account) -> None:
        """Listens where this account's redirects arrive; a flow that redirects nowhere needs no listener.

        An address that cannot be had is not fatal: it is in the log once, and another process that listens there
        completes the consent just as well.
        """
        if account.flow is not FlowName.AUTHORIZATION_CODE:
            return
        self._callback.expect(account)
        if account.listen_address in self._complete:
            return
        wanted = await addresses(account.listen_address)
        async with self._one_at_a_time:
            had = [address in self._listening or await self._listen(account, address) for address in wanted]
        if all(had):
            self._complete.add(account.listen_address)

    async def _listen(self, account: Account, address: tuple[str, int]) -> bool:
        """Whether nothing is left to try there."""
        from emailproxy.oauth.web import Server

        if self._server is None:
            self._server = Server(self._callback.answer, header_s=self._header_s)
        host, port = address
        try:
            listening = listener(host, port)
        except OSError as error:
            if error.errno in ABSENT and host == "::1":
                return True
            self._complain(account, f"{host} port {port}", error)
            return False
        self._listening[address] = await asyncio.get_running_loop().create_server(
            self._server, sock=listening, backlog=BACKLOG
        )
        log.info("listening for the sign-in of %s on %s port %d", account.name, host, port)
        return True

    def _complain(self, account: Account, where: str, error: OSError) -> None:
        if where in self._complained:
            return
        self._complained.add(where)
        if error.errno == errno.EADDRINUSE:
            log.warning(
                "the redirect address %s is in use; if that is another emailproxy with the same state folder, "
                "it completes the sign-in of %s, else set redirect_uri or redirect_listen_address",
                where,
                account.name,
            )
        else:
            log.warning(
                "cannot listen on the redirect address %s (%s); set redirect_listen_address for %s",
                where,
                error.strerror or type(error).__name__,
                account.name,
            )

    async def close(self) -> None:
        for listening in self._listening.values():
            listening.close()
        self._listening.clear()
        if self._server is not None:
            await self._server.shutdown(CLOSE_S)


async def addresses(listen_address: str) -> list[tuple[str, int]]:
    """The addresses of a ``host:port``; `localhost` means both loopbacks."""
    parts = urlsplit(f"//{listen_address}")
    host, port = parts.hostname or "localhost", parts.port or 0
    if host == "localhost":
        return [("127.0.0.1", port), ("::1", port)]
    with contextlib.suppress(OSError):
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return list(dict.fromkeys((str(sockaddr[0]), port) for *_, sockaddr in found))
    return [(host, port)]  # the error comes with the attempt to listen


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)  # of two processes that bind at once, the second learns it here
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
