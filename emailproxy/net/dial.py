"""Connections to mail servers, directly or through a proxy: name look-up in a pool of its own, addresses raced,
failures in words."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohappyeyeballs import AddrInfoType, start_connection

from emailproxy.config.outbound import MAIL, Outbound
from emailproxy.config.proxies import Proxy, ProxyFailed, UnusableProxy
from emailproxy.errors import ServerUnavailable, system_words
from emailproxy.net.tunnel import through

CONNECT_TIMEOUT_S = 10.0  # look-up, connect and a proxy's part together: a DNS black hole fails within this
NEXT_ADDRESS_S = 0.25  # RFC 8305 section 8: the Connection Attempt Delay
RESOLVERS = 4  # threads; one look-up a name at a time, so that a dead name holds one
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 60, 15, 6


def tune(sock: socket.socket) -> None:
    """Small segments go at once, and a peer that vanished is found within 150 s."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Dialer:
    """Resolves and connects."""

    def __init__(self, outbound: Outbound | None = None) -> None:
        """`outbound` says which connections take a proxy; without it none does."""
        self._outbound = outbound or Outbound()
        self._pool = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="dns")
        self._lookups: dict[tuple[str, int], asyncio.Future[list[AddrInfoType]]] = {}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def proxy_for(self, host: str) -> Proxy | None:
        """The proxy that a mail server is reached through.

        Raises:
            UnusableProxy: its URL is none.
        """
        return self._outbound.proxy_for(MAIL, host)

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket.

        Raises:
            ServerUnavailable: no name, no route, no answer within 10 s, or refused; by a proxy, too.
        """
        try:
            proxy = self.proxy_for(host)
            sock = await (self._directly(host, port) if proxy is None else self._through(proxy, host, port))
        except UnusableProxy as error:
            raise ServerUnavailable(f"the mail server {host}:{port} cannot be reached: {error}") from None
        except ProxyFailed as error:
            raise ServerUnavailable(f"the mail server {host}:{port} {error}") from None
        tune(sock)
        return sock

    async def _directly(self, host: str, port: int) -> socket.socket:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                addresses = await self.resolve(host, port)
                return await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
        except TimeoutError:
            raise ServerUnavailable(f"the mail server {host}:{port} does not answer; check the network") from None
        except socket.gaierror as error:
            raise ServerUnavailable(f"the name {host} cannot be looked up ({error.strerror}); check DNS") from None
        except OSError as error:
            reason = system_words(error)
            raise ServerUnavailable(f"the mail server {host}:{port} cannot be reached ({reason})") from None

    async def _through(self, proxy: Proxy, host: str, port: int) -> socket.socket:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far = host if proxy.looks_names_up else await self._address(host, port)
                try:
                    addresses = await self.resolve(proxy.host, proxy.port)
                    near = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
                except OSError as error:  # socket.gaierror is one
                    raise proxy.unreachable(system_words(error)) from None
                return await through(proxy, near, far, port)
        except TimeoutError:
            raise proxy.silent() from None

    async def _address(self, host: str, port: int) -> str:
        """The host's first address, for a proxy that is given no names."""
        try:
            return str((await self.resolve(host, port))[0][4][0])
        except socket.gaierror as error:
            raise ServerUnavailable(
                f"the name {host} cannot be looked up ({error.strerror}); check DNS, or have the proxy do it: write "
                "socks5h in place of socks5"
            ) from None

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """The host's addresses. One look-up a name at a time, shared by all who ask meanwhile.

        Raises:
            socket.gaierror: there are none.
        """
        key = (host, port)
        lookup = self._lookups.get(key)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = loop.run_in_executor(self._pool, _look_up, host, port)
            self._lookups[key] = lookup
            lookup.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(lookup)

    def _forget(self, key: tuple[str, int], done: asyncio.Future[list[AddrInfoType]]) -> None:
        self._lookups.pop(key, None)
        if not done.cancelled():
            done.exception()


def _look_up(host: str, port: int) -> list[AddrInfoType]:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
