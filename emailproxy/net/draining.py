"""When a relay is idle: while the server stops, and after its client has ended its stream.

Nothing is parsed for that. A relay knows who spoke last, but not when: that the kernel remembers, where it is Linux;
from when on somebody wants to know, the ends tell of every chunk.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from emailproxy.net.relay import Relay, Wire

SAMPLES = 4  # looks within the time that a relay must be quiet: what is sent meanwhile is seen to be gone that exactly
TCP_INFO = struct.Struct("=24xI24xI88xI")
"""linux/tcp.h, struct tcp_info: tcpi_unacked, tcpi_last_data_recv (in milliseconds), tcpi_notsent_bytes (Linux 4.6)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a relay may be quiet before it is idle."""

    quiet_s: float = 2.0
    """When the mail server spoke last: transfers that pause, for a disk or for the network, rarely do so for longer."""
    answer_s: float = 10.0
    """When the client did: a server takes its time for a search, or to look through a message that it was sent."""
    goodbye_s: float = 2.0
    """For the peers to hang up, too, once they have been told."""


PATIENCE = Patience()


class Sight(NamedTuple):
    """What the kernel knows of a connection."""

    heard_ago_s: float
    """How long it is since octets came."""
    outgoing: bool
    """Whether octets that were sent have not arrived yet."""


def sight(transport: asyncio.Transport) -> Sight | None:
    """What the kernel knows of this connection; None where it does not tell."""
    connection = transport.get_extra_info("socket")
    if sys.platform != "linux" or connection is None:
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
        unacknowledged, heard_ago_ms, not_sent = TCP_INFO.unpack(told)
    except (OSError, ValueError, struct.error):  # it is closed; a kernel that tells less
        return None
    return Sight(heard_ago_ms / 1000, outgoing=bool(unacknowledged or not_sent))


class Watch:
    """Ends a relay when it is idle: when nothing has come from either side for a while, and nothing is on its way."""

    __slots__ = ("_heard_s", "_loop", "_patience", "_relay", "_timer")

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._patience = PATIENCE
        self._heard_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def remember(self) -> None:
        """That it was quiet before somebody watched counts, too, where the kernel knows."""
        if all(sight(wire.transport) for wire in self._relay.wires):
            self._heard_s = -math.inf

    def begin(self, patience: Patience) -> None:
        """The relay ends with this patience, whatever it was before."""
        self.cancel()
        self._patience = patience
        self._look()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def heard(self) -> None:
        """Octets came, from either side."""
        self._heard_s = self._loop.time()

    def _look(self) -> None:
        if self._relay.is_ending:
            return
        now_s, patience = self._loop.time(), self._patience
        self._heard_s = max(self._heard_s, *(now_s - _busy_ago_s(wire) for wire in self._relay.wires))
        if now_s - self._heard_s >= (patience.answer_s if self._relay.awaits_answer else patience.quiet_s):
            self._relay.stop()
            self._timer = self._loop.call_later(patience.goodbye_s, self._relay.abort)
        else:
            self._timer = self._loop.call_later(min(patience.quiet_s, patience.answer_s) / SAMPLES, self._look)


def _busy_ago_s(wire: Wire) -> float:
    """How long ago octets came, be they unread, or were on their way to the peer."""
    seen = sight(wire.transport)
    if wire.write_paused or wire.unsent or (seen is not None and seen.outgoing):
        return 0.0
    return math.inf if seen is None else seen.heard_ago_s
