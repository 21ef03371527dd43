"""The demo as a whole, and its parts that nothing else tests."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from emailproxy.demo import clients
from emailproxy.demo.clients import DemoFailed, Visit
from emailproxy.demo.tapped import TappedPort
from emailproxy.demo.transcript import Speaker
from tests.e2e.harness.ports import refusing

SAID = (
    r"client → proxy +AUTH PLAIN \*{6}",
    r"proxy → person +Please visit http://127\.0\.0\.1:\d+/authorize\?",
    r"proxy → provider +POST /token grant_type=authorization_code",
    r"proxy → person +200 Email OAuth 2\.0 authentication succeeded",
    r"server → proxy +235 2\.7\.0 ",
    r"client → proxy +\S+ LOGIN demo@example\.test \*{6}",
    r"proxy → server +\S+ AUTHENTICATE XOAUTH2 dXNlcj1kZW1v…",
    r"client → proxy +PASS \*{6}",
    r"proxy → server +AUTH XOAUTH2",
    r"✓ 2 messages, the newest is “Hello through the proxy”",
)


def test_once_everything_works_and_the_transcript_shows_how() -> None:
    command = [sys.executable, "-m", "emailproxy", "demo", "--once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    position = 0
    for pattern in SAID:
        found = re.compile(pattern).search(done.stdout, position)
        assert found, f"{pattern} is not said after\n{done.stdout[:position]}"
        position = found.end()


@pytest.mark.parametrize("work", [clients.send, clients.read_by_imap, clients.read_by_pop])
def test_a_client_that_cannot_connect_says_so(work: Callable[[Visit, str], str]) -> None:
    with refusing() as port, pytest.raises(DemoFailed, match=r"through the proxy: .*refused"):
        work(Visit("127.0.0.1", port, "demo@example.test", "secret", lambda: None), "subject")


async def test_a_tapped_port_passes_every_octet_and_shows_the_lines() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    said: list[tuple[str, Speaker, str]] = []
    async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
        target = server.sockets[0].getsockname()[:2]
        async with TappedPort("POP", target, lambda *line: said.append(line)) as tapped:
            reader, writer = await asyncio.open_connection("127.0.0.1", tapped.port)
            writer.write(b"user \xff\x00\r\npass " + b"x" * 200_000 + b"\r\n")
            writer.write_eof()
            received = await reader.read()
            writer.close()
    assert received == b"USER \xff\x00\r\nPASS " + b"X" * 200_000 + b"\r\n"
    assert said == [
        ("POP", Speaker.CLIENT, "user \ufffd·"),
        ("POP", Speaker.CLIENT, "pass ******"),
        ("POP", Speaker.PROXY, "USER \ufffd·"),
        ("POP", Speaker.PROXY, "PASS ******"),
    ]
