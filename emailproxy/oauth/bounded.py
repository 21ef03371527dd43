"""An HTTP session for the libraries that bring requests: trust, time, size and redirects are ours to bound.

It is imported with those libraries only, as requests takes its time.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
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
from emailproxy.errors import ProviderUnavailable
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.replies import BUSY, Unreadable, retry_after_s
from emailproxy.oauth.unreachable import busy, late, unreachable, untrusted

CONNECT_S = 10 * SECONDS
MAX_BODY = 64 * KIB  # octets: a reply holds three tokens at most
METADATA_HOST = "metadata.google.internal"  # a link-local address, by name


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back last, for whoever has to say that it makes no sense."""

    host: str
    status: int


class BoundedSession(requests.Session):
    """A session whose failures are `requests` exceptions, each caused by a `ProviderUnavailable` that says it all.

    Threads share it: it keeps no cookies, and takes no passwords from ``.netrc``.
    """

    def __init__(self, ca_file: Path | None, left_s: Callable[[], float]) -> None:
        """`left_s` says how many seconds the calling thread has for further requests.

        Raises:
            Refrain: the file holds no certificates.
        """
        super().__init__()
        self._adapter = BoundedAdapter(trusting(ca_file), left_s)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)
        self.headers["Accept-Encoding"] = "identity"  # a limit on octets is one on what they unpack to
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self.auth = unchanged

    @property
    def answer(self) -> Answer | None:
        """The last reply that this thread got; None where its last request got none."""
        return self._adapter.answer

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """A secret follows no redirect."""
        return None

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """The environment's proxies are heeded, but not for what this machine or its host answers: that hands tokens
        to whoever asks, and it is not the proxy's business to."""
        settings: Any = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return {**settings, "proxies": {}} if is_local(urlsplit(str(url)).hostname or "") else settings


class BoundedAdapter(HTTPAdapter):
    """Sends one request, and reads its whole reply."""

    def __init__(self, context: ssl.SSLContext, left_s: Callable[[], float]) -> None:
        self._context = context
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
        manager = super().proxy_manager_for(
            proxy, **options, ssl_context=self._context, proxy_ssl_context=self._context
        )
        manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Verifying is the context's: neither certifi's list nor REQUESTS_CA_BUNDLE is added to what it trusts."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
        """The library's own wishes for time and trust (`timeout`, `verify`, `cert`) are passed over."""
        host = urlsplit(request.url or "").netloc
        self._current.answer = None
        try:
            response, body = self._whole_reply(request, options.get("proxies"))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise requests.ConnectionError(request=request) from explained(error, host)
        status = response.status_code
        self._current.answer = Answer(host, status)
        if status in BUSY or status >= 500:
            wait_s = retry_after_s(response.headers.get("Retry-After"), time.time())
            raise requests.ConnectionError(request=request) from busy(host, status, wait_s)
        if body is None:
            raise requests.ConnectionError(request=request) from too_long(host, status)
        response._content = body
        return response

    def _whole_reply(self, request: requests.PreparedRequest, proxies: Any) -> tuple[requests.Response, bytes | None]:
        left_s = self._left_s()
        if left_s <= 0:  # urllib3 takes no such timeout
            raise TimeoutError
        timeout = (min(CONNECT_S, left_s), left_s)
        with super().send(request, stream=True, timeout=timeout, verify=True, proxies=proxies) as response:
            return response, bounded(response.raw)


def pools(left_s: Callable[[], float]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Connection pools by scheme, whose connections take part in the calling thread's time limit.

    urllib3's own limits are for single reads: a head, or informational replies (RFC 9110 section 15.2), that trickle in
    would go on for as long as the other side likes.
    """

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            in_time(left_s)

        def response_class(self, sock: socket.socket, **options: Any) -> HTTPResponse:  # type: ignore[override]
            return HTTPResponse(Hurried(sock, left_s), **options)  # type: ignore[arg-type]  # it only asks for a file

    class Encrypted(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            in_time(left_s)

        response_class = Plain.response_class  # type: ignore[assignment]

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


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


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or better, verified against `ca_file`, or the system's trust store where there is none."""
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:  # ssl.SSLError, where it holds no certificate, is one
        raise Refrain(f"ca_file {ca_file} cannot be used ({error.strerror}); give a file of PEM certificates") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An `auth` that adds nothing; without one, requests asks ``.netrc``."""
    return request


def is_local(host: str) -> bool:
    """Whether this machine or its host answers for it: the loopback, link-local addresses (RFC 3927), the metadata
    servers of clouds."""
    if is_loopback(host) or host == METADATA_HOST:
        return True
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


def explained(error: Exception, host: str) -> ProviderUnavailable:
    """Why a request had no reply, and what to do."""
    reasons = below(error)
    if any(is_timeout(reason) for reason in reasons):
        return late(host)
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return untrusted(host, reason.verify_message)
    if any(isinstance(reason, (ssl.SSLError, requests.exceptions.SSLError)) for reason in reasons):
        return untrusted(host, None)
    return unreachable(host, next((reason for reason in reasons if getattr(reason, "errno", None)), error))


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
