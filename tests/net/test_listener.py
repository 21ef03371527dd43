"""Where a section listens, and how it takes over other settings while its sessions live on."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from emailproxy.config.model import LocalStartTls, MailProtocol, Server
from emailproxy.demo.certificates import Authority
from emailproxy.errors import ServiceError
from emailproxy.net import binding
from emailproxy.net.listener import Facts
from tests.net.loops import on_both_loops
from tests.net.stubs import LIMITS, LOGIN, Tokens, echo, proxy_before, proxy_to
from tests.net.test_local_tls import files

LOOPBACKS = ["127.0.0.1", "::1"] if os.path.exists("/proc/net/if_inet6") else ["127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "bound"),
    [
        (None, LOOPBACKS),
        ("localhost", LOOPBACKS),
        ("Localhost.", LOOPBACKS),
        ("127.0.0.2", ["127.0.0.2"]),
        ("[::1]", ["::1"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("::", ["::"]),
    ],
)
@on_both_loops
async def test_names_and_addresses(address: str | None, bound: list[str]) -> None:
    if "::" in str(bound) and "::1" not in LOOPBACKS:
        pytest.skip("this host has no IPv6")
    async with proxy_to(9, local_address=address) as proxy:
        assert [host for host, _ in proxy.listener.addresses] == bound
        assert proxy.listener.on_loopback is (bound[0] not in {"0.0.0.0", "::"})


class Names:
    """A loop that knows one name."""

    def __init__(self, name: str, *addresses: str) -> None:
        self._name = name
        self._addresses = addresses

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host != self._name:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self._addresses]


async def test_all_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(section="IMAP-1143", protocol=MailProtocol.IMAP, local_port=0, local_address="mail.example.com")
    names = Names("mail.example.com", "127.0.0.2", "127.0.0.3", "127.0.0.2")
    monkeypatch.setattr(binding.asyncio, "get_running_loop", lambda: names)
    sockets = await binding.bind(server)
    assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.2", "127.0.0.3"]
    for sock in sockets:
        sock.close()
    with pytest.raises(ServiceError, match=r"local_address no\.such\.name: Name or service not known"):
        await binding.bind(replace(server, local_address="no.such.name"))


async def test_where_one_address_cannot_be_had_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.3", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(section="IMAP-1143", protocol=MailProtocol.IMAP, local_port=port, local_address="mail")
        monkeypatch.setattr(binding.asyncio, "get_running_loop", lambda: Names("mail", "127.0.0.2", "127.0.0.3"))
        with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.3 port {port}: the port is in use"):
            await binding.bind(server)
        socket.create_server(("127.0.0.2", port)).close()


@on_both_loops
async def test_other_settings_drop_nobody(authority: Authority) -> None:
    """The socket stays, sessions live on with what they began with, and new ones meet the new settings."""
    async with proxy_before(echo, authority) as proxy:
        reader, writer = await proxy.log_in()
        waiting_reader, waiting = await proxy.connect()
        await waiting_reader.readline()
        other = Tokens(password="other")
        ours = files(authority.issue("localhost", "127.0.0.1"), LocalStartTls.OFF)
        proxy.listener.update(replace(proxy.server, **ours), other)
        secured_reader, secured = await proxy.connect(ssl=authority.client_context())
        assert (await secured_reader.readline()).startswith(b"* OK")
        secured.write(b"a LOGIN user@example.com other\r\n")
        assert (await secured_reader.readline()).startswith(b"a OK")
        waiting.write(LOGIN)
        assert (await waiting_reader.readline()).startswith(b"a OK")
        for index in range(100):
            proxy.listener.update(proxy.server)
            writer.write(b"%d\r\n" % index)
            assert await reader.readline() == b"%d\r\n" % index
        assert len(other.asked) == 1
        assert len(proxy.tokens.asked) == 2
        for each in (writer, waiting, secured):
            each.close()


@on_both_loops
async def test_settings_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    async with proxy_to(9) as proxy:
        before = proxy.listener.section
        for wrong in ("local_certificate", "ca_file"):
            with pytest.raises(ServiceError, match=r"missing\.pem"):
                proxy.listener.update(replace(proxy.server, **{wrong: tmp_path / "missing.pem"}))
        assert proxy.listener.section is before


@on_both_loops
async def test_new_limits_hold_for_who_comes_next() -> None:
    async with proxy_to(9) as proxy:
        proxy.has_seen("IMAP4REV1")
        reader, writer = await proxy.connect()
        assert (await reader.readline()).startswith(b"* OK")
        proxy.shared.update(replace(LIMITS, max_connections=1))
        refused, refused_writer = await proxy.connect()
        assert (await refused.readline()).startswith(b"* BYE [LIMIT]")
        writer.write(b"a NOOP\r\n")
        assert (await reader.readline()).startswith(b"a OK")
        writer.close()
        refused_writer.close()


@on_both_loops
async def test_facts(authority: Authority) -> None:
    async with proxy_before(echo, authority) as proxy:
        addresses = ((proxy.host, proxy.port),)
        assert proxy.listener.facts() == Facts("TEST", addresses, sessions=0, logged_in=0)
        _, writer = await proxy.log_in()
        reader, waiting = await proxy.connect()
        await reader.readline()
        assert proxy.listener.facts() == Facts("TEST", addresses, sessions=2, logged_in=1)
        waiting.close()
        writer.close()


@on_both_loops
async def test_a_listener_that_stops_accepting_keeps_its_sessions(authority: Authority) -> None:
    async with proxy_before(echo, authority) as proxy:
        reader, writer = await proxy.log_in()
        proxy.listener.stop_accepting()
        while await refused(proxy.host, proxy.port) is None:
            await asyncio.sleep(0)
        writer.write(b"still here\r\n")
        assert await reader.readline() == b"still here\r\n"
        writer.close()


async def refused(host: str, port: int) -> OSError | None:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError as error:
        return error
    writer.transport.abort()
    return None
