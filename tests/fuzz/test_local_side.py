"""The client's side under fire: its TLS, ports for all servers, mail without a login, and PROXY protocol headers."""

from __future__ import annotations

import ipaddress
import struct
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailproxy.errors import ProtocolError
from emailproxy.secret import Secret
from emailproxy.wire import events as ev
from emailproxy.wire.events import LocalTls, Side
from emailproxy.wire.proxyprotocol import MAX_V1, MAX_V2_REST, V2_FIXED, Header, Source
from emailproxy.wire.strangers import PROXY_V1, PROXY_V2
from tests.fuzz.test_dialogues import (
    ANY_TIME,
    CLIENT,
    FUZZ,
    HONEST,
    LAST,
    LINES,
    MOST_STEPS,
    OPTIONS,
    SERVER,
    Checked,
    octets,
)
from tests.wire.driver import LOGIN, PROTOCOLS, REMEMBERED, credential

CHUNKS = st.sampled_from([1, 2, 3, 7, 10**6])
TLS = {"IMAP": b"s STARTTLS\r\n", "POP3": b"STLS\r\n", "SMTP": b"STARTTLS\r\n"}
PRINTER = "printer@x.test"
FROM_THE_SERVER = (ev.ServerConnected, ev.ServerData)
LOGIN_OFFERS = (b"AUTH PLAIN", b"AUTH=PLAIN", b"SASL PLAIN", b"\r\nUSER\r\n")
PROMPTS = (b"+ ", b"334 ", b"+OK send PASS")
PLACES = [("one.test", 993, False), ("two.test", 993, False), ("one.test", 143, True)]
MAIL = b"MAIL FROM:<a@b>\r\n"


class LocalSide(Checked):
    """Watches over what must never happen on the client's side."""

    def __init__(self, protocol: str, terms: ev.Terms, server_options: dict[str, object]) -> None:
        super().__init__(protocol, terms, server_options)
        self.terms = terms
        self.tls = terms.local_tls
        self.client_in_handshake = False
        self.placed = not terms.routed
        self.asking = False
        self.logins = 0

    def feed(self, event: ev.Event) -> None:
        match event:
            case ev.TlsStarted(Side.CLIENT) if self.client_in_handshake:
                self.client_in_handshake, self.tls = False, LocalTls.ACTIVE
            case ev.Routed(terms) if self.asking and not self.placed:
                self.placed, self.starttls = True, terms.starttls
                self.server.starttls = terms.starttls
        breach = self.client_in_handshake and isinstance(event, ev.ClientData) and not self.over
        super().feed(event)
        assert self.over or not breach

    def check(self, effect: ev.Effect) -> None:
        required = self.tls is LocalTls.REQUIRED
        match effect:
            case ev.StartTls(Side.CLIENT, go_ahead):
                assert LINES.fullmatch(go_ahead)
                assert self.tls in {LocalTls.OFFERED, LocalTls.REQUIRED}
                assert self.dialogue.backlog == 0
                self.client_in_handshake = True
                self.answers.append(ev.TlsStarted(Side.CLIENT))
                return
            case ev.ToClient(data):
                assert not self.client_in_handshake
                if required and b"+ OK" not in data:  # a literal of ID, say
                    assert not data.startswith(PROMPTS)
                assert not (required and any(offer in data for offer in LOGIN_OFFERS))
            case ev.NeedToken(_, rejected):
                assert not required
                assert not self.client_in_handshake
                self.asking = True
                if rejected is None:
                    self.placed = not self.terms.routed
                    if self.terms.routed:
                        self.answers.append(ev.Routed(self.route()))
            case ev.Refused():
                self.asking = False
            case ev.Connect():
                assert self.placed
                beside_the_dial = [event for event in self.answers if not isinstance(event, FROM_THE_SERVER)]
                super().check(effect)
                self.answers.extend(beside_the_dial)
                return
            case ev.Relay(login, _, to_client, to_server):
                assert self.placed
                assert not required
                if login == ev.Login(PRINTER, Secret("")):
                    assert not to_client.startswith(b"235")
                    assert to_server[:4].upper() == b"MAIL"
        super().check(effect)

    def route(self) -> ev.Terms:
        host, port, starttls = PLACES[self.logins % len(PLACES)]
        self.logins += 1
        return ev.Terms(host=host, port=port, starttls=starttls)


def terms_of(protocol: str) -> st.SearchStrategy[ev.Terms]:
    return st.builds(
        ev.Terms,
        seen=st.sampled_from([None, REMEMBERED[protocol]]),
        routed=st.booleans(),
        local_tls=st.sampled_from(LocalTls),
        login_as=st.sampled_from(["", PRINTER]),
    )


def happenings(protocol: str) -> st.SearchStrategy[list[object]]:
    """In any order; every second time it is what a network would do next, so that deep states come."""
    way_in = [LOGIN[protocol], TLS[protocol], *([MAIL] if protocol == "SMTP" else [])]
    login = st.sampled_from(way_in).map(ev.ClientData)
    client = octets([*CLIENT[protocol], TLS[protocol] + b"x"]).map(ev.ClientData)
    server = octets(SERVER[protocol]).map(ev.ServerData)
    places = st.sampled_from(PLACES).map(lambda place: ev.Routed(ev.Terms(host=place[0], port=place[1])))
    at_any_time = st.one_of(st.sampled_from([*ANY_TIME, ev.TlsStarted(Side.CLIENT)]), places)
    honest = st.just(HONEST)
    usual = st.one_of(honest, honest, honest, honest, login, login, client, server, at_any_time)
    into_tls = st.just([ev.ClientData(TLS[protocol]), HONEST])
    on_the_way = st.integers(0, MOST_STEPS).map(lambda steps: [ev.ClientData(way_in[-1]), *[HONEST] * steps])
    early_token = st.just([ev.ClientData(LOGIN[protocol]), ev.TokenReady(credential()), HONEST])
    first: st.SearchStrategy[list[object]] = st.lists(st.one_of(into_tls, on_the_way, early_token), max_size=3).map(
        lambda lists: list(chain.from_iterable(lists))
    )
    last = st.sampled_from([[], [], *([event] for event in LAST)])
    parts = st.tuples(first, st.lists(usual, max_size=30), last, st.lists(usual, max_size=3))
    return parts.map(lambda lists: list(chain.from_iterable(lists)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_password_before_tls_and_no_dial_before_the_place_is_known(protocol: str) -> None:
    @FUZZ
    @given(happenings(protocol), terms_of(protocol), OPTIONS, CHUNKS)
    def run(happening: list[object], terms: ev.Terms, options: dict[str, object], chunk: int) -> None:
        watched = LocalSide(protocol, terms, options)
        for action in [ev.ClientConnected(), *happening]:
            watched.act(action, chunk)

    run()


@pytest.mark.parametrize("local_tls", LocalTls)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_networks_own_answers_lead_all_the_way(protocol: str, local_tls: LocalTls) -> None:
    """So that what the fuzzer mixes in comes in every state up to the relay."""
    terms = ev.Terms(routed=True, local_tls=local_tls, login_as=PRINTER)
    watched = LocalSide(protocol, terms, {"verdicts": ["no"]})
    secure = [ev.ClientData(TLS[protocol]), HONEST] if local_tls is LocalTls.REQUIRED else []
    for action in [ev.ClientConnected(), *secure, ev.ClientData(LOGIN[protocol]), *[HONEST] * MOST_STEPS]:
        watched.act(action, 10**6)
    assert watched.relayed


# ---- the PROXY protocol

ADDRESS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORT = st.integers(0, 65_535)
FRAGMENTS = [
    PROXY_V1, PROXY_V2, PROXY_V2 + b"\x21\x11\x00\x0c", PROXY_V2 + b"\x20\x00\x00\x00", PROXY_V2 + b"\x21\x31\xff\xff",
    b"PROXY UNKNOWN", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY TCP6 ::1 ::1 1 2", b"TCP4 ",
    b"::ffff:1.2.3.4 ", b"\r\n", b"\r", b"\n", b" ", b"0", b"99999", b"x" * MAX_V1, b"\0" * 300,
]  # fmt: skip


def outcome(data: bytes, chunk: int) -> Source | str | None:
    """What is read in such pieces; never any other exception, and nothing without bound is kept."""
    header = Header()
    for start in range(0, len(data), chunk):
        try:
            source = header.feed(data[start : start + chunk])
        except ProtocolError as error:
            return str(error)
        if source is not None:
            return Source(source.address, source.port, source.rest + data[start + chunk :])
        assert len(header._data) < max(MAX_V1, V2_FIXED + MAX_V2_REST)
    return None


@FUZZ
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=30)), max_size=8).map(b"".join), CHUNKS)
def test_no_octets_upset_the_header(data: bytes, chunk: int) -> None:
    read = outcome(data, chunk)
    if isinstance(read, Source):
        assert data.endswith(read.rest)
        assert read.address is None or str(ipaddress.ip_address(read.address)) == read.address
    if isinstance(read, str):
        assert read.isprintable()
    assert read == outcome(data, 10**6)


@FUZZ
@given(ADDRESS, PORT, st.booleans(), st.binary(max_size=40), st.binary(max_size=40), CHUNKS)
def test_what_a_sender_writes_is_what_is_read(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    binary: bool,
    tlvs: bytes,
    rest: bytes,
    chunk: int,
) -> None:
    if binary:
        body = address.packed * 2 + struct.pack("!HH", port, 1) + tlvs
        header = PROXY_V2 + struct.pack("!BBH", 0x21, 0x11 if address.version == 4 else 0x21, len(body)) + body
    else:
        header = f"PROXY TCP{address.version} {address} {address} {port} 1\r\n".encode()
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert outcome(header + rest, chunk) == Source(str(mapped or address), port, rest)
