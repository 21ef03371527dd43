"""aiohttp's sessions: verified TLS, no cookies, no redirects, and the proxy that a URL is reached through."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from emailproxy.config.outbound import Outbound
from emailproxy.config.proxies import Proxy, ProxyFailed, Scheme
from emailproxy.errors import system_words

if TYPE_CHECKING:
    import aiohttp


class HttpSessions:
    """Posts; each SOCKS proxy has a session of its own, all else shares one."""

    def __init__(self, *, ca_file: Path | None = None, outbound: Outbound | None = None) -> None:
        """`ca_file` stands in place of the system's trust store; without `outbound` the environment names proxies."""
        self._ca_file = ca_file
        self._outbound = outbound or Outbound.by_environment()
        self._sessions: dict[Proxy | None, aiohttp.ClientSession] = {}

    def proxy_for(self, url: str) -> Proxy | None:
        """Raises: UnusableProxy."""
        parts = urlsplit(url)
        return self._outbound.proxy_for(parts.scheme, parts.hostname or "")

    @asynccontextmanager
    async def post(self, url: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply, whose body is not read yet.

        Raises:
            UnusableCa: `ca_file` holds no certificates.
            UnusableProxy: the proxy's URL is none.
            ProxyFailed: the proxy does not get there.
            ssl.SSLError: no TLS, or nobody to be trusted; nothing was sent.
            TimeoutError, aiohttp.ClientError, OSError: as aiohttp does.
        """
        import aiohttp

        proxy = self.proxy_for(url)
        if proxy is not None and proxy.scheme is Scheme.HTTP:
            options["proxy"] = proxy.url.reveal()
        session = self._opened(None if proxy is None or proxy.scheme is Scheme.HTTP else proxy)
        failures: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError, EOFError, *errors_of(proxy))
        asked = session.post(url, allow_redirects=False, **options)  # a secret follows no redirect
        try:
            reply = await asked
        except TimeoutError:
            raise
        except failures as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise error.__cause__ from None
            if proxy is None:
                raise
            raise failure(proxy, error) from None
        async with reply:
            yield reply

    def _opened(self, socks: Proxy | None) -> aiohttp.ClientSession:
        import aiohttp

        session = self._sessions.get(socks)
        if session is None or session.closed:
            context = trusting(self._ca_file)
            session = self._sessions[socks] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context) if socks is None else connector(socks, context),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a limit on octets is one on what they unpack to
            )
        return session

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        await asyncio.sleep(0)  # the transports' own close callbacks run


class UnusableCa(OSError):
    """`ca_file` cannot be used."""


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or better, verified against `ca_file`, or the system's trust store where there is none.

    Raises:
        UnusableCa: the file holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:  # ssl.SSLError, where it holds no certificate, is one
        raise UnusableCa(f"ca_file {ca_file} cannot be used ({error.strerror})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def connector(socks: Proxy, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    from aiohttp_socks import ProxyConnector

    return ProxyConnector(
        socks.host,
        socks.port,
        username=socks.user or None,
        password=socks.password.reveal() or None,
        rdns=socks.looks_names_up,
        ssl=context,
    )


def errors_of(proxy: Proxy | None) -> tuple[type[Exception], ...]:
    """What aiohttp_socks raises, where it is in use."""
    if proxy is None or proxy.scheme is Scheme.HTTP:
        return ()
    import aiohttp_socks

    return aiohttp_socks.ProxyConnectionError, aiohttp_socks.ProxyError, aiohttp_socks.ProxyTimeoutError


def failure(proxy: Proxy, error: Exception) -> ProxyFailed:
    """What a proxy did not do, from what its library makes of that."""
    import aiohttp
    import aiohttp_socks

    match error:
        case aiohttp.ClientHttpProxyError():
            return proxy.refused(error.status, f"{error.status} {error.message}")
        case aiohttp.ClientResponseError() if error.request_info.method == "CONNECT":
            return proxy.babbles()
        case aiohttp.ClientProxyConnectionError():
            return proxy.unreachable(system_words(error.os_error))
        case aiohttp_socks.ProxyConnectionError():
            return proxy.unreachable(system_words(error.__cause__ or error))
        case aiohttp_socks.ProxyTimeoutError():
            return proxy.silent()
        case aiohttp_socks.ProxyError():
            return proxy.answered(error.error_code, str(error))
        case aiohttp.ServerDisconnectedError() | EOFError():
            return proxy.hinders("the connection was closed")
    return proxy.hinders(system_words(error))
