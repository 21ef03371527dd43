"""Requests to providers and hooks go through proxies, whichever library sends them; a proxy's failures are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from emailproxy.config.model import Settings
from emailproxy.config.outbound import Outbound
from emailproxy.config.sources import HookUrl
from emailproxy.demo.certificates import Authority
from emailproxy.errors import EmailProxyError, ProviderUnavailable
from emailproxy.oauth.blocking import Blocking
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.hook_delivery import Delivery
from emailproxy.oauth.http import Form, TokenEndpoint
from emailproxy.oauth.replies import Reply
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.e2e.harness.ports import refusing
from tests.e2e.harness.wayout import microsocks, tinyproxy
from tests.fakes.tunnel import Target, on_loopback, tunnel
from tests.fakes.wayward import REFUSED, UNREACHABLE, answering, socks5

HOST = "login.example"
URL = f"https://{HOST}/token"
LOGIN = ("ada", "canary p@ss")
LOGIN_URL = "socks5h://ada:canary%20p%40ss@127.0.0.1:{}"
Ask = Callable[[str], Awaitable[str]]
"""Posts to a URL; what came back."""


@asynccontextmanager
async def by_aiohttp(ca_file: Path, outbound: Outbound | None) -> AsyncIterator[Ask]:
    endpoint = TokenEndpoint(ca_file=ca_file, outbound=outbound)

    def read(reply: Reply, *, now_s: int, sent: Collection[Secret]) -> str:
        return (reply.body or b"").decode()

    async def form() -> Form:
        return Form("a=b", ())

    try:
        yield lambda url: endpoint.ask(url, "client", form, read, once=True)
    finally:
        await endpoint.close()


@asynccontextmanager
async def by_requests(ca_file: Path, outbound: Outbound | None) -> AsyncIterator[Ask]:
    blocking = Blocking(ca_file=ca_file, outbound=outbound)
    try:
        yield lambda url: blocking.run(lambda: blocking.session().post(url, data={"a": "b"}).text)
    finally:
        blocking.close()


LIBRARIES = pytest.mark.parametrize("library", [by_aiohttp, by_requests])
Library = Callable[[Path, Outbound | None], AbstractAsyncContextManager[Ask]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def targets(authority: Authority) -> AsyncIterator[dict[Target, int]]:
    """A provider that only a proxy finds."""

    async with on_loopback(at_last, authority.issue(HOST).server_context()) as port:
        yield {(HOST, 443): port}


async def at_last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One reply."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nat last")


def out(url: str) -> Outbound:
    return Outbound(Secret(url))


@LIBRARIES
async def test_through_an_http_proxy(library: Library, authority: Authority, targets: dict[Target, int]) -> None:
    async with tunnel(targets) as proxy:
        async with library(authority.certificate_file, out(proxy)) as ask:
            assert await ask(URL) == "at last"
        assert proxy.asked == [(HOST, 443)]


@LIBRARIES
@pytest.mark.parametrize("login", [None, LOGIN])
async def test_through_a_socks_proxy(
    library: Library, authority: Authority, targets: dict[Target, int], login: tuple[str, str] | None
) -> None:
    async with socks5(targets, login=login) as (port, asked):
        async with library(authority.certificate_file, out(LOGIN_URL.format(port))) as ask:
            assert await ask(URL) == "at last"
        assert asked == [(HOST, 443)]


@LIBRARIES
async def test_a_socks_proxy_that_is_given_addresses(library: Library, authority: Authority) -> None:
    async with (
        socks5({}) as (port, asked),
        library(authority.certificate_file, out(f"socks5://127.0.0.1:{port}")) as ask,
    ):
        with pytest.raises(ProviderUnavailable, match="try socks5h in place of socks5"):
            await ask("https://192.0.2.1/token")
    assert asked == [("192.0.2.1", 443)]


@LIBRARIES
async def test_certificates_are_verified_end_to_end(
    library: Library, tmp_path: Path, targets: dict[Target, int]
) -> None:
    stranger = Authority.create(tmp_path, "a stranger")
    async with AsyncExitStack() as stack:
        proxies = [out(await stack.enter_async_context(tunnel(targets)))]
        port, _ = await stack.enter_async_context(socks5(targets))
        proxies.append(out(f"socks5h://127.0.0.1:{port}"))
        for outbound in proxies:
            async with library(stranger.certificate_file, outbound) as ask:
                with pytest.raises(ProviderUnavailable, match=r"cannot be trusted: unable to get local issuer"):
                    await ask(URL)


@LIBRARIES
async def test_the_environment_counts_where_nothing_else_is_said(
    library: Library, authority: Authority, targets: dict[Target, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with tunnel(targets) as proxy, library(authority.certificate_file, None) as ask:
        monkeypatch.setenv("all_proxy", proxy)
        assert await ask(URL) == "at last"
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        with pytest.raises(ProviderUnavailable, match=r"its proxy http://127\.0\.0\.1:1 cannot be reached"):
            await ask(URL)


# ---- what goes wrong

ANSWERS: list[tuple[bytes, str, bool]] = [
    (
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "does not take user name and password; correct them",
        False,
    ),
    (b"HTTP/1.1 403 Filtered\r\n\r\n", r"refuses to connect \(403 Filtered\); have whoever", False),
    (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", r"does not get there \(502 Bad Gateway\); check the", True),
    (b"", r"through the proxy \S+ \(the connection was closed\); check upstream_proxy and the network", True),
]


@LIBRARIES
@pytest.mark.parametrize(("answer", "words", "again"), ANSWERS)
async def test_an_http_proxy_that_says_no_is_named(
    library: Library, authority: Authority, answer: bytes, words: str, again: bool
) -> None:
    async with (
        answering(answer) as port,
        library(authority.certificate_file, out(f"http://ada:canary@127.0.0.1:{port}")) as ask,
    ):
        with pytest.raises(ProviderUnavailable, match=words) as caught:
            await ask(URL)
    assert str(caught.value).startswith(f"the provider at {HOST} cannot be reached")
    assert isinstance(caught.value, Refrain) is not again
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "words"),
    [
        (by_aiohttp, r"what answers at 127\.0\.0\.1:\d+ is not an HTTP proxy; check scheme and port in upstream_proxy"),
        (
            by_requests,
            r"cannot be reached through the proxy http://127\.0\.0\.1:\d+ \(BadStatusLine\); check upstream_",
        ),
    ],
)
async def test_what_is_no_http_proxy_is_told(library: Library, authority: Authority, words: str) -> None:
    async with (
        answering(b"SSH-2.0-OpenSSH\r\n\r\n") as port,
        library(authority.certificate_file, out(f"http://ada:canary@127.0.0.1:{port}")) as ask,
    ):
        with pytest.raises(ProviderUnavailable, match=words):
            await ask(URL)


@LIBRARIES
@pytest.mark.parametrize(
    ("url", "reply", "words", "again"),
    [
        ("socks5h://127.0.0.1:{}", 0, "wants user name and password; set upstream_proxy to socks5h://USER", False),
        ("socks5h://ada:canary@127.0.0.1:{}", 0, "does not take user name and password; correct them", False),
        (LOGIN_URL, REFUSED, r"refuses to connect \(Connection not allowed by ruleset\); have whoever", False),
        (LOGIN_URL, UNREACHABLE, r"does not get there \(Host unreachable\); check the", True),
    ],
)
async def test_a_socks_proxy_that_says_no_is_named(
    library: Library, authority: Authority, url: str, reply: int, words: str, again: bool
) -> None:
    async with (
        socks5({}, login=LOGIN, reply=reply) as (port, _),
        library(authority.certificate_file, out(url.format(port))) as ask,
    ):
        with pytest.raises(ProviderUnavailable, match=words) as caught:
            await ask(URL)
    assert str(caught.value).startswith(f"the provider at {HOST} cannot be reached")
    assert isinstance(caught.value, Refrain) is not again
    assert "canary" not in str(caught.value)


@LIBRARIES
@pytest.mark.parametrize(("answer", "words"), [(b"HTTP/1.1 400 No\r\n\r\n", "is not a SOCKS5 proxy"), (b"", "closed")])
async def test_what_is_no_socks_proxy_is_told(
    library: Library, authority: Authority, answer: bytes, words: str
) -> None:
    async with (
        answering(answer, http=False) as port,
        library(authority.certificate_file, out(f"socks5h://127.0.0.1:{port}")) as ask,
    ):
        with pytest.raises(ProviderUnavailable, match=words):
            await ask(URL)


@LIBRARIES
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_is_not_there_is_told(library: Library, authority: Authority, scheme: str) -> None:
    with refusing() as port:
        words = rf"its proxy {scheme}:\S+:{port} cannot be reached \(Connection re"
        async with library(authority.certificate_file, out(f"{scheme}://127.0.0.1:{port}")) as ask:
            with pytest.raises(ProviderUnavailable, match=words):
                await ask(URL)


@LIBRARIES
async def test_a_url_that_is_none_lets_nothing_out(library: Library, authority: Authority) -> None:
    async with library(authority.certificate_file, out("ftp://u:canary@p")) as ask:
        with pytest.raises(Refrain, match=f"the provider at {HOST} cannot be reached: upstream_proxy is no") as caught:
            await ask(URL)
    assert "canary" not in str(caught.value)


async def test_hooks_go_the_same_way(authority: Authority, targets: dict[Target, int], tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, log_file=tmp_path, ca_file=authority.certificate_file)
    commands = Commands()
    async with tunnel(targets) as proxy, answering(ANSWERS[0][0]) as refusing:
        for url, words in (
            (proxy, ""),
            (f"http://u:canary@127.0.0.1:{refusing}", f"hook: {HOST} cannot be reached: the proxy http://"),
            ("ftp://u:canary@p", f"hook: {HOST} was not asked: upstream_proxy is no proxy's URL"),
        ):
            delivery = Delivery(settings, commands, Secrets(commands), outbound=out(url), clock=Clock())
            told = ""
            try:
                await delivery.deliver(HookUrl(URL), "hook", b"{}")
            except EmailProxyError as error:
                told = str(error)
            assert told.startswith(words)
            assert bool(told) == bool(words)
            assert "canary" not in told
            await delivery.close()
        assert proxy.asked == [(HOST, 443)]


# ---- real ones


@pytest.mark.system("tinyproxy", "microsocks")
async def test_through_debians_proxies(authority: Authority) -> None:
    async with (
        on_loopback(at_last, authority.issue("localhost").server_context()) as port,
        tinyproxy() as http,
        microsocks() as socks,
    ):
        for way in (http, socks):
            async with by_aiohttp(authority.certificate_file, out(way.url)) as ask:
                assert await ask(f"https://localhost:{port}/token") == "at last"
