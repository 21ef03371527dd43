"""The server as a process: how it starts, ends and fails, and what it never gives away."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import emailproxy, environment, serve
from tests.e2e.harness.run import run
from tests.e2e.harness.tenant import DELEGATED, tenant
from tests.e2e.harness.world import CLIENT_SECRET, PASSWORD, USER, upstream, write_config

ACCOUNT: dict[str, object] = {
    "token_url": "https://localhost/token",
    "oauth2_scope": "mail",
    "oauth2_flow": "client_credentials",
    "client_id": "id",
    "client_secret": "secret",
}


def configure(folder: Path, port: int) -> Path:
    """A configuration that is never asked to log in."""
    own: dict[str, object] = {"state_dir": folder / "state", "log_file": folder / "log"}
    return write_config(folder / "emailproxy.ini", {"emailproxy": own, f"IMAP-{port}": upstream(993), USER: ACCOUNT})


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_within_five_seconds(tmp_path: Path, how: signal.Signals) -> None:
    async with tenant(tmp_path) as ours:
        # With a client in session, and another that has said nothing yet.
        client = await asyncio.to_thread(ours.log_in_imap)
        _, silent = await asyncio.open_connection("127.0.0.1", ours.imap)
        assert await ours.proxy.stop(how) == 0  # raises TimeoutError after five seconds
        assert "Traceback" not in ours.proxy.output
        silent.close()
        client.shutdown()


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = configure(tmp_path, port)
        failed = await emailproxy("serve", "--config", config, home=tmp_path)
    assert failed.code == 1
    assert "Traceback" not in failed.output
    [line] = [line for line in failed.output.splitlines() if str(port) in line]
    assert "in use" in line


async def test_a_wrong_configuration_lists_every_fault_and_exits_with_78(tmp_path: Path) -> None:
    [port] = free_ports(1)
    config = configure(tmp_path, port)
    config.write_text(config.read_text().replace("server_port = 993", "server_prot = 993\nca_file = missing.pem"))
    failed = await emailproxy("serve", "--config", config, home=tmp_path)
    assert failed.code == 78
    assert "Traceback" not in failed.output
    assert "server_prot" in failed.output
    assert "did you mean server_port" in failed.output
    assert "ca_file" in failed.output


async def test_secrets_are_nowhere_to_be_seen(tmp_path: Path) -> None:
    wrong = "a-wrong-password-canary"
    async with tenant(tmp_path, scope=DELEGATED) as ours:
        await ours.sign_in()
        await ours.refusal("IMAP", password=wrong)
        ours.provider.revoke_access_tokens()
        await ours.log_in("SMTP")
        ours.provider.revoke_refresh_tokens()
        ours.provider.revoke_access_tokens()
        await ours.refusal("IMAP")

        process = Path(f"/proc/{ours.proxy.pid}")
        seen = {name: (process / name).read_bytes() for name in ("cmdline", "environ")}
        state = {str(path): path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()}
        forms = [request.form for request in ours.provider.requests]
        assert await ours.proxy.stop() == 0
        places = seen | state | {"log": ours.proxy.log.encode(), "output": ours.proxy.output.encode()}

    posted = {form[name] for form in forms for name in ("code", "code_verifier", "refresh_token") if name in form}
    assert len(posted) >= 3
    canaries = {PASSWORD, wrong, CLIENT_SECRET, *posted}
    canaries |= {f"\0{USER}\0{PASSWORD}"}
    for place, content in places.items():
        assert [canary for canary in canaries if canary.encode() in content] == [], place
        # How every JSON Web Token begins (RFC 7519 section 3), and an XOAUTH2 response in base64.
        assert re.findall(rb"eyJhbGciOi|dXNlcj1", content) == [], place
    assert state, "the tokens are kept somewhere"


async def test_files_with_secrets_are_closed_to_others(tmp_path: Path) -> None:
    async with tenant(tmp_path) as ours:
        await ours.log_in("IMAP")
        await ours.proxy.stop()  # by then it has kept what it meant to keep
        state = tmp_path / "state"
        assert state.stat().st_mode & 0o777 == 0o700
        files = [path for path in state.rglob("*") if path.is_file()]
        assert files
        for path in [*files, tmp_path / "log"]:
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"]])
async def test_help_costs_no_heavy_imports(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import json, runpy, sys\n"
        f"sys.argv = ['emailproxy', *{arguments!r}]\n"
        "try:\n    runpy.run_module('emailproxy', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    shown = await run(sys.executable, "-c", program, env=environment(tmp_path), cwd=tmp_path)
    assert shown.code == 0, shown.output
    modules = set(json.loads(shown.output.splitlines()[-1]))
    assert "emailproxy.cli" in modules
    assert {"aiohttp", "msal", "google.auth", "google.oauth2", "uvloop", "aiosmtpd"} & modules == set()


async def test_the_demo_works_and_ends(tmp_path: Path) -> None:
    shown = await emailproxy("demo", "--once", home=tmp_path)
    assert shown.code == 0, shown.output
    assert "Traceback" not in shown.output


async def test_without_a_local_address_it_listens_on_the_loopbacks_alone(tmp_path: Path) -> None:
    [port] = free_ports(1)
    config = configure(tmp_path, port)
    config.write_text(config.read_text().replace("local_address = 127.0.0.1\n", ""))
    async with serve("--config", config, log_file=tmp_path / "log", home=tmp_path) as proxy:
        # The kernel's own list of the process's listening sockets: every address, port, and the state LISTEN.
        listening = [
            line.split()[1]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{proxy.pid}/net/{table}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
        ]
    loopbacks = {"0100007F", "00000000000000000000000001000000"}
    assert "0100007F" in {address.split(":")[0] for address in listening}
    assert {address.split(":")[0] for address in listening} <= loopbacks
