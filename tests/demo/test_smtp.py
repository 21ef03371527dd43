"""The embedded submission server, by the standard library's client."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from emailproxy.demo.transcript import Speaker
from tests.demo.conftest import TOKEN, USER, Servers, xoauth2, xoauth2_base64

T = TypeVar("T")


async def in_session(servers: Servers, work: Callable[[smtplib.SMTP_SSL], T]) -> T:
    """`work` in a thread, after EHLO."""

    def session() -> T:
        with smtplib.SMTP_SSL("localhost", servers.smtp.port, context=servers.trust, timeout=10) as client:
            client.ehlo("test.invalid")
            return work(client)

    return await asyncio.to_thread(session)


def log_in(client: smtplib.SMTP_SSL) -> None:
    client.auth("XOAUTH2", lambda challenge=None: xoauth2().decode(), initial_response_ok=False)


async def test_what_a_user_sends_arrives_in_that_users_mailbox(servers: Servers) -> None:
    def work(client: smtplib.SMTP_SSL) -> None:
        log_in(client)
        client.sendmail(USER, ["anyone@example.test"], b"Subject: sent\r\n\r\n.dot\r\n" + b"x" * 5000 + b"\r\n")

    await in_session(servers, work)
    received = servers.mailboxes.of(USER).inbox.messages[-1]
    assert received.raw == b"Subject: sent\r\n\r\n.dot\r\n" + b"x" * 5000 + b"\r\n"


async def test_the_mechanism_is_announced_alone(servers: Servers) -> None:
    assert await in_session(servers, lambda client: client.esmtp_features["auth"]) == " XOAUTH2"


async def test_nothing_is_sent_without_a_login(servers: Servers) -> None:
    code, text = await in_session(servers, lambda client: client.mail(USER))
    assert (code, text) == (530, b"5.7.57 Client not authenticated to send mail")
    assert len(servers.mailboxes.of(USER).inbox.messages) == 1


async def test_a_refused_token_is_challenged_and_the_next_one_taken(servers: Servers) -> None:
    def work(client: smtplib.SMTP_SSL) -> None:
        assert client.docmd("AUTH", "XOAUTH2 " + xoauth2_base64("wrong"))[1].startswith(b"eyJ")
        assert client.docmd("")[0] == 535
        log_in(client)

    await in_session(servers, work)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["AUTH PLAIN AGEAYg=="], 504),
        (["AUTH XOAUTH2 ===="], 501),
        (["AUTH XOAUTH2 dXNlcj1h"], 501),
        (["AUTH XOAUTH2", "*"], 501),
        (["AUTH XOAUTH2 " + xoauth2_base64("x" * 600)], 500),
        (["AUTH XOAUTH2", xoauth2_base64("wrong"), "*"], 501),
    ],
)
async def test_a_broken_login_has_its_code(servers: Servers, lines: list[str], code: int) -> None:
    replies = await in_session(servers, lambda client: [client.docmd(line)[0] for line in lines])
    assert replies[-1] == code


async def test_the_tap_sees_both_sides_and_no_token(servers: Servers) -> None:
    await in_session(servers, log_in)
    said = [(speaker, text) for protocol, speaker, text in servers.said if protocol == "SMTP"]
    assert (Speaker.CLIENT, "AUTH XOAUTH2") in said
    assert (Speaker.SERVER, "235 2.7.0 Authentication successful") in said
    assert not any(TOKEN in text or xoauth2_base64() in text for _, text in said)


async def test_connections_end_with_the_server(servers: Servers) -> None:
    reader, writer = await asyncio.open_connection("localhost", servers.smtp.port, ssl=servers.trust)
    assert (await reader.readline()).startswith(b"220 ")
    await servers.smtp.__aexit__()
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert servers.smtp.connections == set()
