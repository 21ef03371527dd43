"""A server under traffic reads its configuration again and again: nobody loses a byte, and what is new counts."""

from __future__ import annotations

import asyncio
import hashlib
import imaplib
import json
import os
import re
import signal
import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from emailproxy.admin.client import Client, Facts, NotRunning
from emailproxy.admin.paths import socket_name
from emailproxy.demo.certificates import Certificate
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Proxy, emailproxy
from tests.e2e.harness.world import PASSWORD, USER, World, imap_login, smtp_login, upstream

RELOADS = 20
LONGEST = 2000
"""Octets of a tagged line: some name the capabilities."""
MESSAGES = [b"Subject: %d\n\n" % number + os.urandom(2000).hex().encode() + b"\n" for number in range(400)]
NEW = "bob@example.com"
"""An account that a reload adds."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# ---- sessions that go on


async def command(streams: Streams, text: str) -> bytes:
    """All that the server says to it, but for the tagged line, which has a stopwatch in it."""
    reader, writer = streams
    writer.write(f"t {text}\r\n".encode())
    said = b""
    async with asyncio.timeout(30):
        while not (end := re.search(rb"(?:\A|\r\n)t OK [^\r\n]*\r\n\Z", said[-LONGEST:])):
            data = await reader.read(1 << 20)
            assert data, f"the server hung up: {said[-200:]!r}"
            said += data
    return said[: max(0, len(said) - LONGEST) + end.start()]


async def session(port: int, tls: ssl.SSLContext | None = None, mailbox: str = "INBOX") -> Streams:
    """A client that has logged in and chosen a mailbox."""
    streams = await asyncio.open_connection("localhost" if tls else "127.0.0.1", port, ssl=tls)
    await streams[0].readline()
    await command(streams, f'LOGIN {USER} "{PASSWORD}"')
    await command(streams, f"SELECT {mailbox}")
    return streams


@dataclass
class Traffic:
    """What clients do whose sessions stood before the first reload, until they are told that it is over."""

    world: World
    over: asyncio.Event = field(default_factory=asyncio.Event)
    fetched: list[str] = field(default_factory=list)
    """Digests of the whole mailbox."""
    sent: list[bytes] = field(default_factory=list)

    async def fetch(self, streams: Streams) -> None:
        while not self.over.is_set():
            said = await command(streams, f"FETCH 1:{len(MESSAGES)} BODY.PEEK[]")
            self.fetched.append(hashlib.sha256(said).hexdigest())

    async def send(self) -> None:
        """Large messages, one after another in one session."""
        with smtplib.SMTP("127.0.0.1", self.world.local.smtp_starttls) as smtp:
            await asyncio.to_thread(smtp.login, USER, PASSWORD)
            while not self.over.is_set():
                self.sent.append(os.urandom(100_000).hex().encode())
                lines = b"\r\n".join(re.findall(rb".{1,76}", self.sent[-1]))
                await asyncio.to_thread(smtp.sendmail, USER, [NEW], b"Subject: x\r\n\r\n" + lines + b"\r\n")

    async def idle(self, streams: Streams) -> None:
        """Until the mailbox has as many messages as there were reloads."""
        reader, writer = streams
        writer.write(b"i IDLE\r\n")
        async with asyncio.timeout(60):
            while await reader.readline() != b"* %d EXISTS\r\n" % RELOADS:
                assert not reader.at_eof(), "the server hung up"


def append(port: int) -> None:
    """A client that comes, adds a message, and goes."""
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login(USER, PASSWORD)
        assert client.append("News", "", "", b"Subject: news\r\n\r\nnews\r\n")[0] == "OK"


# ---- the server


@dataclass
class Variants:
    """Configurations of one server. What `standing` names is in all of them, with these very sockets."""

    world: World
    certificates: tuple[Certificate, Certificate]
    moving: tuple[int, int]
    extra: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def standing(self) -> list[int]:
        local = self.world.local
        return [local.imap, local.imap_starttls, local.pop_starttls, local.smtp, local.smtp_starttls]

    def write(self, number: int, *, without: str = "") -> Path:
        """By turns: a port moves, a section's clients and certificate change, settings and an account come."""
        world, turn = self.world, number % 2
        local = world.local
        tls = self.certificates[turn]
        sections = world.servers
        del sections[f"POP-{local.pop}"]
        sections[f"POP-{self.moving[turn]}"] = upstream(world.server.pop.tls)
        sections[f"IMAP-{local.imap_starttls}"] |= {
            "local_certificate_path": tls.certificate_file,
            "local_key_path": tls.key_file,
        }
        sections[f"SMTP-{local.smtp}"] |= {"allow_from": "10.0.0.0/8"} if turn else {}
        sections |= {"emailproxy": world.globals | {"consent_wait": 10 + number}, USER: world.account}
        sections |= {f"user{one}@example.com": world.account for one in range(number)}
        sections |= self.extra
        sections.pop(without, None)
        config = world.configure()
        config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                for name, keys in sections.items()
            )
        )
        return config


def inodes(proxy: Proxy, ports: list[int]) -> list[str]:
    """Of the sockets that listen at these ports of 127.0.0.1 (proc(5): state 0A)."""
    rows = [line.split() for line in Path(f"/proc/{proxy.pid}/net/tcp").read_text().splitlines()[1:]]
    found = {row[1]: row[9] for row in rows if row[3] == "0A"}
    return [found[f"0100007F:{port:04X}"] for port in ports]


async def hang_up(proxy: Proxy, told: str = "is in force now") -> str:
    """Sends SIGHUP; what the log says until it is done with that."""
    start = len(proxy.output)
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.printed(f"{told}.*\n", start=start)
    return proxy.output[start:]


async def status(world: World) -> Facts:
    """What the server whose control socket it is says, as the command asks."""
    return await asyncio.to_thread(Client(world.state).ask, "GET", "/status")


def answers(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def shown_certificate(streams: Streams) -> int:
    return int(streams[1].get_extra_info("ssl_object").getpeercert()["serialNumber"], 16)


# ---- the tests


@pytest.mark.system("dovecot")
async def test_twenty_reloads_under_traffic(world: World) -> None:
    variants = Variants(
        world,
        (world.authority.issue("localhost"), world.authority.issue("localhost")),
        tuple(free_ports(2)),  # type: ignore[arg-type]
    )
    world.server.deliver(USER, MESSAGES)
    trust, local = world.authority.client_context(), world.local
    async with world.proxy(variants.write(0)) as proxy:
        await world.sign_in(proxy)
        before = inodes(proxy, variants.standing)
        fetching = await session(local.imap)
        await command(fetching, "CREATE News")
        idling, secure = await session(local.imap, mailbox="News"), await session(local.imap_starttls, trust)
        serials = [shown_certificate(secure)]
        traffic = Traffic(world)
        async with asyncio.TaskGroup() as clients:
            clients.create_task(traffic.fetch(fetching))
            clients.create_task(traffic.send())
            clients.create_task(traffic.idle(idling))
            for number in range(1, RELOADS + 1):
                variants.write(number)
                said = await hang_up(proxy)
                now, then = variants.moving[number % 2], variants.moving[1 - number % 2]
                assert f"added POP-{now}; changed " in said
                assert f"removed POP-{then}" in said
                assert (answers(now), answers(then)) == (True, False)
                await asyncio.to_thread(append, local.imap)
                await command(secure, "NOOP")
                if number > RELOADS - 2:
                    serials.append(await new_settings_count(world, number % 2, trust))
            traffic.over.set()
        assert inodes(proxy, variants.standing) == before
        assert serials[0] == serials[2] != serials[1]
        assert len(set(traffic.fetched)) == 1
        received = await command(fetching, f"FETCH 1:{len(MESSAGES)} BODY.PEEK[]")
        assert hashlib.sha256(received).hexdigest() == traffic.fetched[0]
        assert all(message.replace(b"\n", b"\r\n") in received for message in MESSAGES)
        await everything_arrived(world, traffic.sent)
        assert "Traceback" not in proxy.output
        for streams in (fetching, idling, secure):
            streams[1].close()


async def new_settings_count(world: World, turn: int, trust: ssl.SSLContext) -> int:
    """By turns a section lets nobody in; returns the certificate that another shows to those who come now."""
    if turn:
        with pytest.raises((smtplib.SMTPException, OSError)):
            await asyncio.to_thread(smtp_login, world.local.smtp)
    else:
        await asyncio.to_thread(smtp_login, world.local.smtp)
    fresh = await session(world.local.imap_starttls, trust)
    fresh[1].close()
    return shown_certificate(fresh)


async def everything_arrived(world: World, sent: list[bytes]) -> None:
    for text in sent:
        content = (await world.sink.next()).content
        assert b"".join(content.partition(b"\r\n\r\n")[2].split()) == text


@pytest.mark.system("dovecot")
async def test_what_cannot_be_put_in_force_changes_nothing_and_what_is_gone_is_refused(world: World) -> None:
    config = world.configure()
    [free] = free_ports(1)
    async with world.proxy(config) as proxy:
        await world.sign_in(proxy)
        before = await status(world)
        ports = [int(section.rpartition("-")[2]) for section in world.servers]
        sockets, standing, text = inodes(proxy, ports), await session(world.local.imap), config.read_text()

        config.write_text(f"{text}[IMAP-0]\nserver_port = x\n[eve@example.com]\ntoken_ulr = y\n")
        said = await hang_up(proxy, r"\[eve@example.com\] token_ulr")
        assert "the configuration is wrong, and the one before stays in force" in said
        for fault in (r"\[IMAP-0\]", r"token_ulr: .*did you mean token_url", r"client_id: is missing"):
            assert re.search(rf"ERROR {re.escape(str(config))}:\d+: .*{fault}", said), f"{fault}\n{said}"

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            world.configure(**{f"POP-{free}": upstream(1), f"POP-{port}": upstream(1), NEW: world.account})
            said = await hang_up(proxy, "the configuration before stays in force")
            assert re.search(rf"{port}.*in use", said)
            asked = await emailproxy("reload", "--config", config, home=world.folder)
            assert (asked.code, "in use" in asked.output) == (1, True)
        assert not answers(free)
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            await asyncio.to_thread(imap_login, world.local.imap, NEW)
        shown = await emailproxy("status", "--json", "--config", config, home=world.folder)
        after = json.loads(shown.output)
        assert after["config"] == before["config"]
        assert [one["section"] for one in after["listeners"]] == [one["section"] for one in before["listeners"]]
        assert inodes(proxy, ports) == sockets

        config.write_text(text.replace(f"[{USER}]", f"[{NEW}]"))
        asked = await emailproxy("reload", "--json", "--config", config, home=world.folder)
        assert json.loads(asked.output)["unchanged"] == [one["section"] for one in before["listeners"]]
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            await asyncio.to_thread(imap_login, world.local.imap)
        await proxy.printed(f"Proxy config file entry missing for account {USER} - aborting login")
        await world.sign_in(proxy, NEW)
        await command(standing, "NOOP")

        asked_for = len(world.provider.authorizations)
        config.write_text(text)
        await hang_up(proxy)
        await asyncio.to_thread(imap_login, world.local.imap)
        assert len(world.provider.authorizations) == asked_for, "nobody had to sign in again"
        standing[1].close()


@pytest.mark.system("dovecot")
async def test_of_two_servers_on_one_state_folder_the_first_is_spoken_to_until_it_is_dead(world: World) -> None:
    """And a socket that a killed server left is taken over, and removed by the one that has it."""
    place = world.state / socket_name(world.state)
    other = world.servers[f"IMAP-{world.local.imap}"]
    mine = world.configure()
    text = mine.read_text()
    [port] = free_ports(1)
    second = world.folder / "second.ini"
    second.touch(0o600)
    own = f"[emailproxy]\nlog_file = {world.folder / 'second.log'}\nca_file = {world.authority.certificate_file}\n"
    keys = "".join(f"{key} = {value}\n" for key, value in other.items())
    second.write_text(f"{own}state_dir = {world.state}\n[IMAP-{port}]\n{keys}{text[text.index(f'[{USER}]') :]}")
    async with world.proxy(mine) as first:
        await world.sign_in(first)
        async with world.proxy(second) as beside:
            await beside.printed("WARNING there is no control socket: another server with this state folder has")
            assert (await status(world))["pid"] == first.pid
            await asyncio.to_thread(imap_login, port)  # they share the accounts
            assert await beside.stop() == 0
        assert place.exists()
        first.process.kill()
        await first.end()
    assert place.exists(), "a killed server removes nothing"
    with pytest.raises(NotRunning):
        await status(world)
    async with world.proxy(mine) as again:
        standing = await session(world.local.imap)
        assert (await status(world))["pid"] == again.pid
        for state in ("on; the same signal turns it off", "off"):
            again.process.send_signal(signal.SIGUSR1)
            await again.printed(f"the debug log is {state}")
        assert await again.stop(signal.SIGQUIT) == 0
        await standing[0].read()
        standing[1].close()
    assert not place.exists()
