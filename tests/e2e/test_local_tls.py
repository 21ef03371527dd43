"""Programs that insist on TLS, with a certificate that `emailproxy certificate` made for them."""

from __future__ import annotations

import asyncio
import imaplib
import re
import smtplib
import ssl
from pathlib import Path

import pytest

from tests.e2e.harness.clients import Clients, Tls
from tests.e2e.harness.haproxy import haproxy
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, emailproxy
from tests.e2e.harness.run import Outcome, run
from tests.e2e.harness.world import PASSWORD, USER, World, imap_login

RECIPIENT = "bob@example.com"


async def certificate(world: World) -> Path:
    """A folder with ca.pem, server.pem and server.key, as the command makes it."""
    folder = world.folder / "tls"
    made = await emailproxy("certificate", "--hosts", "localhost,127.0.0.1", "--dir", folder, home=world.folder)
    assert made.code == 0, made.output
    return folder


def secured(world: World, folder: Path, starttls: str = "off") -> Path:
    """The world's configuration, its listening sections with TLS of their own."""
    own = {
        "local_certificate_path": folder / "server.pem",
        "local_key_path": folder / "server.key",
        "local_starttls": starttls,
    }
    return world.configure(**{name: section | own for name, section in world.servers.items()})


async def sign_in(world: World, proxy: Proxy) -> None:
    """The consent, begun by a login over TLS."""
    trust = ssl.create_default_context(cafile=world.folder / "tls" / "ca.pem")

    def log_in() -> None:
        with imaplib.IMAP4_SSL("localhost", world.local.imap, ssl_context=trust) as client:
            client.login(USER, PASSWORD)

    login = asyncio.create_task(asyncio.to_thread(log_in))
    await world.visit(await proxy.consent_url(USER))
    await login


@pytest.mark.system("dovecot", "mbsync", "msmtp", "swaks", "fetchmail", "openssl")
@pytest.mark.parametrize("starttls", ["off", "offered", "required"])
async def test_mail_programs_log_in_by_tls(world: World, clients: Clients, starttls: str) -> None:
    """`off`: TLS from the first octet. The others offer STARTTLS, and still take TLS from the first octet."""
    folder = await certificate(world)
    world.server.deliver(USER, [b"Subject: theirs\n\nhello\n"])
    async with world.proxy(secured(world, folder, starttls)) as proxy:
        await sign_in(world, proxy)
        for upgrade in [False] if starttls == "off" else [True, False]:
            tls = Tls(folder / "ca.pem", upgrade)
            for outcome in (
                await clients.mbsync(world.local.imap, "PLAIN", tls),
                await clients.msmtp(world.local.smtp, RECIPIENT, "plain", b"Subject: by msmtp\n\nhello\n", tls),
                await clients.swaks(world.local.smtp_starttls, RECIPIENT, "PLAIN", tls),
            ):
                assert outcome.code == 0, outcome.output
        fetched = await clients.fetchmail(world.local.pop, tls)
        assert fetched.code == 0, fetched.output
        assert b"Subject: theirs" in (clients.home / "fetched").read_bytes()
    assert PASSWORD not in proxy.log


@pytest.mark.system("dovecot", "openssl")
@pytest.mark.parametrize(
    ("protocol", "asked"),
    [("imap", b"a CAPABILITY\r\nb LOGOUT\r\n"), ("pop3", b"CAPA\r\nQUIT\r\n"), ("smtp", b"EHLO x\r\nQUIT\r\n")],
)
async def test_openssl_verifies_what_starttls_shows(world: World, protocol: str, asked: bytes) -> None:
    """And behind it a login is offered, and no second STARTTLS."""
    folder = await certificate(world)
    port = {"imap": world.local.imap, "pop3": world.local.pop, "smtp": world.local.smtp}[protocol]
    async with world.proxy(secured(world, folder, "required")):
        shown = await s_client(port, folder, "-starttls", protocol, stdin=asked)
    assert "Verification: OK" in shown.output, shown.output
    offers = [line for line in shown.output.splitlines() if re.search("AUTH[ =]PLAIN|SASL PLAIN", line)]
    assert len(offers) == 1, shown.output
    assert re.search("STARTTLS|STLS", shown.output.partition("AUTH")[2]) is None


async def s_client(port: int, folder: Path, *options: str, stdin: bytes = b"") -> Outcome:
    return await run(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", folder / "ca.pem",
        "-verify_hostname", "localhost", "-brief", "-ign_eof", *options, stdin=stdin,
    )  # fmt: skip


@pytest.mark.system("dovecot")
async def test_no_password_is_taken_before_tls_where_it_is_required(world: World) -> None:
    folder = await certificate(world)
    async with world.proxy(secured(world, folder, "required")) as proxy:
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            await asyncio.to_thread(imap_login, world.local.imap)

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", world.local.smtp) as client:
                assert "auth" not in client.esmtp_features
                assert client.docmd("AUTH", "PLAIN AHgAeQ==")[0] == 530
                assert client.mail("a@b")[0] == 530

        await asyncio.to_thread(send)
        assert "Please visit" not in proxy.log


@pytest.mark.system("dovecot", "openssl")
async def test_a_renewed_certificate_counts_without_a_restart(world: World) -> None:
    folder = await certificate(world)
    async with world.proxy(secured(world, folder)) as proxy:
        before = await asyncio.to_thread(served, world.local.imap, folder)
        await certificate(world)
        async with asyncio.timeout(10):
            while await asyncio.to_thread(served, world.local.imap, folder) == before:
                await asyncio.sleep(0.1)
        (folder / "server.pem").write_text("not a certificate\n")
        (folder / "server.key").touch()
        await asyncio.to_thread(served, world.local.imap, folder)
        assert "Traceback" not in proxy.log


def served(port: int, folder: Path) -> int:
    """The serial number of the certificate that a port shows, verified."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    with imaplib.IMAP4_SSL("localhost", port, ssl_context=context) as client:
        shown = client.socket().getpeercert()  # type: ignore[attr-defined]
    return int(shown["serialNumber"], 16)


@pytest.mark.system("dovecot", "haproxy")
@pytest.mark.parametrize("version", [1, 2])
async def test_behind_haproxy_the_clients_own_address_counts(world: World, version: int) -> None:
    front, back = free_ports(2)
    behind = world.servers[f"IMAP-{world.local.imap}"] | {"proxy_protocol_from": "127.0.0.1", "first_login": "trust"}
    config = world.configure(**{f"IMAP-{back}": behind})
    async with world.proxy(config) as proxy, haproxy(front, back, version=version):
        await world.sign_in(proxy)
        reader, writer = await asyncio.open_connection("127.0.0.1", front, local_addr=("127.0.0.9", 0))
        writer.write(f'a LOGIN {USER} "{PASSWORD}"\r\nb LOGOUT\r\n'.encode())
        assert b"a OK " in await reader.read()
        writer.close()
        await proxy.printed(rf"127\.0\.0\.1:{back}; {USER}\) \[ Successfully authenticated IMAP .* from 127\.0\.0\.9")
        reader, writer = await asyncio.open_connection("127.0.0.1", back)
        writer.write(b"a NOOP\r\n")
        assert await reader.read() == b"", "without its header nobody gets in there"
        writer.close()


@pytest.mark.system("dovecot", "haproxy", "openssl")
async def test_behind_haproxy_tls_passes_through(world: World) -> None:
    """The header, then the ClientHello, in one segment."""
    folder = await certificate(world)
    front, back = free_ports(2)
    own = {"local_certificate_path": folder / "server.pem", "local_key_path": folder / "server.key"}
    behind = world.servers[f"IMAP-{world.local.imap}"] | own | {"proxy_protocol_from": "127.0.0.1"}
    async with world.proxy(world.configure(**{f"IMAP-{back}": behind})), haproxy(front, back, version=2):
        shown = await s_client(front, folder, stdin=b"a CAPABILITY\r\nb LOGOUT\r\n")
    assert "Verification: OK" in shown.output, shown.output
    assert "b OK" in shown.output
