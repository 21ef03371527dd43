"""The first process and workers of it, as far as their channels, in one process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

from emailproxy.net.places import Places
from emailproxy.workers.channel import Channel, Facts, Hearer, Message
from emailproxy.workers.member import Member, Offer
from emailproxy.workers.worker import CommonPlaces


class Silent:
    """Hears, and says nothing."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.is_over = False

    def told(self, message: Message) -> None:
        self.heard.append(message)

    async def asked(self, message: Message) -> Facts:
        self.heard.append(message)
        return {"octets": len(message.octets)}

    def ended(self) -> None:
        self.is_over = True


@contextlib.asynccontextmanager
async def channels(one: Hearer, other: Hearer) -> AsyncIterator[tuple[Channel, Channel]]:
    ends = socket.socketpair()
    pair = (Channel(ends[0], one), Channel(ends[1], other))
    try:
        yield pair
    finally:
        for channel in pair:
            channel.close()


async def nowhere(_account: str) -> None:
    """No worker listens for redirects."""


@contextlib.asynccontextmanager
async def worker_with(places: Places) -> AsyncIterator[tuple[Member, CommonPlaces]]:
    """A worker's places, and the first process's view of it."""
    member = Member(1, Offer(None, places, print, nowhere))  # type: ignore[arg-type]
    async with channels(member, Silent()) as (_, channel):
        yield member, CommonPlaces(channel)
