"""Connections to the mail server that are opened ahead: how many there are, who gets one, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emailproxy.config.model import MailProtocol
from emailproxy.demo.certificates import Authority
from emailproxy.net import ahead, prewarm
from emailproxy.net.prewarm import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    PROVEN_S,
    RENEW_S,
    SHORTEST_S,
    Pace,
    Prewarmed,
)
from emailproxy.net.tls import client_context
from tests.e2e.harness.ports import free_ports
from tests.net.loops import on_both_loops
from tests.net.stubs import Proxy, proxy_to, upstream_server

GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n"


class Bank:
    """An IMAP server that counts who comes, who stays, and what they say."""

    def __init__(self) -> None:
        self.opened = 0
        self.standing: list[asyncio.StreamWriter] = []
        self.heard: list[list[bytes]] = []
        self.ended_by_us: list[int] = []
        self.silent = False
        self.closes = False
        self.deaf: set[int] = set()
        """The connections that are reset by what is said on them, counted from 0."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, said = self.opened, list[bytes]()
        self.opened += 1
        self.heard.append(said)
        self.standing.append(writer)
        try:
            if not self.silent:
                writer.write(GREETING)
            if self.closes:
                return
            while command := await reader.readline():
                said.append(command)
                if number in self.deaf:
                    writer.transport.abort()
                    return
                writer.write(command.split()[0] + b" OK logged in\r\n")
        finally:
            self.ended_by_us.append(number)
            self.standing.remove(writer)


@contextlib.asynccontextmanager
async def bank_and_proxy(
    authority: Authority, count: int, bank: Bank | None = None
) -> AsyncIterator[tuple[Bank, Proxy]]:
    bank = bank or Bank()
    context = authority.issue("localhost").server_context()
    async with (
        upstream_server(bank, context) as port,
        proxy_to(port, authority.certificate_file, prewarm=count) as proxy,
    ):
        yield bank, proxy


async def come_and_go(proxy: Proxy) -> None:
    """A login that the server took, and the client's sudden end."""
    _, writer = await proxy.log_in()
    writer.transport.abort()


def pool(proxy: Proxy) -> Prewarmed:
    return proxy.listener.section.prewarmed


async def stand(proxy: Proxy, count: int) -> None:
    """Waits until so many stand ready."""
    async with asyncio.timeout(20):
        while pool(proxy).ready != count:
            await asyncio.sleep(0.001)


async def happen(bank: Bank, *, opened: int = 0, standing: int | None = None) -> None:
    """Waits until the server has seen so many connections, and has so many."""
    async with asyncio.timeout(20):
        while bank.opened < opened or standing not in (None, len(bank.standing)):
            await asyncio.sleep(0.001)


# ---- taken


@on_both_loops
async def test_a_login_takes_one_and_another_takes_its_place(authority: Authority) -> None:
    async with bank_and_proxy(authority, 2) as (bank, proxy):
        await stand(proxy, 2)
        assert proxy.listener.facts().prewarmed == 2
        assert (bank.opened, bank.heard) == (2, [[], []])
        _, writer = await proxy.log_in()
        [command] = bank.heard[0]
        assert command.startswith(b"a AUTHENTICATE XOAUTH2 ")
        await happen(bank, opened=3, standing=3)
        await stand(proxy, 2)
        assert bank.opened == 3
        writer.transport.abort()


async def test_who_finds_none_dials(authority: Authority) -> None:
    async with bank_and_proxy(authority, 1) as (bank, proxy):
        await stand(proxy, 1)
        await asyncio.gather(*(come_and_go(proxy) for _ in range(3)))
        await stand(proxy, 1)
        assert [len(said) for said in bank.heard if said] == [1, 1, 1]


@pytest.mark.parametrize("protocol", [MailProtocol.POP, MailProtocol.SMTP])
async def test_starttls_is_done_ahead_too(authority: Authority, protocol: MailProtocol) -> None:
    context = authority.issue("localhost").server_context()
    heard: list[list[bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = list[bytes]()
        heard.append(said)
        smtp = protocol is MailProtocol.SMTP
        writer.write(b"220 hello\r\n" if smtp else b"+OK hello\r\n")
        while command := await reader.readline():
            said.append(command.split()[0])
            match said[-1]:
                case b"STARTTLS" | b"STLS":
                    writer.write(b"220 go\r\n" if smtp else b"+OK go\r\n")
                    await writer.start_tls(context)
                case b"EHLO":
                    writer.write(b"250-hello\r\n250-STARTTLS\r\n250 AUTH XOAUTH2\r\n")
                case b"CAPA":
                    writer.write(b"+OK\r\nSASL XOAUTH2\r\n.\r\n")
                case b"AUTH":
                    writer.write(b"235 2.7.0 yes\r\n" if smtp else b"+ \r\n")
                case _:
                    writer.write(b"+OK yes\r\n")

    async with (
        upstream_server(handler, None) as port,
        proxy_to(port, authority.certificate_file, protocol=protocol, starttls=True, prewarm=1) as proxy,
    ):
        await stand(proxy, 1)
        ahead_of_login = list(heard[0])
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"AUTH PLAIN AHVzZXJAZXhhbXBsZS5jb20Ac2VjcmV0\r\n")
        assert (await reader.readline()).startswith((b"235", b"+OK"))
        writer.transport.abort()
        ours = {MailProtocol.POP: [b"STLS", b"CAPA"], MailProtocol.SMTP: [b"EHLO", b"STARTTLS", b"EHLO"]}[protocol]
        assert ahead_of_login == ours
        assert heard[0][: len(ours) + 1] == [*ours, b"AUTH"]


@on_both_loops
async def test_one_that_is_dead_when_it_is_used_costs_a_dial_and_nothing_else(authority: Authority) -> None:
    async with bank_and_proxy(authority, 2) as (bank, proxy):
        await stand(proxy, 2)
        bank.deaf = {0, 1}
        await come_and_go(proxy)
        assert proxy.tokens.asked == [("user@example.com", None)]
        assert not proxy.tokens.refusals


async def test_after_a_sleep_none_is_trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bank_and_proxy(authority, 2) as (bank, proxy):
        await stand(proxy, 2)
        now_s = time.time()
        monkeypatch.setattr(ahead.time, "time", lambda: now_s + 3600)
        await come_and_go(proxy)
        assert bank.heard[:2] == [[], []]
        await stand(proxy, 2)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
async def test_a_host_that_has_moved_waits_less_until_the_server_has_answered(authority: Authority) -> None:
    def patience_ms() -> int:
        return link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    async with bank_and_proxy(authority, 1) as (_, proxy):
        proxy.tokens.gate.clear()
        await stand(proxy, 1)
        link = pool(proxy)._standing[0]._pipe.sock
        assert patience_ms() == 0
        _, writer = await proxy.connect()
        writer.write(b"a LOGIN user@example.com secret\r\n")
        await proxy.tokens.asked_one.wait()
        assert patience_ms() == ahead.IMPATIENCE_S * 1000
        proxy.tokens.gate.set()
        while not proxy.listener.facts().logged_in:
            await asyncio.sleep(0.001)
        assert patience_ms() == 0
        writer.transport.abort()


# ---- how long they stand


@on_both_loops
async def test_they_are_renewed_before_they_are_old(authority: Authority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prewarm, "RENEW_S", 0.1)
        patch.setattr(prewarm, "PROVEN_S", 0.0)
        async with bank_and_proxy(authority, 2) as (bank, proxy):
            await happen(bank, opened=6)
            assert pool(proxy).ready >= 2
            patch.undo()
            await happen(bank, standing=2)
            assert bank.ended_by_us == list(range(bank.opened - 2))


async def test_one_that_the_server_ends_is_replaced_and_the_next_ones_are_renewed_sooner(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prewarm, "PROVEN_S", 0.0)
    async with bank_and_proxy(authority, 2) as (bank, proxy):
        await stand(proxy, 2)
        bank.standing[0].write(b"* BYE Disconnected for inactivity.\r\n")
        bank.standing[1].transport.abort()
        await happen(bank, opened=4, standing=2)
        await stand(proxy, 2)
        assert pool(proxy)._pace.life_s == SHORTEST_S
        assert not caplog.records


async def test_while_nobody_comes_there_are_none(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prewarm, "RENEW_S", 0.02)
    monkeypatch.setattr(prewarm, "QUIET_S", 0.1)
    async with bank_and_proxy(authority, 1) as (bank, proxy):
        await happen(bank, opened=1, standing=0)
        await stand(proxy, 0)
        monkeypatch.undo()
        opened = bank.opened
        await come_and_go(proxy)
        await stand(proxy, 1)
        assert bank.opened == opened + 2


# ---- a server that does not like them


async def test_a_server_that_closes_them_at_once_is_left_in_peace(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    bank = Bank()
    bank.closes = True
    async with bank_and_proxy(authority, 3, bank) as (_, proxy):
        async with asyncio.timeout(20):
            while not pool(proxy)._pace.failures or pool(proxy).ready or pool(proxy)._dialling:
                await asyncio.sleep(0.001)
        assert bank.opened == 3
        [line] = [record.getMessage() for record in caplog.records]
        assert line.startswith(
            "[TEST] no connections are opened ahead for now: the mail server closed the connection; "
        )


async def test_a_server_that_is_down_is_tried_again_and_logins_hear_why(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prewarm, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(prewarm, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(prewarm, "PROVEN_S", 0.05)
    caplog.set_level("INFO", "emailproxy.net")
    [port] = free_ports(1)
    async with proxy_to(port, authority.certificate_file, prewarm=2) as proxy:
        proxy.has_seen("IMAP4REV1")
        async with asyncio.timeout(20):
            while pool(proxy)._pace.failures < 3:
                await asyncio.sleep(0.001)
        reader, writer = await proxy.connect()
        await reader.readline()
        writer.write(b"a LOGIN user@example.com secret\r\n")
        assert b"cannot be reached" in await reader.readline()
        writer.close()
        bank = Bank()
        context = authority.issue("localhost").server_context()
        server = await asyncio.start_server(bank, "127.0.0.1", port, ssl=context)
        await stand(proxy, 2)
        lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("[TEST]")]
        assert lines[0].startswith("[TEST] no connections are opened ahead for now: the mail server localhost:")
        assert lines[1:] == ["[TEST] connections to its mail server are opened ahead again"]
        server.close()


async def test_a_certificate_that_is_not_valid_is_found_out(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bank = Bank()
    other = Authority.create(tmp_path).certificate_file
    async with (
        upstream_server(bank, authority.issue("localhost").server_context()) as port,
        proxy_to(port, other, prewarm=1) as proxy,
    ):
        async with asyncio.timeout(20):
            while not pool(proxy)._pace.failures:
                await asyncio.sleep(0.001)
        assert pool(proxy).ready == 0
        assert not bank.opened
        assert "the certificate of localhost is not valid" in caplog.text


async def test_a_server_that_does_not_greet_is_given_up_in_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ahead, "OPEN_S", 0.3)
    bank = Bank()
    bank.silent = True
    async with bank_and_proxy(authority, 1, bank) as (_, proxy):
        await happen(bank, opened=1)
        await happen(bank, standing=0)
        async with asyncio.timeout(20):
            while not caplog.records:
                await asyncio.sleep(0.001)
        assert "localhost does not get ready within" in caplog.text
        assert pool(proxy).ready == 0


# ---- another configuration, and the end


async def test_a_reload_keeps_them_where_they_lead_to_the_same_server(authority: Authority) -> None:
    async with bank_and_proxy(authority, 3) as (bank, proxy):
        await stand(proxy, 3)
        before = pool(proxy)
        proxy.listener.update(dataclasses.replace(proxy.server, prewarm=2, first_login="deny"))
        assert pool(proxy) is not before
        assert (before.ready, pool(proxy).ready) == (0, 2)
        await happen(bank, standing=2)
        assert bank.opened == 3
        bank.standing[0].transport.abort()  # the new one sees to them now
        await stand(proxy, 1)


@pytest.mark.parametrize("what", ["ca_file", "server", "none"])
async def test_a_reload_drops_them_where_anything_else_changes(authority: Authority, tmp_path: Path, what: str) -> None:
    other = Bank()
    async with (
        upstream_server(other, authority.issue("localhost").server_context()) as port,
        bank_and_proxy(authority, 2) as (bank, proxy),
    ):
        await stand(proxy, 2)
        if what == "ca_file":
            copy = tmp_path / "ca.pem"
            copy.write_bytes(authority.certificate_file.read_bytes())
            assert client_context(copy) is not client_context(authority.certificate_file)
            change: dict[str, object] = {"ca_file": copy}
        else:
            change = {"server_port": port} if what == "server" else {"prewarm": 0}
        proxy.listener.update(dataclasses.replace(proxy.server, **change))
        await happen(bank, opened=4 if what == "ca_file" else 2, standing=2 if what == "ca_file" else 0)
        assert sorted(bank.ended_by_us) == [0, 1]
        await stand(proxy, 0 if what == "none" else 2)
        assert other.opened == (2 if what == "server" else 0)


@pytest.mark.parametrize("silent", [False, True], ids=["standing", "on their way"])
async def test_nothing_is_left_at_the_end(authority: Authority, silent: bool) -> None:
    bank = Bank()
    bank.silent = silent
    async with bank_and_proxy(authority, 2, bank) as (_, proxy):
        await happen(bank, opened=2)
        if not silent:
            await stand(proxy, 2)
        await proxy.listener.close()
        await happen(bank, standing=0)
        assert bank.opened == 2
        assert pool(proxy).ready == 0
        assert pool(proxy).take() is None


async def test_ports_whose_accounts_name_their_servers_have_none() -> None:
    async with proxy_to(None, prewarm=5) as proxy:
        assert pool(proxy).take() is None
        assert not pool(proxy)._dialling


# ---- the pace


def test_pauses_double_up_to_a_limit() -> None:
    pace = Pace()
    now_s, pauses = 0.0, []
    for _ in range(12):
        pace.failed(now_s)
        pauses.append(pace.paused_until_s - now_s)
        now_s = pace.paused_until_s
    assert pauses[:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    pace.healed()
    assert pace.failed(now_s)


def test_those_that_fail_together_are_one_failure() -> None:
    pace = Pace()
    assert [pace.failed(0.0) for _ in range(3)] == [True, False, False]
    assert pace.paused_until_s == FIRST_PAUSE_S
    assert not pace.failed(FIRST_PAUSE_S)


def test_what_a_server_closed_is_renewed_sooner_and_forgiven_slowly() -> None:
    pace = Pace()
    pace.closed(30.0)
    assert pace.life_s == pytest.approx(24.0)
    pace.closed(40.0)
    assert pace.life_s == pytest.approx(24.0)
    pace.closed(PROVEN_S)
    assert pace.life_s == SHORTEST_S
    renewals = 0
    while pace.life_s < RENEW_S:
        pace.renewed()
        renewals += 1
    assert pace.life_s == RENEW_S
    assert 50 < renewals < 100
