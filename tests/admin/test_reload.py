"""Another configuration in a server that runs: what opens, what goes on as it was, and what changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from emailproxy.admin.client import Refused
from emailproxy.admin.routes import FromElsewhere
from emailproxy.config import ini
from emailproxy.config.model import Config, MailProtocol, Server, Settings
from emailproxy.demo.certificates import Authority
from emailproxy.errors import ConfigError, ServiceError, UnknownAccount
from emailproxy.net.tls import client_context
from emailproxy.secret import Secret
from emailproxy.service.reloading import Plan
from tests.admin.serving import Serving, serving
from tests.cli.site import ADA, BOB, Site
from tests.e2e.harness.ports import free_ports

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# ---- the plan


def of(*servers: Server, **settings: Any) -> Config:
    known: dict[str, Any] = {"state_dir": Path("/s"), "log_file": Path("/l")}
    return Config(path=Path("/c"), settings=Settings(**{**known, **settings}), servers=servers, sections={})


def section(port: int, **changes: Any) -> Server:
    given: dict[str, Any] = {"local_port": port, "server_address": "mail.example", "server_port": 993}
    return Server(section=f"IMAP-{port}", protocol=MailProtocol.IMAP, **{**given, **changes})


def test_each_section_is_opened_updated_ended_or_left_alone() -> None:
    old = of(section(1), section(2), section(3), section(4))
    new = of(section(2), section(3, server_port=1), section(4, local_address="::1"), section(5))
    plan = Plan.of(old, new)
    assert [server.section for server in plan.opened] == ["IMAP-4", "IMAP-5"]
    assert [server.section for server in plan.updated] == ["IMAP-3"]
    assert plan.ended == ("IMAP-1", "IMAP-4")
    assert (plan.outcome.added, plan.outcome.removed) == (("IMAP-5",), ("IMAP-1",))
    assert (plan.outcome.changed, plan.outcome.unchanged) == (("IMAP-3", "IMAP-4"), ("IMAP-2",))
    assert str(plan.outcome) == "added IMAP-5; changed IMAP-3, IMAP-4; removed IMAP-1"
    assert str(Plan.of(old, old).outcome) == "no listening section has changed"


def test_what_only_a_restart_changes_is_named_and_secrets_are_not_shown() -> None:
    proxy = Secret("http://user:canary@proxy.example")
    outcome = Plan.of(of(), of(state_dir=Path("/t"), upstream_proxy=proxy, consent_wait=3.0)).outcome
    assert outcome.restart == ("state_dir", "upstream_proxy")
    assert "canary" not in repr(outcome)


# ---- a server that runs


@pytest.fixture
async def server(tmp_path: Path, short: Path) -> AsyncIterator[Serving]:
    async with Site.at(tmp_path) as site, serving(site, short) as running:
        yield running


async def greeted(port: int) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"* OK")
    return reader, writer


async def speaks(streams: Streams, command: str = "CAPABILITY") -> bytes:
    streams[1].write(f"t {command}\r\n".encode())
    async with asyncio.timeout(10):
        while not (line := await streams[0].readline()).startswith(b"t "):
            assert line, "the server hung up"
    return line


def inode(port: int) -> str:
    """Of the socket that listens at a port of 127.0.0.1 (proc(5): state 0A)."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    [found] = [row[9] for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"]
    return found


def local(port: int = 1, **changes: object) -> dict[str, object]:
    return {"server_address": "localhost", "server_port": port, "local_address": "127.0.0.1", **changes}


async def test_sections_come_and_go_and_sessions_stay(server: Serving) -> None:
    site, [new] = server.site, free_ports(1)
    standing = await greeted(site.imap)
    config = site.config.read_text()
    site.config.write_text(config.replace(f"[IMAP-{site.imap}]", f"[IMAP-{new}]"))
    facts = await server.ask("POST", "/reload")
    assert (facts["added"], facts["removed"]) == ([f"IMAP-{new}"], [f"IMAP-{site.imap}"])
    (await greeted(new))[1].close()
    with pytest.raises(ConnectionRefusedError):
        await greeted(site.imap)
    assert (await speaks(standing)).startswith(b"t OK")
    lines = (await server.ask("GET", "/status"))["listeners"]
    assert {line["section"]: line["retired"] for line in lines} == {f"IMAP-{new}": False, f"IMAP-{site.imap}": True}
    standing[1].close()

    site.config.write_text(config)  # and back again
    await server.ask("POST", "/reload")
    (await greeted(site.imap))[1].close()


async def test_a_section_that_listens_where_it_did_keeps_its_socket(server: Serving) -> None:
    site = server.site
    before, standing = inode(site.imap), await greeted(site.imap)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        site.configure(**{f"IMAP-{site.imap}": local(upstream.getsockname()[1])})
        facts = await server.ask("POST", "/reload")
        assert facts["changed"] == [f"IMAP-{site.imap}"]
        assert inode(site.imap) == before
        assert (await speaks(standing)).startswith(b"t OK")
        upstream.settimeout(10)
        fresh = await greeted_later(site.imap)
        dialled, _ = await asyncio.to_thread(upstream.accept)  # new sessions go to the new server
        dialled.close()
        fresh.close()
    standing[1].close()
    assert (await server.ask("POST", "/reload"))["unchanged"] == [f"IMAP-{site.imap}"]


async def test_a_ca_file_that_was_rewritten_counts(server: Serving) -> None:
    ca_file = server.site.folder / "ca.pem"
    ca_file.write_bytes(Authority.create(server.site.folder).certificate_file.read_bytes())
    server.site.configure(**{f"IMAP-{server.site.imap}": {**local(1), "ca_file": ca_file}})
    await server.ask("POST", "/reload")
    before = client_context(ca_file)
    await server.ask("POST", "/reload")
    assert client_context(ca_file) is before
    ca_file.write_bytes(2 * ca_file.read_bytes())
    assert (await server.ask("POST", "/reload"))["changed"] == []
    assert client_context(ca_file) is not before


async def greeted_later(port: int) -> asyncio.StreamWriter:
    """A client that makes the proxy dial: its server's capabilities may not be known yet."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"a NOOP\r\n")
    return writer


async def test_accounts_settings_and_hooks_count_from_now_on(server: Serving) -> None:
    site, told = server.site, server.site.folder / "told"
    resolve = server.service.authority.resolve
    site.sections = {"new@example.org": site.application}
    site.configure(
        emailproxy={
            "state_dir": site.state,
            "log_file": site.folder / "elsewhere",
            "consent_wait": 0,
            "on_login_failed": json.dumps(["/bin/sh", "-c", f"cat >{told}.part && mv {told}.part {told}"]),
        },
        **{ADA: site.person | {"client_id": "other"}},
    )
    site.config.write_text(site.config.read_text().replace(f"[{BOB}]", "[bobby@example.org]"))
    assert resolve(ADA).client_id == "test-client"
    facts = await server.ask("POST", "/reload")
    assert facts["restart"] == ["log_file"]
    assert resolve(ADA).client_id == "other"
    assert resolve("new@example.org").name == "new@example.org"
    with pytest.raises(UnknownAccount):
        resolve(BOB)
    with pytest.raises(Exception, match="must be signed in"):  # at once: nobody is waited for any more
        await server.log_in(ADA)
    streams = await greeted(site.imap)
    assert (await speaks(streams, "LOGIN nobody@example.org x")).startswith(b"t NO")
    async with asyncio.timeout(10):
        while not told.exists():
            await asyncio.sleep(0.01)
    assert "nobody@example.org" in told.read_text()
    streams[1].close()


async def test_a_restart_is_asked_for_once_only_what_it_changes_stays(server: Serving) -> None:
    text = server.site.config.read_text()
    server.site.config.write_text(text.replace("[emailproxy]", "[emailproxy]\nlog_files = 7"))
    for _ in range(2):
        assert (await server.ask("POST", "/reload"))["restart"] == ["log_files"]
    server.site.config.write_text(text)
    assert (await server.ask("POST", "/reload"))["restart"] == []


async def test_a_text_from_elsewhere_is_taken_in_place_of_the_file(server: Serving) -> None:
    text = server.site.config.read_text() + "[eve@example.org]\n" + "\n".join(
        f"{key} = {value}" for key, value in server.site.application.items()
    )  # fmt: skip
    await server.ask("POST", "/reload", {"text": text, "path": "/etc/root-only.ini"})
    assert server.given == [FromElsewhere(text, Path("/etc/root-only.ini"))]
    assert server.service.authority.resolve("eve@example.org").name == "eve@example.org"
    assert (await server.ask("GET", "/status"))["config"]["path"] == "/etc/root-only.ini"


# ---- what changes nothing


def port_in_use(site: Site, taken: int) -> dict[str, dict[str, object]]:
    return {f"IMAP-{taken}": local()}


def own_port(site: Site, taken: int) -> dict[str, dict[str, object]]:
    """Where it is this server itself that has the port, it says so."""
    return {f"IMAP-{site.imap}": local(local_address="0.0.0.0", allow_plaintext_from="127.0.0.0/8")}


def no_certificate(site: Site, taken: int) -> dict[str, dict[str, object]]:
    (site.folder / "local.pem").write_text("no certificate")
    return {f"IMAP-{site.imap}": local(2, local_certificate_path="local.pem")}


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        (port_in_use, "in use"),
        (own_port, "If emailproxy itself has that port, .* restart it"),
        (no_certificate, "local_certificate_path"),
    ],
)
async def test_what_cannot_be_opened_changes_nothing(
    server: Serving, obstacle: Callable[[Site, int], dict[str, dict[str, object]]], words: str
) -> None:
    site, [other] = server.site, free_ports(1)
    before, standing = await server.ask("GET", "/status"), await greeted(site.imap)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        changes = obstacle(site, taken.getsockname()[1])
        site.configure(**{f"POP-{other}": local(), BOB: site.application, **changes})
        with pytest.raises((Refused, ServiceError), match=words):
            await server.ask("POST", "/reload")
    assert (await speaks(standing)).startswith(b"t OK")
    standing[1].close()
    with pytest.raises(ConnectionRefusedError):
        await greeted(other)
    assert server.service.authority.resolve(BOB).permission_url is not None
    after = await server.ask("GET", "/status")
    assert (after["config"], list(server.service.addresses)) == (before["config"], [f"IMAP-{site.imap}"])
    (await greeted(site.imap))[1].close()


async def test_a_wrong_file_changes_nothing_and_every_fault_is_told(server: Serving) -> None:
    server.site.configure(**{ADA: server.site.person | {"token_url": "nonsense"}, BOB: {"client_id": "x"}})
    with pytest.raises(Refused) as refused:
        await server.ask("POST", "/reload")
    assert refused.value.status == 422
    with pytest.raises(ConfigError) as wrong:
        ini.load(server.site.config)
    assert str(refused.value) == str(wrong.value)
    assert len(wrong.value.faults) > 1
    (await greeted(server.site.imap))[1].close()


async def test_reloads_at_once_come_one_after_another(server: Serving) -> None:
    site, ports = server.site, free_ports(3)
    text = site.config.read_text()
    configs = [ini.loads(text.replace(f"IMAP-{site.imap}", f"IMAP-{port}"), site.config) for port in ports]
    outcomes = await asyncio.gather(*(server.service.reload(config) for config in configs))
    assert [outcome.added for outcome in outcomes] == [(f"IMAP-{port}",) for port in ports]
    assert [outcome.removed for outcome in outcomes] == [(f"IMAP-{port}",) for port in (site.imap, *ports[:2])]
    assert list(server.service.addresses) == [f"IMAP-{ports[2]}"]
    (await greeted(ports[2]))[1].close()
    for port in (site.imap, *ports[:2]):
        with contextlib.suppress(ConnectionRefusedError):
            await greeted(port)
            pytest.fail(f"{port} accepts still")


async def test_a_hundred_reloads_lose_nobody(server: Serving) -> None:
    """Clients come and talk all the while, and none is turned away or hung up on."""
    site, [other] = server.site, free_ports(1)
    standing, visitors = await greeted(site.imap), 0
    text = site.config.read_text()
    section = text.partition(f"[IMAP-{site.imap}]")[2].partition("\n[")[0]
    wider = ini.loads(f"{text}\n[IMAP-{other}]{section}\n", site.config)
    moved = ini.loads(text.replace("server_port = 1\n", "server_port = 2\n"), site.config)
    for number in range(100):
        reloading = asyncio.create_task(server.service.reload((wider, moved)[number % 2]))
        while not reloading.done():
            streams = await greeted(site.imap)
            assert (await speaks(streams)).startswith(b"t OK")
            streams[1].close()
            visitors += 1
        assert reloading.result().changed == ((f"IMAP-{site.imap}",) if number else ())
        assert (await speaks(standing)).startswith(b"t OK")
    assert visitors >= 100
    standing[1].close()


async def test_a_session_of_a_section_that_is_gone_ends_with_the_server(tmp_path: Path, short: Path) -> None:
    async with Site.at(tmp_path) as site:
        async with serving(site, short) as server:
            standing, [new] = await greeted(site.imap), free_ports(1)
            site.config.write_text(site.config.read_text().replace(f"IMAP-{site.imap}", f"IMAP-{new}"))
            await server.ask("POST", "/reload")
            ending = asyncio.create_task(ends(standing))
        assert b"BYE" in await ending


async def ends(streams: Streams) -> bytes:
    """As a mail program does: it closes when it is told to go."""
    async with asyncio.timeout(5):
        said = await streams[0].readline()
    streams[1].close()
    return said
