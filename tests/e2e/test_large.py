"""Large messages pass byte for byte, a slow side holds the other back, half-closed connections end well."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import imaplib
import os
import poplib
import smtplib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy
from tests.e2e.harness.world import PASSWORD, USER, World, upstream

MIB = 1024 * 1024
LARGE = 200 * MIB
LINE = 988
"""Octets of a line: RFC 5322 section 2.1.1 allows 998."""
BLOCK = bytes(range(256)) * (MIB // 256)
WARM_MIB = 8
"""After so much the allocator has what it needs."""
STALLED_MIB = 96
"""More than the kernel's buffers of four sockets hold."""
STALL_S = 2.0
"""In so much time a relay that holds nothing back moves it all."""
GROWTH_KIB = 1024
"""What a stalled session may cost: its buffers of 64 KiB, and what the allocator takes at a time."""


def large_message() -> bytes:
    """200 MiB that do not compress, in lines that end in CRLF; some begin with a dot."""
    body = base64.b64encode(os.urandom(LARGE * 3 // 4))
    lines = [body[start : start + LINE] for start in range(0, len(body), LINE)]
    return b"Subject: large\r\n\r\n" + b"\r\n..".join(lines) + b"\r\n"


def digest(*parts: bytes) -> str:
    """Of large messages only this is compared: a difference of 200 MB helps nobody."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.system("dovecot")
@pytest.mark.timeout(240)
async def test_200_mb_pass_byte_for_byte_both_ways(world: World) -> None:
    message = await asyncio.to_thread(large_message)
    expected = digest(message)

    def by_imap() -> None:
        with imaplib.IMAP4("127.0.0.1", world.local.imap) as imap:
            imap.login(USER, PASSWORD)
            assert imap.append("INBOX", "", "", message)[0] == "OK"
            assert imap.select() == ("OK", [b"1"])
            _, [found, _] = imap.fetch("1", "(BODY.PEEK[])")
            assert isinstance(found, tuple)
            assert digest(found[1]) == expected

    def by_pop() -> None:
        pop = poplib.POP3("127.0.0.1", world.local.pop)
        pop.user(USER)
        pop.pass_(PASSWORD)
        lines = pop.retr(1)[1]
        assert digest(b"\r\n".join(lines), b"\r\n") == expected
        pop.quit()

    def by_smtp() -> None:
        with smtplib.SMTP("127.0.0.1", world.local.smtp_starttls) as smtp:
            smtp.login(USER, PASSWORD)
            smtp.sendmail(USER, ["bob@example.com"], message)

    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        idle = proxy.resident_kib
        await asyncio.to_thread(by_imap)
        await asyncio.to_thread(by_pop)
        await asyncio.to_thread(by_smtp)
        assert proxy.resident_kib - idle < 16 * 1024
    content = (await world.sink.next()).content
    assert digest(content[content.index(b"Subject: large") :]) == expected


class Firehose:
    """An IMAP server that takes any login, then sends or takes so many MiB as it is told: `b SEND 8`, `b TAKE 8`."""

    def __init__(self) -> None:
        self.port = 0
        self.reads = asyncio.Event()
        """Unset: the server takes nothing."""
        self.reads.set()
        self.sent = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
        tag = (await reader.readline()).split()[0]
        writer.write(tag + b" OK logged in\r\n")
        while command := await reader.readline():
            tag, what, mebibytes = command.split()
            for _ in range(int(mebibytes)):
                if what == b"SEND":
                    writer.write(BLOCK)
                    await writer.drain()
                else:
                    await self.reads.wait()
                    assert await reader.readexactly(MIB) == BLOCK
            self.sent.set()
            if what == b"TAKE":
                writer.write(tag + b" OK taken\r\n")


@asynccontextmanager
async def firehose(context: ssl.SSLContext) -> AsyncIterator[Firehose]:
    running = Firehose()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):  # The client is done with us.
            await running.serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


class Stream(NamedTuple):
    proxy: Proxy
    server: Firehose
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, mebibytes: int) -> asyncio.Task[None]:
        """Has the client send so much."""

        async def send() -> None:
            self.writer.write(b"b TAKE %d\r\n" % mebibytes)
            for _ in range(mebibytes):
                self.writer.write(BLOCK)
                await self.writer.drain()

        return asyncio.create_task(send())


@asynccontextmanager
async def logged_in(world: World) -> AsyncIterator[Stream]:
    """A client whose login went through the proxy to a firehose."""
    [local] = free_ports(1)
    async with firehose(world.authority.issue("localhost").server_context()) as server:
        config = world.configure(**{f"IMAP-{local}": upstream(server.port)})
        async with world.proxy(config) as proxy:
            await world.sign_in(proxy)
            reader, writer = await asyncio.open_connection("127.0.0.1", local, limit=MIB)
            try:
                await reader.readline()
                writer.write(f'a LOGIN {USER} "{PASSWORD}"\r\n'.encode())
                assert b" OK " in await reader.readline()
                yield Stream(proxy, server, reader, writer)
            finally:
                writer.close()


@pytest.mark.system("dovecot")
async def test_a_client_that_stops_reading_holds_the_server_back(world: World) -> None:
    async with logged_in(world) as stream:
        proxy, server, reader, writer = stream
        writer.write(b"b SEND %d\r\n" % WARM_MIB)
        await reader.readexactly(WARM_MIB * MIB)
        await server.sent.wait()
        server.sent.clear()
        warm_kib = proxy.resident_kib
        writer.write(b"c SEND %d\r\n" % STALLED_MIB)
        with pytest.raises(TimeoutError):  # That it is held back for ever can only be seen by waiting.
            await asyncio.wait_for(server.sent.wait(), STALL_S)
        assert proxy.resident_kib - warm_kib <= GROWTH_KIB
        for _ in range(STALLED_MIB):
            assert await reader.readexactly(MIB) == BLOCK
        assert proxy.resident_kib - warm_kib <= GROWTH_KIB


@pytest.mark.system("dovecot")
async def test_a_server_that_stops_reading_holds_the_client_back(world: World) -> None:
    async with logged_in(world) as stream:
        proxy, server, reader, _ = stream
        await stream.send(WARM_MIB)
        assert await reader.readline() == b"b OK taken\r\n"
        warm_kib = proxy.resident_kib
        server.reads.clear()
        sending = stream.send(STALLED_MIB)
        assert await asyncio.wait({sending}, timeout=STALL_S) == (set(), {sending})
        assert proxy.resident_kib - warm_kib <= GROWTH_KIB
        server.reads.set()
        assert await reader.readline() == b"b OK taken\r\n"
        await sending
        assert proxy.resident_kib - warm_kib <= GROWTH_KIB


@pytest.mark.system("dovecot")
async def test_a_client_that_half_closes_gets_all_answers(world: World) -> None:
    world.server.deliver(USER, [b"Subject: one\n\n" + b"x" * 60 + b"\n"] * 200)
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        reader, writer = await asyncio.open_connection("127.0.0.1", world.local.imap)
        await reader.readline()
        writer.write(f'a LOGIN {USER} "{PASSWORD}"\r\n'.encode())
        assert b"a OK" in await reader.readline()
        writer.write(b"b SELECT INBOX\r\nc FETCH 1:* BODY.PEEK[]\r\nd LOGOUT\r\n")
        writer.write_eof()
        said = await reader.read()
        writer.close()
    assert said.count(b"Subject: one") == 200
    assert b"* BYE" in said
    assert said.splitlines()[-1].startswith(b"d OK")
