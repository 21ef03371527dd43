"""An HTTP session for the libraries that bring requests: trust, time, size and redirects are ours to bound.

It is imported with those libraries only, as requests takes its time.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse, RemoteDisconnected
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from emailproxy.config.hosts import is_loopback
from emailproxy.config.model import KIB, SECONDS
from emailproxy.config.outbound import Outbound
from emailproxy.config.proxies import Proxy, ProxyFailed, Scheme, UnusableProxy
from emailproxy.errors import ProviderUnavailable, system_words
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.replies import BUSY, Unreadable, retry_after_s
from emailproxy.oauth.sessions import UnusableCa, trusting
from emailproxy.oauth.unreachable import behind_proxy, busy, late, no_way, unreachable, untrusted

CONNECT_S = 10 * SECONDS
MAX_BODY = 64 * KIB  # octets: a reply holds three tokens at most
# http.client's words where a proxy answers CONNECT with another status than 200
NO_TUNNEL = re.compile(r"Tunnel connection failed: (?P<status>[0-9]{3})(?P<reason>.*)", re.DOTALL)
# PySocks' words where a SOCKS proxy answers with a code
NO_WAY = re.compile(r"0x(?P<code>[0-9a-f]{2}): (?P<reason>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back last, for whoever has to say that it makes no sense."""

    host: str
    status: int


class BoundedSession(requests.Session):
    """A session whose failures are `requests` exceptions, each caused by a `ProviderUnavailable` that says it all.

    Threads share it: it keeps no cookies, and takes no passwords from ``.netrc``.
    """

    def __init__(self, ca_file: Path | None, outbound: Outbound, left_s: Callable[[], float]) -> None:
        """`left_s` says how many seconds the calling thread has for further requests.

        Raises:
            Refrain: the file holds no certificates.
        """
        super().__init__()
        try:
            context = trusting(ca_file)
        except UnusableCa as error:
            raise Refrain(f"{error}; give a file of PEM certificates") from None
        self._adapter = BoundedAdapter(context, outbound, left_s)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)
        self.headers["Accept-Encoding"] = "identity"  # a limit on octets is one on what they unpack to
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self.auth = unchanged
        self.trust_env = False  # which proxy is the adapter's to say

    @property
    def answer(self) -> Answer | None:
        """The last reply that this thread got; None where its last request got none."""
        return self._adapter.answer

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """A secret follows no redirect."""
        return None


class BoundedAdapter(HTTPAdapter):
    """Sends one request, and reads its whole reply."""

    def __init__(self, context: ssl.SSLContext, outbound: Outbound, left_s: Callable[[], float]) -> None:
        self._context = context
        self._outbound = outbound
        self._left_s = left_s
        self._current = threading.local()
        self._pools = pools(left_s)
        super().__init__()

    @property
    def answer(self) -> Answer | None:
        return getattr(self._current, "answer", None)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        if str(proxy).startswith("socks"):
            manager = super().proxy_manager_for(proxy, **options, ssl_context=self._context)
            manager.pool_classes_by_scheme = socks_pools(self._left_s)
            return manager
        manager = super().proxy_manager_for(
            proxy, **options, ssl_context=self._context, proxy_ssl_context=self._context
        )
        manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Verifying is the context's: neither certifi's list nor REQUESTS_CA_BUNDLE is added to what it trusts."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The library's own wishes for time, trust and way (`timeout`, `verify`, `cert`, `proxies`) are passed over."""
        host = urlsplit(request.url or "").netloc
        self._current.answer = None
        proxy: Proxy | None = None
        try:
            proxy = self._proxy_for(request.url or "")
            response, body = self._whole_reply(request, proxy)
        except UnusableProxy as error:
            raise requests.ConnectionError(request=request) from no_way(host, error)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise requests.ConnectionError(request=request) from explained(error, host, proxy)
        status = response.status_code
        self._current.answer = Answer(host, status)
        if status in BUSY or status >= 500:
            wait_s = retry_after_s(response.headers.get("Retry-After"), time.time())
            raise requests.ConnectionError(request=request) from busy(host, status, wait_s)
        if body is None:
            raise requests.ConnectionError(request=request) from too_long(host, status)
        response._content = body
        return response

    def _proxy_for(self, url: str) -> Proxy | None:
        """What this machine answers is no proxy's business: it hands tokens to whoever asks."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        return None if is_loopback(host) else self._outbound.proxy_for(parts.scheme, host)

    def _whole_reply(
        self, request: requests.PreparedRequest, proxy: Proxy | None
    ) -> tuple[requests.Response, bytes | None]:
        left_s = self._left_s()
        if left_s <= 0:  # urllib3 takes no such timeout
            raise TimeoutError
        timeout = (min(CONNECT_S, left_s), left_s)
        proxies = {} if proxy is None else {"all": proxy.url.reveal()}
        with super().send(request, stream=True, timeout=timeout, verify=True, proxies=proxies) as response:
            return response, bounded(response.raw)


def pools(left_s: Callable[[], float]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Connection pools by scheme, whose connections take part in the calling thread's time limit.

    urllib3's own limits are for single reads: a head, or informational replies (RFC 9110 section 15.2), that trickle in
    would go on for as long as the other side likes.
    """

    timed = hurrying(left_s)

    class Plain(timed, HTTPConnection):  # type: ignore[misc, valid-type]  # a class made here
        pass

    class Encrypted(timed, HTTPSConnection):  # type: ignore[misc, valid-type]
        pass

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def socks_pools(left_s: Callable[[], float]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """The same through a SOCKS proxy, by PySocks."""
    from urllib3.contrib import socks

    timed = hurrying(left_s)

    class Plain(timed, socks.SOCKSConnection):  # type: ignore[misc, valid-type]
        pass

    class Encrypted(timed, socks.SOCKSHTTPSConnection):  # type: ignore[misc, valid-type]
        pass

    class PlainPool(socks.SOCKSHTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(socks.SOCKSHTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def hurrying(left_s: Callable[[], float]) -> type:
    """What is added to a connection class of urllib3's."""

    class Timed:
        def connect(self) -> None:
            super().connect()  # type: ignore[misc]
            in_time(left_s)

        def response_class(self, sock: socket.socket, **options: Any) -> HTTPResponse:
            return HTTPResponse(Hurried(sock, left_s), **options)  # type: ignore[arg-type]  # it only asks for a file

    return Timed


def in_time(left_s: Callable[[], float]) -> float:
    """The seconds that are left.

    Raises:
        TimeoutError: there are none; looking up a name knows no time limit.
    """
    left = left_s()
    if left <= 0:
        raise TimeoutError
    return left


class Hurried:
    """A socket, as what reads a reply sees it."""

    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._sock = sock
        self._left_s = left_s

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(HurriedFile(self._sock, self._left_s))


class HurriedFile(io.RawIOBase):
    """What a socket receives, for as long as there is time."""

    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)  # the socket stays open for as long as this
        self._left_s = left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(in_time(self._left_s))
        return self._file.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def bounded(raw: Any) -> bytes | None:
    """The whole body, or None where it is longer than a reply can be."""
    body = bytearray()
    while chunk := raw.read1(MAX_BODY + 1 - len(body), decode_content=False):
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An `auth` that adds nothing; without one, requests asks ``.netrc``."""
    return request


def explained(error: Exception, host: str, proxy: Proxy | None) -> ProviderUnavailable:
    """Why a request had no reply, and what to do."""
    reasons = below(error)
    if any(is_timeout(reason) for reason in reasons):
        return late(host)
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return untrusted(host, reason.verify_message)
    if any(isinstance(reason, (ssl.SSLError, requests.exceptions.SSLError)) for reason in reasons):
        return untrusted(host, None)
    if proxy is not None:
        return behind_proxy(host, failure(proxy, reasons))
    return unreachable(host, telling(reasons) or error)


def telling(reasons: list[BaseException]) -> BaseException | None:
    """The one that the system has words for."""
    return next((reason for reason in reasons if getattr(reason, "errno", None)), None)


def failure(proxy: Proxy, reasons: list[BaseException]) -> ProxyFailed:
    """What a proxy did not do, from what the libraries make of that."""
    said = http_failure(proxy, reasons) if proxy.scheme is Scheme.HTTP else socks_failure(proxy, reasons)
    if said is not None:
        return said
    if any(isinstance(reason, RemoteDisconnected) for reason in reasons):
        return proxy.hinders("the connection was closed")
    return proxy.hinders(system_words(telling(reasons) or reasons[-1]))


def http_failure(proxy: Proxy, reasons: list[BaseException]) -> ProxyFailed | None:
    for reason in reasons:
        if refusal := NO_TUNNEL.match(str(reason)):
            return proxy.refused(int(refusal["status"]), refusal["status"] + refusal["reason"])
    cause = telling(reasons)
    if cause is not None and any(isinstance(reason, urllib3.exceptions.ProxyError) for reason in reasons):
        return proxy.unreachable(system_words(cause))
    return None


def socks_failure(proxy: Proxy, reasons: list[BaseException]) -> ProxyFailed | None:
    """PySocks puts what it finds into a general error of its own."""
    import socks

    for reason in reasons:
        match reason:
            case socks.SOCKS5AuthError():
                return proxy.wants_login()
            case socks.SOCKS5Error():
                answered = NO_WAY.match(str(reason))
                return proxy.refused(int(answered["code"], 16), answered["reason"]) if answered else None
            case socks.ProxyConnectionError():
                return proxy.unreachable(system_words(telling(reasons) or reason))
            case socks.GeneralProxyError() if "invalid data" in str(reason) and reason.socket_err is None:
                return proxy.babbles()
            case socks.GeneralProxyError() if "closed unexpectedly" in str(reason):
                return proxy.closed()
    return None


def is_timeout(error: BaseException) -> bool:
    late = isinstance(error, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError)
    return late and not isinstance(error, urllib3.exceptions.NewConnectionError)  # refused; urllib3 has it as a timeout


def below(error: BaseException | None) -> list[BaseException]:
    """The error and what lies below it: requests and urllib3 wrap causes in arguments, reasons and contexts."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        reason = waiting.pop()
        if isinstance(reason, BaseException) and not any(reason is known for known in found):
            found.append(reason)
            waiting += [*reason.args, getattr(reason, "reason", None), reason.__cause__, reason.__context__]
    return found


def too_long(host: str, status: int) -> Unreadable:
    return Unreadable(
        f"the provider at {host} sent more than {MAX_BODY // KIB} KiB (HTTP {status}); tokens are kept, try again later"
    )
