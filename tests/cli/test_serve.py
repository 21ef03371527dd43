"""`emailproxy serve` as a process: how it starts, or why not, what it tells its service manager, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from emailproxy import __version__
from emailproxy.demo.certificates import Authority
from emailproxy.demo.imap import ImapServer
from emailproxy.demo.mailbox import Mailboxes
from tests.cli.records import messages
from tests.cli.site import ADA, PASSWORD, ROBOT, Site
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import CHECKOUT, COMMAND, STOP_S, Program, Proxy, notifications
from tests.fakes.provider import Hang

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# ---- the service manager


async def test_the_service_manager_is_told_when_it_is_ready_and_when_it_stops(site: Site) -> None:
    with notifications() as notified:
        loop = asyncio.get_running_loop()
        async with site.running("serve", env={"NOTIFY_SOCKET": notified.getsockname()}) as program:
            async with asyncio.timeout(20):
                assert await loop.sock_recv(notified, 100) == b"READY=1"
            _, writer = await asyncio.open_connection("127.0.0.1", site.imap)
            writer.close()
            assert await program.stop() == 0
            async with asyncio.timeout(5):
                said = await loop.sock_recv(notified, 100)
            assert said == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000"  # 30 s for sessions, 10 s for the rest


async def test_an_abstract_socket_is_one_too(site: Site) -> None:
    name = f"emailproxy-test-{os.getpid()}-{site.imap}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(f"\0{name}")
        notified.setblocking(False)
        async with site.running("serve", env={"NOTIFY_SOCKET": f"@{name}"}), asyncio.timeout(20):
            assert await asyncio.get_running_loop().sock_recv(notified, 100) == b"READY=1"


async def test_a_service_manager_that_is_gone_is_a_warning(site: Site) -> None:
    async with site.running("serve", env={"NOTIFY_SOCKET": f"{site.folder}/gone"}) as program:
        await program.printed("INFO ready\n")
        assert "WARNING the service manager's socket does not answer" in program.output


# ---- the end


@contextlib.asynccontextmanager
async def busy(site: Site) -> AsyncIterator[tuple[Proxy, list[Streams]]]:
    """Connections in every state: silent, half a command, relaying, awaiting a person, a provider, a mail server."""
    authority = Authority.create(site.folder)
    tls = authority.issue("localhost").server_context()
    hang = Hang()
    with socket.create_server(("127.0.0.1", 0)) as mute:  # a mail server that accepts and says nothing
        async with ImapServer(Mailboxes(), lambda user, token: True, tls=tls) as server:
            site.upstream = server.port
            [dead] = free_ports(1)
            site.configure(
                **{
                    "emailproxy": {
                        "state_dir": site.state,
                        "log_file": site.log_file,
                        "ca_file": authority.certificate_file,
                    },
                    f"IMAP-{dead}": {
                        "server_address": "localhost",
                        "server_port": mute.getsockname()[1],
                        "local_address": "127.0.0.1",
                    },
                    "hung@example.org": site.application,
                }
            )
            async with site.serving() as proxy:
                relaying = await said(site.imap, f'a LOGIN {ROBOT} "{PASSWORD}"')
                assert (await answer(relaying)).startswith(b"a OK")
                arrived = site.provider.arrived
                site.provider.next(hang)
                connections = [
                    relaying,
                    await said(site.imap, ""),
                    await said(site.imap, "a LOGIN half"),
                    await said(site.imap, f'a LOGIN {ADA} "{PASSWORD}"'),
                    await said(dead, f'a LOGIN {ROBOT} "{PASSWORD}"'),
                    await said(site.imap, f'a LOGIN hung@example.org "{PASSWORD}"'),
                ]
                await proxy.consent_url(ADA)
                await site.provider.wait_for_requests(arrived + 1)
                yield proxy, connections
    hang.release()
    for _, writer in connections:
        writer.close()


async def said(port: int, command: str) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(command.encode() + (b"\r\n" if command.endswith('"') else b""))
    return reader, writer


async def answer(streams: Streams) -> bytes:
    """The tagged reply."""
    async with asyncio.timeout(20):
        while not (line := await streams[0].readline()).startswith(b"a "):
            assert line, "the server hung up"
    return line


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_in_time_whatever_goes_on(site: Site, how: signal.Signals) -> None:
    async with busy(site) as (proxy, connections):
        began_s = asyncio.get_running_loop().time()
        assert await proxy.stop(how) == 0  # raises TimeoutError after five seconds
        assert asyncio.get_running_loop().time() - began_s < STOP_S
        for reader, _ in connections:
            async with asyncio.timeout(5):
                await reader.read()  # every client sees the end
    assert messages(site.log)[-1] == "stopped"
    assert "Traceback" not in proxy.output


SLOW_NAMES = """
import socket, threading
genuine = socket.getaddrinfo
def getaddrinfo(host, *arguments, **named):
    if host == "unanswered.example":
        print("looking up", flush=True)
        threading.Event().wait(100)
    return genuine(host, *arguments, **named)
socket.getaddrinfo = getaddrinfo
"""


async def test_a_name_that_nobody_answers_does_not_hold_the_end_up(site: Site) -> None:
    (site.folder / "sitecustomize.py").write_text(SLOW_NAMES)
    local = {"server_address": "unanswered.example", "server_port": 993, "local_address": "127.0.0.1"}
    site.configure(**{f"IMAP-{site.imap}": local})
    async with site.serving(env={"PYTHONPATH": f"{site.folder}:{CHECKOUT}"}) as proxy:
        _, writer = await said(site.imap, f'a LOGIN {ROBOT} "{PASSWORD}"')
        await proxy.printed("looking up")
        assert await proxy.stop() == 0
        writer.close()


# ---- what it says


async def test_what_was_repaired_is_a_warning_in_the_log(site: Site) -> None:
    site.configure(**{ADA: site.person | {"redirect_list_address": "http://127.0.0.1:1/"}})
    async with site.serving() as proxy:
        pass
    [line] = [line for line in site.log.splitlines() if "redirect_list_address" in line]
    assert " WARNING " in line
    assert f"{site.config}:" in line
    assert line in proxy.output


async def test_the_log_goes_to_the_file_and_to_standard_error_alike(site: Site) -> None:
    async with site.serving() as proxy:
        pass
    assert proxy.output == site.log
    said = messages(site.log)
    assert said[0] == f"Starting IMAP server at 127.0.0.1:{site.imap} (unsecured) proxying localhost:1 (SSL/TLS)"
    assert re.fullmatch(rf"emailproxy \S+ runs with {re.escape(str(site.config))}", said[1])
    assert said[2] == (
        f"Initialised emailproxy {__version__} - listening for authentication requests. Connect your email client to "
        "begin"
    )
    assert said[3:] == ["ready", "stopping", "stopped"]


async def test_a_configuration_that_all_can_read_is_a_warning(site: Site) -> None:
    site.config.chmod(0o644)
    async with site.serving():
        pass
    assert f"chmod 600 {site.config}" in site.log


async def test_the_command_needs_no_terminal_and_no_home(site: Site) -> None:
    command = (*COMMAND, "serve", "--config", site.config)
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PYTHONPATH": str(CHECKOUT)},
        cwd="/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    program = Program(process)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while not (await process.stderr.readline()).endswith(b"ready\n"):
                pass
        assert await program.stop() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


# ---- why it does not start


def takes_the_port(site: Site) -> Iterator[None]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.imap))
        taken.listen()
        yield


def second_port_taken(site: Site) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        local = {"server_address": "localhost", "server_port": 25, "local_address": "127.0.0.1"}
        site.configure(**{f"SMTP-{taken.getsockname()[1]}": local})
        yield


def another_hosts_address(site: Site) -> Iterator[None]:
    local = {"server_address": "localhost", "server_port": 993, "local_address": "192.0.2.1"}  # RFC 5737
    site.configure(**{f"IMAP-{site.imap}": local | {"allow_plaintext_from": "192.0.2.0/24"}})
    yield


def open_state(site: Site) -> Iterator[None]:
    site.state.mkdir(0o750)
    site.state.chmod(0o750)
    yield


def state_is_a_file(site: Site) -> Iterator[None]:
    site.state.touch(0o600)
    yield


def log_is_a_folder(site: Site) -> Iterator[None]:
    site.log_file.mkdir(parents=True)
    yield


def log_has_no_folder(site: Site) -> Iterator[None]:
    (site.folder / "log").touch()
    yield


OBSTACLES: list[tuple[Callable[[Site], Iterator[None]], list[str]]] = [
    (takes_the_port, ["[IMAP-{site.imap}]", "port {site.imap}", "in use"]),
    (second_port_taken, ["[SMTP-", "in use"]),
    (another_hosts_address, ["192.0.2.1", "local_address"]),
    (open_state, ["chmod 700 {site.state}"]),
    (state_is_a_file, ["{site.state}", "not a folder"]),
    (log_is_a_folder, ["{site.log_file}", "cannot be written: Is a directory", "log_file"]),
    (log_has_no_folder, ["{site.log_file}", "cannot be written", "log_file"]),
]


@pytest.mark.parametrize(("obstacle", "words"), OBSTACLES, ids=[row[0].__name__ for row in OBSTACLES])
async def test_what_keeps_it_from_starting_is_exactly_one_line(
    site: Site, obstacle: Callable[[Site], Iterator[None]], words: list[str]
) -> None:
    with contextlib.contextmanager(obstacle)(site):
        failed = await site.run("serve")
    assert (failed.code, failed.out) == (1, "")
    [line] = failed.complaints
    for word in words:
        assert word.format(site=site) in line
    if site.log_file.is_file():
        assert site.log == failed.err


async def test_a_second_server_does_not_start_and_the_first_goes_on(site: Site) -> None:
    async with site.serving() as first:
        second = await site.run("serve")
        assert second.code == 1
        [line] = second.complaints
        assert "is emailproxy running already?" in line
        _, writer = await asyncio.open_connection("127.0.0.1", site.imap)
        writer.close()
        assert await first.stop() == 0


def missing_certificates(site: Site) -> None:
    site.configure(**{f"IMAP-{site.imap}": {"server_address": "x.example", "server_port": 1, "ca_file": "none.pem"}})


def wrong_certificates(site: Site) -> None:
    (site.folder / "none.pem").write_text("no certificate")
    missing_certificates(site)


def placeholders(site: Site) -> None:
    tenant = {"token_url": "https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/token"}
    left = {"client_id": "CLIENT_ID", "client_secret": "CLIENT_SECRET", "redirect_uri": "http://<Your_Vault_Address>/"}
    site.configure(**{ADA: site.person | tenant | left})


def many_faults(site: Site) -> None:
    text = (
        site.config.read_text()
        .replace("server_port = 1", "server_prot = 1")
        .replace("consent_wait = 20", "consent_wait = x")
    )
    site.config.write_text(text + "[emailproxy]\n")


def no_file(site: Site) -> None:
    site.config.unlink()


WRONG: list[tuple[Callable[[Site], None], list[str]]] = [
    (missing_certificates, ["[IMAP-{site.imap}] ca_file"]),
    (wrong_certificates, ["[IMAP-{site.imap}] ca_file"]),
    (placeholders, ["token_url", "client_id", "client_secret", "redirect_uri"]),
    (many_faults, ["consent_wait", "server_prot", "[emailproxy]"]),
    (no_file, ["cannot be read"]),
]


@pytest.mark.parametrize(("spoil", "words"), WRONG, ids=[row[0].__name__ for row in WRONG])
async def test_a_wrong_configuration_is_one_line_a_fault(
    site: Site, spoil: Callable[[Site], None], words: list[str]
) -> None:
    spoil(site)
    failed = await site.run("serve")
    assert (failed.code, failed.out) == (78, "")
    assert len(failed.complaints) == len(words), failed.err
    for line in failed.complaints:
        assert line.startswith(f"emailproxy: {site.config}:")
    for word in words:
        assert [line for line in failed.complaints if word.format(site=site) in line], (word, failed.err)
    assert not site.log_file.exists()
    assert not site.state.exists()


async def test_a_fault_of_its_own_is_logged_and_exits_with_1(site: Site) -> None:
    (site.folder / "sitecustomize.py").write_text(
        "import emailproxy.service\nasync def start(self): raise ZeroDivisionError('by nought')\n"
        "emailproxy.service.Service.start = start\n"
    )
    failed = await site.run("serve", env={"PYTHONPATH": f"{site.folder}:{CHECKOUT}"})
    assert failed.code == 1
    first, *traceback = site.log.splitlines()
    assert " ERROR emailproxy cannot go on" in first
    assert traceback[-1] == "    ZeroDivisionError: by nought"
    assert failed.err == site.log
