"""Who may come in: limits and networks, and what those who may not are told."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from dataclasses import replace
from functools import partial

import pytest

from emailproxy.config.model import FirstLogin, LocalStartTls, MailProtocol, Networks, Server
from emailproxy.demo.certificates import Authority
from emailproxy.errors import WrongPassword
from emailproxy.net.admission import COMPLAINT_S, Doorman, NotAdmitted, Ticket, plain_address, within
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Listener
from emailproxy.net.section import Section
from emailproxy.net.shared import Shared
from emailproxy.wire.events import LocalTls
from tests.net.loops import on_both_loops
from tests.net.stubs import LIMITS, LOGIN, Tokens, proxy_before, proxy_to
from tests.net.test_local_tls import files
from tests.net.test_places import accepting


def networks(*texts: str) -> Networks:
    return tuple(ipaddress.ip_network(text) for text in texts)


@pytest.mark.parametrize(
    ("peername", "address"),
    [
        (("127.0.0.1", 1), "127.0.0.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::1"),
        (None, "unknown"),
    ],
)
def test_addresses_are_spelt_one_way(peername: object, address: str) -> None:
    assert plain_address(peername) == address


@pytest.mark.parametrize(
    ("address", "inside"),
    [("192.0.2.1", True), ("192.0.3.1", False), ("2001:db8::1", True), ("::1", False), ("unknown", False)],
)
def test_networks_of_both_families(address: str, inside: bool) -> None:
    assert within(address, networks("192.0.2.0/24", "2001:db8::/32")) is inside


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (MailProtocol.IMAP, b"* BYE [LIMIT] your address may not use this port (allow_from)\r\n"),
        (MailProtocol.POP, b"-ERR [IN-USE] your address may not use this port (allow_from)\r\n"),
        (MailProtocol.SMTP, b"421 4.7.0 your address may not use this port (allow_from)\r\n"),
    ],
)
@on_both_loops
async def test_others_than_allow_from_are_turned_away(
    protocol: MailProtocol, words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.monotonic()
    async with proxy_to(9, protocol=protocol, allow_from=networks("192.0.2.0/24")) as proxy:
        for _ in range(20):
            reader, writer = await proxy.connect()
            assert await reader.read() == words
            writer.close()
        await proxy.listener._empty.wait()
        assert proxy.shared.doorman.inside == 0
        assert not proxy.shared.doorman._by_address
    assert 1 <= caplog.text.count("turned away") <= 2 + (time.monotonic() - began_s) / COMPLAINT_S


@on_both_loops
async def test_connections_whose_login_is_undecided_are_limited_alone(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Those who are logged in do not count; a refused login does, until its client leaves."""
    async with proxy_before(accepting, authority, limits=replace(LIMITS, max_unauthenticated=2)) as proxy:
        inside = [await proxy.log_in() for _ in range(5)]
        undecided = [await proxy.connect() for _ in range(2)]
        for reader, _ in undecided:
            await reader.readline()
        proxy.tokens.error = WrongPassword("wrong")
        undecided[0][1].write(LOGIN)
        assert (await undecided[0][0].readline()).startswith(b"a NO")
        reader, writer = await proxy.connect()
        words = b"* BYE [LIMIT] too many connections that have not logged in; try again later\r\n"
        assert await reader.read() == words
        writer.close()
        undecided[0][1].transport.abort()
        while proxy.shared.doorman.undecided > 1:
            await asyncio.sleep(0)
        reader, writer = await proxy.connect()
        assert (await reader.readline()).startswith(b"* OK")
        for _, other in [*inside, *undecided, (None, writer)]:
            other.close()
    assert "too many connections that have not logged in" in caplog.text


@pytest.mark.parametrize("limits", [{"max_unauthenticated": 3}, {"max_connections": 3}], ids=str)
@on_both_loops
async def test_who_comes_from_elsewhere_finds_room_among_the_silent(
    authority: Authority, caplog: pytest.LogCaptureFixture, limits: dict[str, int]
) -> None:
    """The oldest silent one of the address with the most goes, and its own newcomers are turned away as ever."""
    async with proxy_before(accepting, authority, limits=replace(LIMITS, **limits)) as proxy:
        silent = [await proxy.connect() for _ in range(3)]
        for reader, _ in silent:
            await reader.readline()
        inside = [await proxy.log_in(local_addr=("127.0.0.2", 0))]
        assert b"BYE" in await silent[0][0].read()
        reader, writer = await proxy.connect()
        if "max_connections" in limits:
            assert (await reader.readline()).startswith(b"* BYE [LIMIT] too many connections")
        silent[1][1].write(LOGIN)
        assert (await silent[1][0].readline()).startswith(b"a OK")
        for _, other in [*inside, *silent, (reader, writer)]:
            other.close()
    assert "the oldest of 127.0.0.1 that had not logged in gave way" in caplog.text
    assert (proxy.shared.doorman.inside, proxy.shared.doorman.undecided) == (0, 0)


async def test_nobody_gives_way_whose_login_is_being_decided_nor_for_who_holds_as_many() -> None:
    doorman = Doorman(replace(LIMITS, max_unauthenticated=4))
    gone: list[Ticket] = []
    tickets = {}
    for name, address in [("first", "A"), ("second", "A"), ("third", "A"), ("b", "B")]:
        ticket = tickets[name] = doorman.admit(address)
        ticket.known_as(address)
        ticket.give_way = partial(gone.append, ticket)
    tickets["first"].asking = True
    doorman.admit("B").known_as("B")
    assert gone == [tickets["second"]]
    for full in ("A", "B"):
        with pytest.raises(NotAdmitted, match="have not logged in"):
            doorman.admit(full)
    assert (doorman.inside, doorman.undecided) == (4, 4)


OFF, OFFERED, REQUIRED = LocalStartTls
NONE = LocalTls.NONE
TRUSTED = networks("192.0.2.0/24")
PLAINTEXT_RULES = [
    # certificate, starttls, allow_plaintext_from, peer, on a loopback, what there is
    (False, OFF, (), "127.0.0.1", True, NONE),
    (False, OFF, (), "198.51.100.1", True, NONE),
    (False, OFF, (), "198.51.100.1", False, None),
    (False, OFF, TRUSTED, "192.0.2.1", False, NONE),
    (False, OFF, TRUSTED, "198.51.100.1", False, None),
    (False, OFF, TRUSTED, "127.0.0.1", False, NONE),
    (True, OFFERED, (), "127.0.0.1", True, LocalTls.OFFERED),
    (True, OFFERED, (), "198.51.100.1", False, LocalTls.REQUIRED),
    (True, OFFERED, TRUSTED, "192.0.2.1", False, LocalTls.OFFERED),
    (True, OFFERED, TRUSTED, "198.51.100.1", False, LocalTls.REQUIRED),
    (True, OFFERED, TRUSTED, "::1", False, LocalTls.OFFERED),
    (True, REQUIRED, (), "127.0.0.1", True, LocalTls.REQUIRED),
    (True, REQUIRED, TRUSTED, "127.0.0.1", False, LocalTls.REQUIRED),
    (True, REQUIRED, TRUSTED, "192.0.2.1", False, LocalTls.OFFERED),
]


@pytest.mark.parametrize(("secured", "starttls", "plaintext", "peer", "on_loopback", "expected"), PLAINTEXT_RULES)
def test_who_may_do_without_tls(
    authority: Authority,
    secured: bool,
    starttls: LocalStartTls,
    plaintext: Networks,
    peer: str,
    on_loopback: bool,
    expected: LocalTls | None,
) -> None:
    settings = files(authority.issue("localhost"), starttls) if secured else {}
    server = Server(
        section="IMAP-1143",
        protocol=MailProtocol.IMAP,
        local_port=1143,
        allow_plaintext_from=plaintext,
        **settings,
    )
    dialer = Dialer()
    section = Section.of(server, Shared(dialer, Tokens()), None)
    dialer.close()
    if expected is None:
        with pytest.raises(NotAdmitted, match="no passwords in plaintext"):
            section.local_tls(peer, on_loopback=on_loopback)
    else:
        assert section.local_tls(peer, on_loopback=on_loopback) is expected


def address_of_this_host() -> str | None:
    """One that is no loopback's, if there is any: no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(sock.getsockname()[0])


@on_both_loops
async def test_plaintext_from_the_network_needs_a_say(caplog: pytest.LogCaptureFixture) -> None:
    outside = address_of_this_host()
    if outside is None or outside.startswith("127."):
        pytest.skip("this host has no other address than its loopbacks")
    async with proxy_to(9, local_address="0.0.0.0") as proxy:
        proxy.has_seen("IMAP4REV1")
        assert not proxy.listener.on_loopback
        reader, writer = await asyncio.open_connection(outside, proxy.port)
        assert b"this port takes no passwords in plaintext from your network" in await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert (await reader.readline()).startswith(b"* OK")
        writer.close()
        trusting = replace(proxy.server, allow_plaintext_from=networks(f"{outside}/32"))
        proxy.listener.update(trusting)
        reader, writer = await asyncio.open_connection(outside, proxy.port)
        assert (await reader.readline()).startswith(b"* OK")
        writer.close()
    assert "turned away" in caplog.text


@pytest.mark.parametrize(
    ("said", "address", "on_loopback", "proxied", "may"),
    [
        (None, None, True, False, True),
        (None, None, True, True, None),
        (None, "0.0.0.0", False, False, None),
        (FirstLogin.TRUST, "0.0.0.0", False, False, True),
        (FirstLogin.TRUST, None, False, True, True),
        (FirstLogin.DENY, None, True, False, False),
        (FirstLogin.TRUST, None, False, False, False),  # a socket that was passed, and is wider than what was checked
        (None, "localhost", False, False, False),
    ],
)
def test_whose_first_login_brings_a_password(
    said: FirstLogin | None, address: str | None, on_loopback: bool, proxied: bool, may: bool | None
) -> None:
    dialer = Dialer()
    server = Server(
        section="IMAP-1143",
        protocol=MailProtocol.IMAP,
        local_port=1143,
        local_address=address,
        first_login=said,
        proxy_protocol_from=TRUSTED if proxied else (),
    )
    listener = Listener(server, Shared(dialer, Tokens()))
    listener.on_loopback = on_loopback
    assert listener.may_set_first_password(server) is may
    dialer.close()
