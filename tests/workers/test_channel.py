"""Messages between processes: of any size, in order, with sockets, and an end that everybody hears of."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import Any

import pytest

from emailproxy.errors import ServiceError
from emailproxy.workers.channel import Channel, Facts, Gone, Message
from tests.workers.pair import Silent, channels

LARGE = 3_000_000
"""Octets: no socket's buffer takes them at once."""


async def test_large_messages_and_sockets_arrive_in_order() -> None:
    hearer, sockets = Silent(), [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    names = [sock.getsockname() for sock in sockets]
    async with channels(Silent(), hearer) as (channel, _):
        channel.tell("first", sockets=sockets[:2])
        async with asyncio.timeout(20):
            large = asyncio.create_task(channel.ask("large", bytes(LARGE)))
            await asyncio.sleep(0)
            channel.tell("behind it", sockets=sockets[2:], section="IMAP-1993")
            small = await channel.ask("small", b"secret")
            assert (await large, small) == ({"octets": LARGE}, {"octets": 6})
        heard = {message.what: message for message in hearer.heard}
        assert [message.what for message in hearer.heard if not message.octets] == ["first", "behind it"]
        given = [*heard["first"].sockets, *heard["behind it"].sockets]
        assert [sock.getsockname() for sock in given] == names
        assert not any(os.get_inheritable(sock.fileno()) for sock in given)
        assert [sock.fileno() for sock in sockets] == [-1] * 3  # they are the other's now
        assert heard["behind it"].facts == {"section": "IMAP-1993"}
        assert "secret" not in repr(heard["small"])
        for sock in given:
            sock.close()


class Refuses(Silent):
    async def asked(self, message: Message) -> Facts:
        if message.what == "wrong":
            raise ServiceError("the port is in use")
        await asyncio.Event().wait()
        return {}


async def test_a_refusal_is_the_askers_and_an_end_is_everybodys() -> None:
    other = Refuses()
    async with channels(other, Silent()) as (theirs, channel):
        async with asyncio.timeout(20):
            with pytest.raises(ServiceError, match="the port is in use"):
                await channel.ask("wrong")
            waiting = asyncio.create_task(channel.ask("forever"))
            await asyncio.sleep(0)
            theirs.close()
            with pytest.raises(Gone):
                await waiting
            with pytest.raises(Gone):
                await channel.ask("again")
        assert not other.is_over  # it was its own doing


class Full(socket.socket):
    """The system has no room for the first of its messages, and then for one in two."""

    full = False

    def send(self, *arguments: Any) -> int:
        self.full = not self.full
        if self.full:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().send(*arguments)


async def test_what_finds_no_room_is_sent_later_in_order() -> None:
    hearer, (ours, theirs) = Silent(), socket.socketpair()
    channels = Channel(Full(fileno=ours.detach()), Silent()), Channel(theirs, hearer)
    for number in range(3):
        channels[0].tell("told", number=number)
    async with asyncio.timeout(20):
        assert await channels[0].ask("asked", b"12") == {"octets": 2}
    assert [message.facts.get("number") for message in hearer.heard] == [0, 1, 2, None]
    for channel in channels:
        channel.close()


async def test_a_message_that_cannot_be_sent_is_the_end_for_both(caplog: pytest.LogCaptureFixture) -> None:
    one, other, closed = Silent(), Silent(), socket.socket()
    closed.close()
    async with channels(one, other) as (channel, theirs):
        asked = asyncio.create_task(theirs.ask("anything"))
        channel.tell("sockets", sockets=[closed])
        with caplog.at_level(logging.ERROR, "emailproxy"):
            async with asyncio.timeout(20):
                with pytest.raises(Gone):
                    await channel.ask("anything")
                with pytest.raises(Gone):
                    await asked
        assert (one.is_over, other.is_over) == (True, True)
    assert "cannot be sent: Bad file descriptor" in caplog.text


async def test_the_end_of_the_other_process_is_heard() -> None:
    hearer = Silent()
    ours, theirs = socket.socketpair()
    channel = Channel(ours, hearer)
    theirs.close()
    async with asyncio.timeout(20):
        with pytest.raises(Gone):
            await channel.ask("anything")
    assert hearer.is_over
