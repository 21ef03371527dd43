"""One address for several processes: each gets connections, nobody else gets in, and it is kept for who comes again."""

from __future__ import annotations

import socket
import sys

import pytest

from emailproxy.config.model import MailProtocol, Server
from emailproxy.errors import ServiceError
from emailproxy.net.binding import bind
from emailproxy.net.sharing import SharedAddress

CLIENTS = 60  # of which one of two sockets gets none once in 2^59 times


def server(port: int) -> Server:
    return Server(section=f"IMAP-{port}", protocol=MailProtocol.IMAP, local_port=port, local_address="127.0.0.1")


async def first() -> socket.socket:
    (sock,) = await bind(server(0))
    return sock


def accepted(listening: socket.socket) -> int:
    """How many connections wait there; they are closed."""
    count = 0
    listening.setblocking(False)
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def connect(address: tuple[str, int]) -> None:
    for _ in range(CLIENTS):
        socket.create_connection(address).close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all accept from one socket")
async def test_the_kernel_spreads_connections_and_who_ends_takes_none_along() -> None:
    shared = SharedAddress(await first())
    one, other = shared.take(), shared.take()
    connect(shared.address)
    counts = [accepted(sock) for sock in (one, other)]
    assert (sum(counts), 0 in counts) == (CLIENTS, False)
    one.close()
    connect(shared.address)
    assert accepted(other) == CLIENTS
    successor = shared.take()
    connect(shared.address)
    assert accepted(successor)
    for sock in (other, successor):
        sock.close()
    shared.close()


@pytest.mark.parametrize("spread", [True, False])
async def test_nobody_else_gets_the_address_while_it_is_kept_whoever_listens(spread: bool) -> None:
    if spread and sys.platform != "linux":
        pytest.skip("elsewhere all accept from one socket")
    shared = SharedAddress(await first(), spread=spread)
    port = shared.address[1]
    for sockets in ([shared.take(), shared.take()], []):
        with pytest.raises(ServiceError, match=f"port {port}: the port is in use; is emailproxy running already"):
            await bind(server(port))
        for sock in sockets:
            sock.close()
    shared.close()
    (again,) = await bind(server(port))
    again.close()


async def test_elsewhere_all_accept_from_one_socket() -> None:
    shared = SharedAddress(await first(), spread=False)
    one, other = shared.take(), shared.take()
    connect(shared.address)
    one.close()
    assert accepted(other) == CLIENTS
    other.close()
    shared.close()
