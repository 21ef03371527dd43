"""TLS sessions to mail servers are resumed, and only where the certificate was verified for that host and port."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.net import tls
from tests.e2e.harness.ports import free_ports
from tests.net.loops import on_both_loops
from tests.net.stubs import LOGIN, accept_login, proxy_to, upstream_server


@dataclass
class Server:
    """An IMAP server; `resumed` says of each login whether its TLS session was an old one."""

    context: ssl.SSLContext
    port: int = 0
    resumed: list[bool] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept_login(reader, writer)
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        await reader.read()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Server]:
        async with upstream_server(self.serve, self.context, port) as self.port:
            yield self


@on_both_loops
async def test_the_second_login_resumes_and_so_do_all_others(authority: Authority) -> None:
    async with (
        Server(authority.issue("localhost").server_context()).running() as server,
        proxy_to(server.port, authority.certificate_file) as proxy,
    ):
        for _ in range(4):
            _, writer = await proxy.log_in()
            writer.close()
    assert server.resumed == [False, True, True, True]


@on_both_loops
async def test_another_port_of_the_host_is_verified_for_itself(authority: Authority) -> None:
    """Its server would resume the session, too, but has another host's certificate."""
    context = authority.issue("localhost").server_context()
    async with Server(context).running() as server, Server(context).running() as other:
        async with proxy_to(server.port, authority.certificate_file) as proxy:
            _, writer = await proxy.log_in()
            writer.close()
            wrong = authority.issue("elsewhere.example")
            context.load_cert_chain(wrong.certificate_file, wrong.key_file)
            _, writer = await proxy.log_in()
            writer.close()
        async with proxy_to(other.port, authority.certificate_file) as proxy:
            reader, writer = await proxy.connect()
            await reader.readline()
            writer.write(LOGIN)
            assert b"the certificate of localhost is not valid" in await reader.readline()
            writer.close()
    assert server.resumed == [False, True]
    assert other.resumed == []


@on_both_loops
async def test_a_session_that_the_server_does_not_know_costs_nothing(authority: Authority) -> None:
    certificate = authority.issue("localhost")
    first, second = (Server(certificate.server_context()) for _ in range(2))
    async with AsyncExitStack() as stack:
        async with first.running(*free_ports(1)):
            proxy = await stack.enter_async_context(proxy_to(first.port, authority.certificate_file))
            _, writer = await proxy.log_in()
            writer.close()
        async with second.running(first.port):
            for _ in range(2):
                _, writer = await proxy.log_in()
                writer.close()
    assert second.resumed == [False, True]


@on_both_loops
async def test_the_certificate_is_looked_at_again_after_a_while(authority: Authority) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tls, "MAX_SESSION_S", 0.0)
        async with (
            Server(authority.issue("localhost").server_context()).running() as server,
            proxy_to(server.port, authority.certificate_file) as proxy,
        ):
            for _ in range(2):
                _, writer = await proxy.log_in()
                writer.close()
    assert server.resumed == [False, False]


@on_both_loops
async def test_after_a_handshake_that_failed_the_next_is_a_whole_one(authority: Authority) -> None:
    context = authority.issue("localhost").server_context()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with AsyncExitStack() as stack:
        server = Server(context)
        async with server.running(*free_ports(1)):
            proxy = await stack.enter_async_context(proxy_to(server.port, authority.certificate_file))
            _, writer = await proxy.log_in()
            writer.close()
        async with upstream_server(hang_up, None, server.port):
            reader, writer = await proxy.connect()
            await reader.readline()
            writer.write(LOGIN)
            assert b"UNAVAILABLE" in await reader.readline()
            writer.close()
        async with server.running(server.port):
            _, writer = await proxy.log_in()
            writer.close()
    assert server.resumed == [False, False]
