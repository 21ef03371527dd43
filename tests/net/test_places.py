"""Sessions of one account: first come, first served, and nobody who leaves keeps a place or a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from emailproxy.config.model import MailServer, Route
from emailproxy.demo.certificates import Authority
from emailproxy.errors import TooManySessions
from emailproxy.net.places import Place, Places, limit_of
from emailproxy.net.shared import SessionLimits
from tests.net.loops import on_both_loops
from tests.net.stubs import GREETING, LIMITS, Tokens, proxy_before

LONG_S = 60.0
MICROSOFT = MailServer("SMTP.office365.com", 587, starttls=True)
OTHER = MailServer("smtp.example.com", 465)


@pytest.mark.parametrize(
    ("protocol", "account", "section", "everybody", "target", "limit"),
    [
        ("IMAP", None, None, None, MICROSOFT, None),
        ("SMTP", None, None, None, MICROSOFT, 3),
        ("SMTP", None, None, None, OTHER, None),
        ("SMTP", None, None, 9, MICROSOFT, 9),
        ("SMTP", None, 8, 9, MICROSOFT, 8),
        ("SMTP", 7, 8, 9, MICROSOFT, 7),
    ],
)
def test_whose_limit_counts(
    protocol: str,
    account: int | None,
    section: int | None,
    everybody: int | None,
    target: MailServer,
    limit: int | None,
) -> None:
    limits = SessionLimits(max_connections_per_account=everybody)
    assert limit_of(protocol, Route("user", max_connections=account), section, limits, target) == limit


async def settle() -> None:
    """Everybody goes on until all wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    places, served = Places(), []

    async def log_in(number: int) -> Place:
        place = await places.take("user", "SMTP", 2, LONG_S)
        served.append(number)
        return place

    logins = [asyncio.create_task(log_in(number)) for number in range(5)]
    await settle()
    assert served == [0, 1]
    for number in range(3):
        (await logins[number]).leave()
        (await logins[number]).leave()  # once is enough
        await settle()
        assert served == [0, 1, 2, 3, 4][: number + 3]
    for number in (3, 4):
        (await logins[number]).leave()
    assert not places._queues


async def test_who_leaves_the_queue_leaves_nothing() -> None:
    places = Places()
    held = await places.take("user", "SMTP", 1, LONG_S)
    waiting = [asyncio.create_task(places.take("user", "SMTP", 1, LONG_S)) for _ in range(1000)]
    await settle()
    for task in waiting[:999]:
        task.cancel()
    await settle()
    assert len(places._queues["user", "SMTP"].waiting) == 1
    held.leave()
    (await waiting[999]).leave()
    assert not places._queues


async def test_a_turn_that_comes_as_its_login_leaves_is_the_next_ones() -> None:
    places = Places()
    held = await places.take("user", "SMTP", 1, LONG_S)
    first, second = (asyncio.create_task(places.take("user", "SMTP", 1, LONG_S)) for _ in range(2))
    await settle()
    held.leave()
    first.cancel()  # before it could learn that the place is its own
    (await second).leave()
    assert first.cancelled()
    assert not places._queues


async def test_patience_ends() -> None:
    places = Places()
    held = await places.take("user", "SMTP", 1, LONG_S)
    with pytest.raises(TooManySessions, match="user has 1 SMTP sessions already and may have 1"):
        await places.take("user", "SMTP", 1, 0)
    held.leave()
    assert not places._queues


async def test_accounts_and_protocols_do_not_wait_for_each_other() -> None:
    places = Places()
    held = [await places.take(*key, 1, LONG_S) for key in (("a", "SMTP"), ("a", "IMAP"), ("b", "SMTP"))]
    unlimited = [await places.take("a", "SMTP", None, LONG_S) for _ in range(3)]
    assert places.standing() == {"a": 5, "b": 1}
    for place in [*held, *unlimited]:
        place.leave()
    assert not places._queues


async def accepting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An IMAP server that logs in, and ends with the first command."""
    writer.write(GREETING)
    if command := await reader.readline():
        writer.write(command.split()[0] + b" OK logged in\r\n")
        await reader.readline()


Waiting = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@on_both_loops
async def test_the_next_login_waits_until_a_session_ends(authority: Authority) -> None:
    """Longer than the login deadline allows, if need be; and it is served before who came later."""
    limits = replace(LIMITS, max_connections_per_account=1, login_timeout_s=0.5)
    async with proxy_before(accepting, authority, limits=limits) as proxy:
        _, first = await proxy.log_in()
        clients = [await waiting_client(proxy.connect, proxy.tokens) for _ in range(3)]
        waiting = proxy.shared.places._queues["user@example.com", "IMAP"].waiting
        assert len(waiting) == 3
        _, impatient = clients.pop(1)
        impatient.transport.abort()
        while len(waiting) == 3 or not all(
            session._overdue for session in proxy.listener._sessions if not session._relay
        ):
            await asyncio.sleep(0.01)
        for reader, writer in clients:
            first.write(b"z LOGOUT\r\n")
            assert (await reader.readline()).startswith(b"a OK")
            first.close()
            first = writer
        impatient.close()
        first.write(b"z LOGOUT\r\n")
        await proxy.listener._empty.wait()
        first.close()
        assert not proxy.shared.places._queues


async def waiting_client(
    connect: Callable[[], Coroutine[None, None, tuple[asyncio.StreamReader, asyncio.StreamWriter]]], tokens: Tokens
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client whose login has its token by now."""
    reader, writer = await connect()
    await reader.readline()
    tokens.asked_one.clear()
    writer.write(b"a LOGIN user@example.com secret\r\n")
    await tokens.asked_one.wait()
    await settle()
    return reader, writer


@on_both_loops
async def test_no_session_ends_in_time(authority: Authority) -> None:
    limits = replace(LIMITS, login_queue_s=0.05)
    async with proxy_before(accepting, authority, limits=limits, max_connections_per_account=1) as proxy:
        _, first = await proxy.log_in()
        reader, writer = await waiting_client(proxy.connect, proxy.tokens)
        reply = await reader.readline()
        assert reply.startswith(b"a NO [LIMIT] user@example.com has 1 IMAP sessions already"), reply
        first.write(b"z LOGOUT\r\n")
        while proxy.shared.places._queues:
            await asyncio.sleep(0)
        writer.write(b"b LOGIN user@example.com secret\r\n")  # the connection is still there
        assert (await reader.readline()).startswith(b"b OK")
        writer.close()
        first.close()


@on_both_loops
async def test_a_login_that_the_server_refuses_keeps_no_place(authority: Authority) -> None:
    async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
        while command := await reader.readline():
            writer.write(command.split()[0] + b" NO no\r\n")

    async with proxy_before(refusing, authority, max_connections_per_account=1) as proxy:
        reader, writer = await proxy.connect()
        await reader.readline()
        for _ in range(3):
            writer.write(b"a LOGIN user@example.com secret\r\n")
            assert (await reader.readline()).startswith(b"a NO [AUTHORIZATIONFAILED]")
            assert not proxy.shared.places._queues
        writer.close()
