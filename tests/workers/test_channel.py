"""Messages between processes: of any size, in order, with sockets, and an end that everybody hears of."""

from __future__ import annotations

import asyncio
import os
import socket

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


async def test_the_end_of_the_other_process_is_heard() -> None:
    hearer = Silent()
    ours, theirs = socket.socketpair()
    channel = Channel(ours, hearer)
    theirs.close()
    async with asyncio.timeout(20):
        with pytest.raises(Gone):
            await channel.ask("anything")
    assert hearer.is_over
