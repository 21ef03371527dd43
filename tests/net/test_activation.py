"""Sockets that a service manager opened: found, matched with sections, and never closed."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emailproxy.config.model import FirstLogin, MailProtocol
from emailproxy.net import activation
from emailproxy.net.activation import Activated, inherited
from emailproxy.net.listener import Listener
from tests.net.loops import on_both_loops
from tests.net.stubs import Proxy, proxy_to

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors are passed on Unix")


def listening(family: int = socket.AF_INET, address: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen()
    return sock


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Two sockets at neighbouring descriptors, which are taken for the first that a service manager passes."""
    first, second = listening(), listening()
    floor = max(int(name) for name in os.listdir("/proc/self/fd")) + 10
    for index, sock in enumerate((first, second)):
        os.dup2(sock.fileno(), floor + index, inheritable=True)
    monkeypatch.setattr(activation, "FIRST_DESCRIPTOR", floor)
    yield [first, second]
    first.close()
    second.close()


def variables(**changes: str) -> dict[str, str]:
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "IMAP-1993:smtp",
        "HOME": "/",
    } | changes


def test_the_sockets_are_found_by_name(passed: list[socket.socket]) -> None:
    environ = variables()
    found = inherited(environ)
    assert environ == {"HOME": "/"}
    assert {name: [sock.getsockname() for sock in socks] for name, socks in found.items()} == {
        "IMAP-1993": [passed[0].getsockname()],
        "smtp": [passed[1].getsockname()],
    }
    for socks in found.values():
        assert not socks[0].get_inheritable()
        assert not socks[0].getblocking()
        socks[0].close()


@pytest.mark.parametrize("names", ["", "IMAP-1993"])
def test_sockets_may_have_no_names(passed: list[socket.socket], names: str) -> None:
    found = inherited(variables(LISTEN_FDNAMES=names))
    assert sum(len(socks) for socks in found.values()) == len(passed)
    assert "unknown" in found
    for sock in [sock for socks in found.values() for sock in socks]:
        sock.close()


@pytest.mark.parametrize(
    "changes", [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": ""}, {"LISTEN_FDS": "-1"}, {"LISTEN_FDS": "x"}]
)
def test_sockets_for_another_process_are_not_ours(changes: dict[str, str]) -> None:
    environ = variables(**changes)
    assert inherited(environ) == {}
    assert environ == {"HOME": "/"}


def test_what_is_no_listening_socket_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "file").open("w") as file, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as idle:
        for descriptor in (file.fileno(), idle.fileno(), 9999):
            monkeypatch.setattr(activation, "FIRST_DESCRIPTOR", descriptor)
            assert inherited(variables(LISTEN_FDS="1")) == {}
        os.fstat(file.fileno())
        os.fstat(idle.fileno())
    assert caplog.text.count("(IMAP-1993) from the service manager is no listening TCP socket") == 3


async def greeting(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    line = await reader.readline()
    writer.close()
    return line


@on_both_loops
async def test_sockets_are_matched_by_name_or_port() -> None:
    named, at_port, spare = listening(), listening(), listening()
    port = at_port.getsockname()[1]
    activated = Activated({"imap-1993": [named], "x": [at_port], "spare": [spare]})
    async with (
        proxy_to(9, section="IMAP-1993", local_port=1993, activated=activated) as one,
        proxy_to(9, section=f"POP-{port}", local_port=port, protocol=MailProtocol.POP, activated=activated) as other,
    ):
        one.has_seen("IMAP4REV1")
        assert one.listener.addresses == [named.getsockname()]
        assert other.listener.addresses == [at_port.getsockname()]
        assert (await greeting(named.getsockname())).startswith(b"* OK")
        assert (await greeting(at_port.getsockname())).startswith(b"+OK")
        (notice,) = activated.notices()
        assert f"127.0.0.1 port {spare.getsockname()[1]} (named spare) that no section listens on" in notice
    activated.close()


@on_both_loops
async def test_a_listener_that_closes_leaves_the_socket_open() -> None:
    """Who connects before the next one opens waits."""
    sock = listening()
    activated = Activated({"TEST": [sock]})
    async with proxy_to(9, activated=activated) as proxy:
        proxy.has_seen("IMAP4REV1")
        assert (await greeting(sock.getsockname())).startswith(b"* OK")
        await proxy.listener.close()
        early = asyncio.ensure_future(greeting(sock.getsockname()))
        while len(activated.notices()) != 1:
            await asyncio.sleep(0)
        successor = Listener(proxy.server, proxy.shared)
        await successor.open()
        assert not activated.notices()
        assert (await early).startswith(b"* OK")
        await successor.close()
        overlapping = Listener(proxy.server, proxy.shared)
        await overlapping.open()  # as a reload does: the new one opens before the old one closes
        await proxy.listener.close()
        assert not activated.notices()
        await overlapping.close()
    activated.close()


@on_both_loops
async def test_a_socket_that_is_wider_than_the_configuration_says_trusts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was checked was a port on a loopback: whoever is first must not thereby get a mailbox from elsewhere."""
    sock = listening(address="0.0.0.0")
    activated = Activated({"TEST": [sock]})
    async with proxy_to(9, activated=activated, first_login=FirstLogin.TRUST) as proxy:
        assert proxy.listener.may_set_first_password(proxy.server) is False
    assert "[TEST] the service manager passed a socket that is not on a loopback: no first login" in caplog.text
    activated.close()


CHILD = """
import asyncio, json, os, sys
from emailproxy.config.model import Server
from emailproxy.net.activation import Activated, inherited
from emailproxy.net.dial import Dialer
from emailproxy.net.listener import Listener
from emailproxy.net.shared import Shared
from tests.net.stubs import Tokens

async def main():
    activated = Activated(inherited(os.environ))
    dialer = Dialer()
    server = Server(section="IMAP-143", protocol="IMAP", local_port=143, server_address="localhost", server_port=9)
    listener = Listener(server, Shared(dialer, Tokens(), activated=activated))
    await listener.open()
    left = [name for name in os.environ if name.startswith("LISTEN_")]
    print(json.dumps({"addresses": listener.addresses, "left": left}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await listener.close()
    activated.close()
    dialer.close()

asyncio.run(main())
"""


async def test_a_process_that_was_handed_its_socket() -> None:
    """As systemd does it: at descriptor 3, and the port may be one that the process could not bind."""
    with listening() as sock:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", f'export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=IMAP-143; exec "$@" 3<&{sock.fileno()}',
            "bash", sys.executable, "-c", CHILD,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=[sock.fileno()],
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        said = json.loads(await process.stdout.readline())
        assert said == {"addresses": [list(sock.getsockname())], "left": []}
        assert (await greeting(sock.getsockname())).startswith(b"* OK")
        process.stdin.close()
        assert await process.wait() == 0
        # the process is gone, the port is not
        early = asyncio.ensure_future(asyncio.open_connection(*sock.getsockname()))
        sock.setblocking(False)
        accepted, _ = await asyncio.get_running_loop().sock_accept(sock)
        accepted.close()
        (await early)[1].close()


@pytest.mark.parametrize(("port", "mend"), [(143, "CAP_NET_BIND_SERVICE"), (1143, "choose another port")])
async def test_a_port_that_is_not_permitted(port: int, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(Exception, match=rf"\[TEST\] cannot listen on 127.0.0.1 port {port}: not permitted.*{mend}"):
        await opened(local_port=port)


async def opened(**settings: object) -> Proxy:
    async with proxy_to(9, **settings) as proxy:
        return proxy
