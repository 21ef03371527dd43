"""Connections to mail servers through proxies: every octet arrives, and who says no is named, without its password."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from emailproxy.config.outbound import Outbound
from emailproxy.errors import ServerUnavailable
from emailproxy.net import dial
from emailproxy.net.dial import Dialer
from emailproxy.secret import Secret
from tests.e2e.harness.ports import refusing
from tests.e2e.harness.wayout import microsocks, tinyproxy
from tests.fakes.tunnel import on_loopback, tunnel
from tests.fakes.wayward import REFUSED, UNREACHABLE, answering, socks5
from tests.net.loops import on_both_loops

GREETING = b"* OK [CAPABILITY IMAP4rev1] ready\r\n"
MAIL = ("mail.example", 993)
LOGIN = ("ada", "canary p@ss")


@asynccontextmanager
async def mail_server() -> AsyncIterator[int]:
    """Greets, and says back what it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while line := await reader.readline():
            writer.write(line)

    async with on_loopback(serve) as port:
        yield port


@asynccontextmanager
async def dialer(url: str | None, **more: str) -> AsyncIterator[Dialer]:
    dialer = Dialer(Outbound(None if url is None else Secret(url), environ=more))
    try:
        yield dialer
    finally:
        dialer.close()


async def talk(sock: socket.socket) -> bytes:
    """The greeting, and an echo."""
    assert not sock.getblocking()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    reader, writer = await asyncio.open_connection(sock=sock)
    greeting = await reader.readline()
    writer.write(b"echo\r\n")
    assert await reader.readline() == b"echo\r\n"
    writer.close()
    return greeting


async def greeting_through(url: str, host: str = MAIL[0], port: int = MAIL[1]) -> bytes:
    async with dialer(url) as ours:
        return await talk(await ours.connect(host, port))


@on_both_loops
async def test_through_an_http_proxy() -> None:
    async with mail_server() as port, tunnel({MAIL: port}) as proxy:
        assert await greeting_through(proxy) == GREETING
        assert proxy.asked == [MAIL]


@on_both_loops
async def test_through_a_socks_proxy_that_looks_names_up() -> None:
    async with mail_server() as port, socks5({MAIL: port}, login=LOGIN) as (proxy, asked):
        assert await greeting_through(f"socks5h://ada:canary%20p%40ss@127.0.0.1:{proxy}") == GREETING
        assert asked == [MAIL]


async def test_a_socks_proxy_that_is_given_addresses() -> None:
    async with mail_server() as port, socks5({("127.0.0.1", port): port}) as (proxy, asked):
        assert await greeting_through(f"socks5://127.0.0.1:{proxy}", "127.0.0.1", port) == GREETING
    assert asked == [("127.0.0.1", port)]


HEAD = b"HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + GREETING,),
        (HEAD[:-2], HEAD[-2:] + GREETING),
        (HEAD[:3], HEAD[3:-1], HEAD[-1:] + GREETING[:1], GREETING[1:]),
        tuple((HEAD + GREETING)[at : at + 1] for at in range(len(HEAD + GREETING))),
    ],
)
@pytest.mark.parametrize("nodelay", [False, True])
@on_both_loops
async def test_octets_behind_a_proxys_reply_are_not_lost(pieces: tuple[bytes, ...], nodelay: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            if nodelay:  # each in a segment of its own
                await asyncio.sleep(0)
        while line := await reader.readline():
            writer.write(line)

    async with on_loopback(serve) as port:
        assert await greeting_through(f"http://127.0.0.1:{port}") == GREETING


# ---- what goes wrong

ANSWERS: list[tuple[bytes, str]] = [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", r"does not take user name and password; correct them in"),
    (b"HTTP/1.1 403 Filtered\r\n\r\n", r"refuses to connect \(403 Filtered\); have whoever runs it allow this"),
    (b"HTTP/1.0 502 Bad Gateway\r\nX: y\r\n\r\nbody", r"does not get there \(502 Bad Gateway\); check the host's name"),
    (b"HTTP/1.1 500 \x1b[31mOops\r\n\r\n", r"refuses to connect \(500 \[31mOops\)"),
    (b"SSH-2.0-OpenSSH\r\n", r"what answers at 127\.0\.0\.1:\d+ is not an HTTP proxy; check scheme and port in"),
    (b"\x05\xff", r"what answers at 127\.0\.0\.1:\d+ is not an HTTP proxy"),
    (b"HTTP/1.1 abc\r\n\r\n", r"is not an HTTP proxy"),
    (b"", r"closed the connection; check upstream_proxy"),
]


@pytest.mark.parametrize(("answer", "words"), ANSWERS)
async def test_an_http_proxy_that_says_no_is_named(answer: bytes, words: str) -> None:
    async with answering(answer) as proxy, dialer(f"http://ada:canary@127.0.0.1:{proxy}") as ours:
        with pytest.raises(ServerUnavailable, match=words) as caught:
            await ours.connect(*MAIL)
    assert str(caught.value).startswith("the mail server mail.example:993 cannot be reached: ")
    assert "canary" not in str(caught.value)
    assert str(caught.value).isprintable()


async def test_a_proxy_that_wants_a_password_is_told_with_where_to_write_it() -> None:
    wanted = r"wants user name and password; set all_proxy in the environment to http://USER:PASSWORD@127\.0\.0\.1:\d+$"
    async with answering(ANSWERS[0][0]) as proxy, dialer(None, all_proxy=f"127.0.0.1:{proxy}") as ours:
        with pytest.raises(ServerUnavailable, match=wanted):
            await ours.connect(*MAIL)


@pytest.mark.parametrize(
    ("url", "reply", "words"),
    [
        ("socks5h://127.0.0.1:{}", 0, r"wants user name and password; set upstream_proxy to socks5h://USER:PASSWORD@"),
        ("socks5h://ada:canary@127.0.0.1:{}", 0, r"does not take user name and password; correct them in upstream_pr"),
        ("socks5h://ada:canary%20p%40ss@127.0.0.1:{}", REFUSED, r"refuses to connect \(Connection not allowed by rule"),
        ("socks5h://ada:canary%20p%40ss@127.0.0.1:{}", UNREACHABLE, r"does not get there \(Host unreachable\); check"),
    ],
)
async def test_a_socks_proxy_that_says_no_is_named(url: str, reply: int, words: str) -> None:
    async with socks5({}, login=LOGIN, reply=reply) as (proxy, _), dialer(url.format(proxy)) as ours:
        with pytest.raises(ServerUnavailable, match=words) as caught:
            await ours.connect(*MAIL)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x04\x5b" + bytes(6)])
async def test_what_is_no_socks_proxy_is_told(answer: bytes) -> None:
    async with answering(answer, http=False) as proxy, dialer(f"socks5h://127.0.0.1:{proxy}") as ours:
        with pytest.raises(ServerUnavailable, match=r"what answers at 127\.0\.0\.1:\d+ is not a SOCKS5 proxy"):
            await ours.connect(*MAIL)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_is_not_there_is_told(scheme: str) -> None:
    with refusing() as port:
        proxy = rf"{scheme}://127\.0\.0\.1:{port}"
        words = rf"its proxy {proxy} cannot be reached \(Connection refused\); check upstream_proxy"
        async with dialer(f"{scheme}://127.0.0.1:{port}") as ours:
            with pytest.raises(ServerUnavailable, match=words):
                await ours.connect(*MAIL)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_silent_proxy_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "CONNECT_TIMEOUT_S", 0.5)
    async with answering(http=False, stays=True) as proxy, dialer(f"{scheme}://127.0.0.1:{proxy}") as ours:
        with pytest.raises(ServerUnavailable, match=r"its proxy \S+ does not answer in time; check upstream_proxy"):
            await ours.connect(*MAIL)


async def test_names_that_cannot_be_looked_up_are_told() -> None:
    async with dialer("socks5h://no-such-proxy.invalid:1") as ours:
        with pytest.raises(
            ServerUnavailable, match=r"its proxy socks5h://no-such-proxy\.invalid:1 cannot be reached \("
        ):
            await ours.connect(*MAIL)
    async with dialer("socks5://127.0.0.1:1") as ours:
        with pytest.raises(ServerUnavailable, match=r"no-such-host\.invalid cannot be looked up .*socks5h in place of"):
            await ours.connect("no-such-host.invalid", 993)


async def test_a_url_that_is_none_lets_nothing_out() -> None:
    async with dialer("ftp://x:canary@y") as ours:
        with pytest.raises(ServerUnavailable, match="cannot be reached: upstream_proxy is no proxy's URL") as caught:
            await ours.connect("127.0.0.1", 1)
    assert "canary" not in str(caught.value)


async def test_what_needs_no_proxy_is_reached_without_one() -> None:
    async with mail_server() as port, dialer(None, all_proxy="http://127.0.0.1:1", no_proxy="localhost") as ours:
        assert await talk(await ours.connect("localhost", port)) == GREETING
        with pytest.raises(ServerUnavailable, match="its proxy"):
            await ours.connect("127.0.0.1", port)


async def test_without_a_word_there_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    ours = Dialer()
    async with mail_server() as port:
        assert await talk(await ours.connect("localhost", port)) == GREETING
    ours.close()


# ---- real ones


@pytest.mark.system("tinyproxy")
async def test_through_tinyproxy() -> None:
    async with mail_server() as port, tinyproxy() as way:
        assert await greeting_through(way.url, "localhost", port) == GREETING
        with pytest.raises(ServerUnavailable, match="does not take user name and password"):
            await greeting_through(way.url.replace("-canary", "-wrong"), "localhost", port)


@pytest.mark.system("microsocks")
async def test_through_microsocks() -> None:
    async with mail_server() as port, microsocks() as way:
        assert await greeting_through(way.url, "localhost", port) == GREETING
        assert await greeting_through(way.url.replace("socks5h", "socks5"), "localhost", port) == GREETING
        with pytest.raises(ServerUnavailable, match="wants user name and password"):
            await greeting_through(f"socks5h://{way.url.partition('@')[2]}", "localhost", port)


async def test_a_burst_of_logins_is_one_look_up_until_a_connection_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int) -> list[dial.AddrInfoType]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(dial, "_look_up", look_up)
    async with dialer(None) as direct:
        async with mail_server() as port:
            for _ in range(3):
                await talk(await direct.connect("mail.example", port))
        assert len(asked) == 1
        for _ in range(2):
            with pytest.raises(ServerUnavailable, match="refused"):
                await direct.connect("mail.example", port)
        assert len(asked) == 2, "an address that does not answer is looked up again"
        monkeypatch.setattr(dial, "FRESH_S", 0.0)
        async with mail_server() as other:
            for _ in range(2):
                await talk(await direct.connect("mail.example", other))
        assert len(asked) == 4


async def test_a_name_that_nobody_answers_for_holds_up_no_other_name_and_nobody_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered, addresses = threading.Event(), dial._look_up

    def look_up(host: str, port: int) -> list[dial.AddrInfoType]:
        if host.startswith("dead"):
            answered.wait()
        return addresses("127.0.0.1", port)

    monkeypatch.setattr(dial, "_look_up", look_up)
    monkeypatch.setattr(dial, "CONNECT_TIMEOUT_S", 0.5)
    async with mail_server() as port, dialer(None) as ours:
        dead = [asyncio.create_task(ours.connect(f"dead{number}.example", port)) for number in range(8)]
        try:
            await asyncio.sleep(0)  # their look-ups come first
            assert await talk(await ours.connect("alive.example", port)) == GREETING
            for task in dead:
                with pytest.raises(ServerUnavailable, match=r"cannot be looked up \(no answer\); check DNS"):
                    await task
            with pytest.raises(TimeoutError):
                ours.resolve("dead0.example", port).send(None)
        finally:
            answered.set()
