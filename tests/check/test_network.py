"""The way to a host: names, connections, certificates, and STARTTLS in three protocols."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from emailproxy.check.finding import Finding, Grade, Link, span
from emailproxy.check.network import Place, certificate_finding, reach
from emailproxy.config.model import MailProtocol
from emailproxy.demo.certificates import Authority
from emailproxy.net.dial import Dialer
from tests.e2e.harness.ports import refusing
from tests.net.stubs import upstream_server


async def found(place: Place) -> list[Finding]:
    dialer = Dialer()
    try:
        return [finding async for finding in reach(dialer, place)]
    finally:
        dialer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path, "a test authority")


async def test_a_host_that_is_well(authority: Authority) -> None:
    async with upstream_server(silent, authority.issue("localhost").server_context()) as port:
        dns, tcp, tls = await found(Place("x", "localhost", port, ca_file=authority.certificate_file))
    assert "127.0.0.1" in dns.facts["addresses"]
    assert (dns.grade, tcp.grade) == (Grade.OK, Grade.OK)
    assert tcp.text.startswith(f"localhost:{port} accepts connections, at ")
    assert tls.facts["version"] == "TLSv1.3"
    assert "a test authority" in tls.facts["issuer"]
    assert tls.facts["expires"] > "2026"


async def test_a_name_that_nobody_knows() -> None:
    (dns,) = await found(Place("x", "no-such-host.invalid", 993))
    assert (dns.link, dns.grade) == (Link.DNS, Grade.FAILED)
    assert "no-such-host.invalid cannot be looked up" in dns.text
    assert dns.action == "check server_address, and this machine's DNS servers"


async def test_a_port_where_nobody_listens() -> None:
    with refusing() as port:
        *_, tcp = await found(Place("x", "127.0.0.1", port))
    assert (tcp.link, tcp.grade) == (Link.TCP, Grade.FAILED)
    assert f"127.0.0.1:{port} cannot be reached" in tcp.text


async def test_a_certificate_that_is_not_trusted(authority: Authority) -> None:
    async with upstream_server(silent, authority.issue("localhost").server_context()) as port:
        *_, tls = await found(Place("x", "localhost", port))
    assert (tls.link, tls.grade) == (Link.TLS, Grade.FAILED)
    said = "the certificate of localhost is not valid: unable to get local issuer certificate; it is for localhost, by "
    assert tls.text.startswith(f"{said}a test authority, until 20")
    assert (tls.facts["issuer"], tls.facts["names"]) == ("a test authority", ["localhost"])
    assert "ca_file" in tls.action


async def test_a_certificate_of_another_host(authority: Authority) -> None:
    async with upstream_server(silent, authority.issue("mail.example").server_context()) as port:
        *_, tls = await found(Place("x", "localhost", port, ca_file=authority.certificate_file))
    assert "Hostname mismatch" in tls.text
    assert "; it is for mail.example, by a test authority, until " in tls.text


async def test_a_port_that_speaks_no_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK ready\r\n")
        await reader.read()

    async with upstream_server(plain, None) as port:
        *_, tls = await found(Place("x", "localhost", port))
    assert tls.text == "localhost does not speak TLS on this port: check server_port and server_starttls"


async def test_a_ca_file_that_holds_none(tmp_path: Path, authority: Authority) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    async with upstream_server(silent, authority.issue("localhost").server_context()) as port:
        *_, tls = await found(Place("x", "localhost", port, ca_file=empty))
    assert tls.grade is Grade.FAILED
    assert f"ca_file {empty} cannot be used" in tls.text


GREETINGS = {
    MailProtocol.SMTP: [b"220-hello\r\n220 there\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n"],
    MailProtocol.IMAP: [b"* OK hello\r\n", b"* CAPABILITY IMAP4rev1\r\nEP OK go\r\n"],
    MailProtocol.POP: [b"+OK hello\r\n", b"+OK go\r\n"],
}


@pytest.mark.parametrize("protocol", MailProtocol)
@pytest.mark.parametrize("chunk", [1, 1000])
async def test_tls_is_asked_for_in_plaintext(authority: Authority, protocol: MailProtocol, chunk: int) -> None:
    heard = []
    certificate = authority.issue("localhost")

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, said in enumerate(GREETINGS[protocol]):
            if number:
                heard.append(await reader.readline())
            for start in range(0, len(said), chunk):
                writer.write(said[start : start + chunk])
                await writer.drain()
        transport, loop = writer.transport, asyncio.get_running_loop()
        await loop.start_tls(transport, transport.get_protocol(), certificate.server_context(), server_side=True)
        await reader.read()

    async with upstream_server(server, None) as port:
        place = Place("x", "localhost", port, starttls=protocol, ca_file=authority.certificate_file)
        *_, tls = await found(place)
    assert tls.facts.get("version") == "TLSv1.3", tls
    assert heard[-1] == {"SMTP": b"STARTTLS\r\n", "IMAP": b"EP STARTTLS\r\n", "POP": b"STLS\r\n"}[protocol]


@pytest.mark.parametrize(
    ("protocol", "greeting", "answer", "words"),
    [
        (MailProtocol.IMAP, b"* OK hi\r\n", b"EP BAD no TLS here\r\n", "EP BAD no TLS here"),
        (MailProtocol.POP, b"-ERR too busy\r\n", b"", "-ERR too busy"),
        (MailProtocol.SMTP, b"220 hi\r\n", b"502 what?\r\n", "502 what?"),
        (MailProtocol.SMTP, b"x" * 100_000, b"", "xxx"),
        (MailProtocol.SMTP, b"", b"", "it closed the connection"),
    ],
)
async def test_a_server_that_begins_no_tls(protocol: MailProtocol, greeting: bytes, answer: bytes, words: str) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        if answer:
            await reader.readline()
            writer.write(answer)
            await reader.read()

    async with upstream_server(server, None) as port:
        *_, tls = await found(Place("x", "localhost", port, starttls=protocol))
    assert (tls.link, tls.grade) == (Link.TLS, Grade.FAILED)
    assert tls.text.startswith("the server does not begin TLS here: ")
    assert words in tls.text
    assert tls.action == "check server_starttls and server_port"


def certificate(days: int) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [(x509.NameOID.ORGANIZATION_NAME, "Example Trust"), (x509.NameOID.COMMON_NAME, "R1\n")]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=9))
    return builder.not_valid_after(now + timedelta(days=days, hours=1)).sign(key, hashes.SHA256())


@pytest.mark.parametrize(("days", "grade"), [(22, Grade.OK), (21, Grade.OK), (20, Grade.WARNING), (1, Grade.WARNING)])
def test_a_certificate_is_warned_of_three_weeks_before_its_end(days: int, grade: Grade) -> None:
    finding = certificate_finding(Place("x", "mail.example", 993), certificate(days), "TLSv1.3")
    assert finding.grade is grade
    assert finding.facts["issuer"] == "Example Trust R1"
    assert f"is Example Trust R1's and good for {days} day" in finding.text
    assert bool(finding.action) == (grade is Grade.WARNING)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59, "less than a minute"), (60, "1 minute"), (3599, "59 minutes"), (-7200, "2 hours"), (86400 * 30, "30 days")],
)
def test_spans_are_told_in_their_largest_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words
