"""The workers' addresses: all of a configuration or none, and those that the service manager opened stay its own."""

from __future__ import annotations

import socket

import pytest

from emailproxy.config.model import MailProtocol, Server
from emailproxy.errors import ServiceError
from emailproxy.net.activation import Activated, Handed
from emailproxy.workers.ports import Ports
from tests.e2e.harness.ports import free_ports


def server(port: int) -> Server:
    return Server(section=f"IMAP-{port}", protocol=MailProtocol.IMAP, local_port=port, local_address="127.0.0.1")


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_a_passed_socket_is_everybodys_and_outlives_its_section() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        ports = Ports(Activated({f"IMAP-{port}": [passed.dup()]}))
        ports.add(await ports.opened([server(port)]))
        assert ports.notices() == []
        taken = [sockets for _ in range(2) for _, sockets in ports.take()]
        assert connects(port)
        passed.close()
        connection, _ = taken[1][0].accept()  # whichever of them asks
        connection.close()
        for [sock] in taken:
            sock.close()
        ports.add({}, [f"IMAP-{port}"])
        assert ports.addresses == {}
        assert "no section listens on" in ports.notices()[0]
        assert connects(port)  # it waits for the next one
        ports.close()
        assert not connects(port)


async def test_all_or_none() -> None:
    ports, (port, taken) = Ports(Activated({})), free_ports(2)
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(ServiceError, match=f"port {taken}.*in use"):
        await ports.opened([server(port), server(taken)])
    ports.add(await ports.opened([server(port)]))
    assert ports.addresses == {f"IMAP-{port}": [("127.0.0.1", port)]}
    ports.close()


async def test_what_no_section_takes_of_what_was_handed_over_is_closed() -> None:
    handed, sockets = Handed(), [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    handed.give("IMAP-1993", sockets[:1])
    handed.give("POP-1995", sockets[1:])
    assert handed.claim("IMAP-1993", 1993, object()) == sockets[:1]
    handed.release(handed)
    handed.close()
    assert [sock.fileno() == -1 for sock in sockets] == [False, True]
    sockets[0].close()
