"""What the control socket answers, and whom."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emailproxy.admin import peers
from emailproxy.admin.client import Client, NotPermitted, NotRunning, Refused
from emailproxy.admin.paths import socket_name
from emailproxy.admin.routes import MAX_BODY
from emailproxy.errors import LoginRefused, ServiceError
from emailproxy.secret import Secret
from tests.admin.serving import Serving, serving
from tests.cli.site import ADA, BOB, PASSWORD, ROBOT, Site
from tests.oauth.world import no_space

KEY = ADA.casefold()


@pytest.fixture
async def server(tmp_path: Path, short: Path) -> AsyncIterator[Serving]:
    async with Site.at(tmp_path) as site, serving(site, short) as running:
        yield running


async def raw(server: Serving, request: bytes) -> tuple[int, dict[str, object]]:
    """What a request gets that the client would not send."""
    reader, writer = await asyncio.open_unix_connection(server.socket)
    writer.write(request)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


# ---- who is answered


REQUESTS = [
    (b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    (b"GET http://localhost/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    (b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    (b"GET /status HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 421),
    (b"GET /status HTTP/1.0\r\n\r\n", 421),
    (b"GET /status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
    (b"GET /status HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", 403),
    (b"GET /status HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
    (b"OPTIONS /reload HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"GET /reload HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"GET /etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"POST /accounts/forget HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\ncanary-pw", 400),
    (b"POST /accounts/forget HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n[]", 400),
    (
        b'POST /accounts/forget HTTP/1.1\r\nHost: localhost\r\nContent-Length: 26\r\n\r\n{"account": ["canary-pw"]}',
        400,
    ),
    (b"canary-pw\r\n\r\n", 400),
]


@pytest.mark.parametrize(("request_", "status"), REQUESTS, ids=lambda value: str(value)[:60])
async def test_only_requests_of_our_own_are_answered(server: Serving, request_: bytes, status: int) -> None:
    found, facts = await raw(server, request_)
    assert found == status
    if status != 200:
        assert list(facts) == ["error"]
        assert "canary" not in str(facts)


async def test_no_page_of_another_origin_may_read_an_answer(server: Serving) -> None:
    reader, writer = await asyncio.open_unix_connection(server.socket)
    writer.write(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    reply = await reader.read()
    writer.close()
    assert b"access-control" not in reply.lower()
    assert b"no-store" in reply.lower()


async def test_a_body_that_is_too_long_is_refused_and_a_configuration_may_be_long(server: Serving) -> None:
    with pytest.raises(Refused, match="64 KiB") as refused:
        await server.ask("POST", "/accounts/forget", {"account": "x" * MAX_BODY})
    assert refused.value.status == 413
    text = server.site.config.read_text() + f"# {'x' * MAX_BODY}\n"
    await server.ask("POST", "/reload", {"text": text, "path": str(server.site.config)})


async def test_a_long_answer_leaves_the_loop_to_others(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds of the loop's own thread, whatever else the machine does."""
    accounts = [{"account": f"user{number}@example.org", "sessions": 0, "error": None} for number in range(20_000)]
    facts = {"accounts": accounts, "degraded": [], "refused": {"throttled": 1}, "version": "\N{SNOWMAN}"}

    async def status() -> dict[str, object]:
        return facts

    await server.ask("GET", "/status")  # what it needs is imported
    monkeypatch.setattr(server.service, "status", status)
    gc.disable()  # which would take longer than either
    try:
        begun_s = time.thread_time()
        json.dumps(facts)
        encoded_s = time.thread_time()
        answered = await server.ask("GET", "/status")
        took_s = time.thread_time() - encoded_s
    finally:
        gc.enable()
    assert answered == facts
    assert took_s < encoded_s - begun_s


async def test_a_fault_of_its_own_is_one_line_and_says_nothing(
    server: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def status() -> None:
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(server.service, "status", status)
    with caplog.at_level(logging.INFO), pytest.raises(Refused, match="fault of its own") as refused:
        await server.ask("GET", "/status")
    assert refused.value.status == 500
    assert "the control socket failed (ZeroDivisionError)" in caplog.text
    assert "canary" not in caplog.text + str(refused.value)


# ---- the client


async def test_the_client_says_that_no_server_runs_and_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=f"{tmp_path}; start it with emailproxy serve"):
        Client(tmp_path).ask("GET", "/status")


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n\r\nno JSON", b"HTTP/1.1 200 OK\r\n\r\n[]", b"canary"])
async def test_an_answer_that_is_none_is_one_clear_line(tmp_path: Path, short: Path, reply: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    async with await asyncio.start_unix_server(answer, short / socket_name(tmp_path)):
        with pytest.raises(ServiceError, match="the running server does not answer"):
            await asyncio.to_thread(Client(tmp_path, short).ask, "GET", "/status")


async def test_a_strangers_socket_is_given_no_password(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "user_of", lambda _: 77_777)
    with pytest.raises(NotPermitted, match="of user 77777"):
        Client(server.site.state, server.socket.parent).ask("GET", "/status")


# ---- status


async def test_status_tells_what_the_server_does(server: Serving) -> None:
    await server.log_in(ROBOT)
    facts = await server.ask("GET", "/status")
    assert facts["config"]["path"] == str(server.site.config)
    assert facts["state_dir"] == str(server.site.state)
    [listener] = facts["listeners"]
    assert listener == {
        "section": f"IMAP-{server.site.imap}",
        "protocol": "IMAP",
        "addresses": [f"127.0.0.1:{server.site.imap}"],
        "tls": "unsecured",
        "server": "localhost:1 (SSL/TLS)",
        "sessions": 0,
        "logged_in": 0,
        "prewarmed": 0,
        "retired": False,
    }
    accounts = {account["account"]: account for account in facts["accounts"]}
    assert {name: (line["state"], line["unlocked"]) for name, line in accounts.items()} == {
        KEY: ("absent", False),
        BOB: ("absent", False),
        ROBOT: ("live", True),
    }
    assert facts["degraded"] == []
    assert facts["refused"] == {}


async def test_sessions_and_refused_logins_are_counted(server: Serving) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.site.imap)
    writer.write(b"a LOGIN nobody@example.org wrong\r\n")
    async with asyncio.timeout(10):
        while not (await reader.readline()).startswith(b"a NO"):
            pass
    facts = await server.ask("GET", "/status")
    assert facts["refused"] == {"wrong login": 1}
    assert facts["listeners"][0]["sessions"] == 1
    writer.close()


async def test_tokens_that_cannot_be_saved_are_degraded_at_once(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the login goes ahead, and who looks is told within the second."""
    await server.log_in(ROBOT)
    with monkeypatch.context() as full:
        full.setattr(os, "replace", no_space)
        await server.log_in(ROBOT, rejected="NO a fresh one, please")
        began_s = time.monotonic()
        facts = await server.ask("GET", "/status")
        assert time.monotonic() - began_s < 1
    assert facts["degraded"] == [ROBOT]
    [line] = [account for account in facts["accounts"] if account["account"] == ROBOT]
    assert line["storage"] == "degraded"


# ---- passwords


async def test_a_password_is_added_to_an_unlocked_account_and_to_no_other(server: Serving) -> None:
    wanted: dict[str, object] = {"account": ROBOT, "name": "scanner", "protocols": ["smtp"]}
    with pytest.raises(Refused, match="is locked: nobody has logged in") as refused:
        await server.ask("POST", "/accounts/passwords", wanted)
    assert refused.value.status == 423
    await server.log_in(ROBOT)
    added = await server.ask("POST", "/accounts/passwords", wanted)
    assert (added["name"], added["limits"]) == ("scanner", "SMTP only")
    await server.log_in(ROBOT, added["password"], "SMTP")
    with pytest.raises(LoginRefused):
        await server.log_in(ROBOT, added["password"], "IMAP")
    listed = await server.ask("GET", "/accounts/passwords", account=ROBOT)
    assert [line["name"] for line in listed["passwords"]] == ["first", "scanner"]
    assert added["password"] not in json.dumps(listed)
    with pytest.raises(Refused, match="already"):
        await server.ask("POST", "/accounts/passwords", wanted)


async def test_a_password_is_changed_and_removed(server: Serving) -> None:
    await server.log_in(ROBOT)
    new = "another-canary-password"
    await server.ask("PUT", "/accounts/passwords", {"account": ROBOT, "old": PASSWORD, "new": new})
    with pytest.raises(LoginRefused):
        await server.log_in(ROBOT)
    await server.log_in(ROBOT, new)
    with pytest.raises(Refused, match="last password"):
        await server.ask("DELETE", "/accounts/passwords", {"account": ROBOT, "name": "first"})
    gone = await server.ask("DELETE", "/accounts/passwords", {"account": ROBOT, "name": "first", "force": True})
    assert gone["was_last"] is True
    assert not (server.site.state / "accounts" / f"{ROBOT}.ini").exists()


async def test_an_account_that_is_not_configured_is_not_found(server: Serving) -> None:
    with pytest.raises(Refused) as refused:
        await server.ask("GET", "/accounts/passwords", account="nobody@example.org")
    assert refused.value.status == 404


async def test_a_removed_account_is_forgotten_with_its_consent(server: Serving) -> None:
    await server.log_in(ROBOT)
    (server.site.state / "accounts" / f"{ROBOT}.ini").unlink()
    waiting = await server.service.authority.broker.sign_in(ADA, Secret(PASSWORD))
    assert waiting is not None
    for account in (ROBOT, ADA.upper()):
        await server.ask("POST", "/accounts/forget", {"account": account})
    assert not server.service.authority.broker.is_unlocked(ROBOT)
    assert [path for path in (server.site.state / "pending").iterdir() if path.suffix == ".ini"] == []


async def test_an_account_that_is_there_is_not_forgotten(server: Serving) -> None:
    await server.log_in(ROBOT)
    await server.ask("POST", "/accounts/forget", {"account": ROBOT})
    assert server.service.authority.broker.is_unlocked(ROBOT)
