"""A full tour of a server that logs all it can: no secret of any kind reaches a log, a command line or a child."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import signal
import smtplib
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from tests.bench.processes import Tree
from tests.e2e.harness import wayout
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import Program, serve
from tests.e2e.harness.realm import HOST, Realm, realm
from tests.e2e.harness.world import CLIENT_SECRET, PASSWORD, USER, imap_login, upstream

pytestmark = pytest.mark.system("dovecot", "tinyproxy")

OLD, DEVICE = "old@example.com", "device@example.com"
FORMER, GIVEN, MISTYPED, SOCKET = (f"canary-{word}" for word in ("former", "given", "mistyped", "line"))
SALT = b"sixteen octets.."
CHILD = "import os, sys; open(sys.argv[1], 'a').write(repr([sys.argv, dict(os.environ), sys.stdin.read()]))"


def under(password: str, text: str) -> str:
    """A value as another proxy keeps it."""
    key = PBKDF2HMAC(algorithm=SHA256(), length=32, salt=SALT, iterations=1000).derive(password.encode())
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(text.encode()).decode()


def processes() -> str:
    """The command lines of all that we started: others may test mail programs that are given passwords there."""
    lines = []
    for pid in Tree(os.getpid()).pids():
        with contextlib.suppress(OSError):  # it has just ended
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
    return "\n".join(lines)


def raw(place: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(request)
        reply = http.client.HTTPResponse(client)
        reply.begin()
        return reply.read()


def send_without_login(port: int) -> None:
    with smtplib.SMTP(HOST, port, timeout=30) as smtp:
        smtp.ehlo()
        assert smtp.mail(DEVICE)[0] == 250


async def tour(ours: Realm, proxy: Program, run: Path, stand_in: int) -> None:
    await ours.sign_in()
    for password in (MISTYPED, MISTYPED, f"{MISTYPED}-2"):
        await ours.refusal(password=password)
    made = await ours.run("accounts", "add-password", USER, "--name", "made", "--json")
    ours.said.remove(made.output)  # there it belongs
    generated = json.loads(made.output.splitlines()[-1])["password"]
    ours.canaries.add(generated)
    await asyncio.to_thread(imap_login, ours.local.imap, USER, generated)
    given = await ours.run("accounts", "add-password", USER, "--name", "given", "--password-file", "-", stdin=GIVEN)
    assert given.code == 0, given.output
    changed = await ours.run("accounts", "change-password", USER, "--unlock-file", "-", stdin=f"{GIVEN}\n")
    ours.said.remove(changed.output)
    ours.canaries.add(changed.output.splitlines()[-1])
    assert (await ours.run("accounts", "remove-password", USER, "made")).code == 0
    await asyncio.to_thread(imap_login, ours.local.imap, OLD, FORMER)
    await asyncio.to_thread(send_without_login, stand_in)
    [place] = run.glob("*.sock")
    body = json.dumps({"account": USER, "old": {"x": MISTYPED}, "new": [SOCKET]}).encode()
    head = b"PUT /accounts/passwords HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    for request in (head + body, b"PUT /%s HTTP/9 %s\r\n\r\n" % (SOCKET.encode(), SOCKET.encode())):
        ours.said.append((await asyncio.to_thread(raw, place, request)).decode())
    for command in (["status", "--json"], ["check", USER, "--json", "--password-file", "-"], ["accounts", "list"]):
        assert (outcome := await ours.run(*command, stdin=f"{PASSWORD}\n")).code == 0, outcome.output
    ours.config.write_text(
        f"{ours.config.read_text()}\nclient_secret = {SOCKET}\nupstream_proxy = http://x:{SOCKET}@y\n"
    )
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.printed("the one before stays in force")
    ours.said.append((await ours.run("reload", "--config", str(ours.config))).output)


async def test_nothing_secret_is_ever_told(tmp_path: Path) -> None:
    [stand_in] = free_ports(1)
    seen, password_file = tmp_path / "seen", tmp_path / "device-password"
    password_file.write_text("canary-device-password\n")
    hook = json.dumps([sys.executable, "-c", CHILD, str(seen)])
    async with wayout.tinyproxy() as out, realm(tmp_path) as ours:
        with tempfile.TemporaryDirectory(prefix="run-") as name:
            cached: dict[str, Any] = {
                "token_salt": base64.b64encode(SALT).decode(),
                "token_iterations": 1000,
                "access_token": under(FORMER, "canary-former-token"),
                "client_secret_encrypted": under(FORMER, CLIENT_SECRET),
            }
            application = {key: value for key, value in ours.application.items() if key != "client_secret"}
            device = {"allow_from": "127.0.0.1", "login_as": DEVICE, "login_as_password_file": password_file}
            ours.configure(
                ours.person | {"client_secret": "env:CANARY"},
                also={
                    OLD: application | cached | {"auth_as": USER},
                    DEVICE: ours.application | {"auth_as": USER},
                    f"SMTP-{stand_in}": upstream(ours.server.smtp.starttls, starttls=True) | device,
                },
                upstream_proxy=out.url, no_proxy="y", runtime_dir=name, hook_secret="canary-hook-secret",
                on_login_failed=hook, on_consent_required=hook, on_token_refreshed=hook,
                encrypt_client_secret_on_first_use="True",
            )  # fmt: skip
            ours.env |= {"CANARY": CLIENT_SECRET}
            ours.canaries |= {
                FORMER, GIVEN, MISTYPED, SOCKET, wayout.PASSWORD, "canary-former-token", "canary-hook-secret",
                "canary-device-password",
            }  # fmt: skip
            command = ("serve", "--debug")
            async with serve(
                "--config", ours.config, log_file=ours.log_file, home=tmp_path, env=ours.env, command=command
            ) as proxy:
                await tour(ours, proxy, Path(name), stand_in)
                ours.said.append(processes())
            ours.said.append(proxy.output)
            ours.said.append(seen.read_text())
    assert re.search(r"DEBUG", ours.log_file.read_text())
