"""Connections to mail servers, directly or through a proxy: name look-up in a pool of its own, addresses raced,
failures in words."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohappyeyeballs import AddrInfoType, start_connection

from emailproxy.config.outbound import MAIL, Outbound
from emailproxy.config.proxies import Proxy, ProxyFailed, UnusableProxy
from emailproxy.errors import ServerUnavailable, system_words
from emailproxy.net.tunnel import through

CONNECT_TIMEOUT_S = 10.0  # look-up, connect and a proxy's part together: a DNS black hole fails within this
NEXT_ADDRESS_S = 0.25  # RFC 8305 section 8: the Connection Attempt Delay
FRESH_S = 5.0  # addresses serve the next logins for so long: a burst of them is one look-up, and a move is soon seen
MAX_FRESH = 1024  # names; they are the configuration's, so there are few
RESOLVERS = 32  # threads, made when needed; one look-up a name at a time, so that a dead name holds one
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


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up has found, and until when (monotonic) others may use it."""

    addresses: list[AddrInfoType]
    until_s: float


@dataclass(frozen=True, slots=True)
class LookUp:
    """One under way. It cannot be ended, and the system may take a minute for it."""

    addresses: asyncio.Future[list[AddrInfoType]]
    begun_s: float
    """Monotonic."""


class Dialer:
    """Resolves and connects."""

    def __init__(self, outbound: Outbound | None = None) -> None:
        """`outbound` says which connections take a proxy; without it none does."""
        self._outbound = outbound or Outbound()
        self._pool = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="dns")
        self._lookups: dict[tuple[str, int], LookUp] = {}
        self._fresh: dict[tuple[str, int], Found] = {}

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
                return await self._reach(host, port)
        except TimeoutError:
            if (host, port) in self._lookups:
                raise ServerUnavailable(f"the name {host} cannot be looked up (no answer); check DNS") from None
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
                    near = await self._reach(proxy.host, proxy.port)
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

    async def _reach(self, host: str, port: int) -> socket.socket:
        """A connection to the first of the host's addresses that takes one.

        Raises:
            OSError: none does; `socket.gaierror` is one.
        """
        addresses = await self.resolve(host, port)
        try:
            if len(addresses) == 1 and os.name == "posix":
                return await _connect(addresses[0])
            return await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
        except BaseException:  # of whatever kind, a time-out too: the host may have moved
            self._fresh.pop((host, port), None)
            raise

    async def resolve(self, host: str, port: int) -> list[AddrInfoType]:
        """The host's addresses. One look-up a name at a time, shared by all who ask meanwhile and in the next seconds.

        Raises:
            socket.gaierror: there are none.
            TimeoutError: the look-up under way has had its time: who comes now need not wait for it, too.
        """
        key = (host, port)
        now_s, found = time.monotonic(), self._fresh.get(key)
        if found is not None and now_s < found.until_s:
            return found.addresses
        lookup = self._lookups.get(key)
        if lookup is None:
            addresses = asyncio.get_running_loop().run_in_executor(self._pool, _look_up, host, port)
            lookup = self._lookups[key] = LookUp(addresses, now_s)
            addresses.add_done_callback(lambda done: self._forget(key, done))
        elif now_s - lookup.begun_s >= CONNECT_TIMEOUT_S:
            raise TimeoutError
        return await asyncio.shield(lookup.addresses)

    def _forget(self, key: tuple[str, int], done: asyncio.Future[list[AddrInfoType]]) -> None:
        self._lookups.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        if len(self._fresh) >= MAX_FRESH:
            self._fresh.clear()
        self._fresh[key] = Found(done.result(), time.monotonic() + FRESH_S)


async def _connect(address: AddrInfoType) -> socket.socket:
    """A connection to this address: no race, and no look-up in a thread, which uvloop's `sock_connect` makes of it.

    Raises:
        OSError: it takes none.
    """
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        error = sock.connect_ex(where)
        if error == errno.EINPROGRESS:
            await _writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = loop.create_future()

    def tell() -> None:
        if not writable.done():  # it is told again until it is removed, and who waits may have given up
            writable.set_result(None)

    loop.add_writer(sock, tell)
    try:
        await writable
    finally:
        loop.remove_writer(sock)


def _look_up(host: str, port: int) -> list[AddrInfoType]:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
