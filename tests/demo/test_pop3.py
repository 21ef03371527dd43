"""The embedded POP3 server, by the standard library's client."""

from __future__ import annotations

import asyncio
import poplib
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.demo.conftest import USER, Servers, xoauth2_base64

T = TypeVar("T")

DOTS = b"Subject: dots\r\n\r\n.\r\n..two\r\nlast\r\n"


class Client(poplib.POP3_SSL):
    """poplib with the login that it lacks."""

    def ask(self, line: str) -> bytes:
        return self._shortcmd(line)  # type: ignore[attr-defined, no-any-return]

    def log_in(self) -> None:
        assert self.ask("AUTH XOAUTH2") == b"+ "
        assert self.ask(xoauth2_base64()).startswith(b"+OK")


async def in_session(servers: Servers, work: Callable[[Client], T]) -> T:
    """`work` in a thread; the session is quit afterwards."""

    def session() -> T:
        client = Client("localhost", servers.pop3.port, context=servers.trust, timeout=10)
        try:
            return work(client)
        finally:
            client.quit()

    return await asyncio.to_thread(session)


async def test_messages_are_listed_read_and_deleted(servers: Servers) -> None:
    inbox = servers.mailboxes.of(USER).inbox
    welcome = inbox.messages[0].raw
    inbox.append(DOTS)

    def work(client: Client) -> None:
        client.log_in()
        assert client.stat() == (2, len(welcome) + len(DOTS))
        assert client.list()[1] == [f"1 {len(welcome)}".encode(), f"2 {len(DOTS)}".encode()]
        assert client.uidl()[1] == [b"1 1", b"2 2"]
        assert client.uidl("2") == b"+OK 2 2"
        assert client.retr(1)[1] == welcome.removesuffix(b"\r\n").split(b"\r\n")
        assert client.retr(2)[1] == [b"Subject: dots", b"", b".", b"..two", b"last"]
        assert client.top(2, 1)[1] == [b"Subject: dots", b"", b"."]
        client.dele(1)
        assert client.stat() == (1, len(DOTS))
        client.rset()
        assert client.stat()[0] == 2
        client.dele(2)

    await in_session(servers, work)
    assert [message.raw for message in inbox.messages] == [welcome]


async def test_capabilities_name_the_mechanism(servers: Servers) -> None:
    capabilities = await in_session(servers, lambda client: client.capa())
    assert capabilities["SASL"] == ["XOAUTH2"]
    assert {"TOP", "UIDL", "RESP-CODES"} <= capabilities.keys()


async def test_a_refused_token_is_challenged_and_the_next_one_taken(servers: Servers) -> None:
    def work(client: Client) -> None:
        client.ask("AUTH XOAUTH2")
        assert client.ask(xoauth2_base64("wrong")).startswith(b"+ eyJ")
        with pytest.raises(poplib.error_proto, match=r"-ERR \[AUTH\]"):
            client.ask("")
        client.log_in()

    await in_session(servers, work)


@pytest.mark.parametrize(
    "command", ["STAT", "RETR 1", "PASS secret", "USER anna", "AUTH PLAIN", "AUTH XOAUTH2 ====", "", "STLS"]
)
async def test_what_is_not_allowed_before_the_login_is_refused(servers: Servers, command: str) -> None:
    def work(client: Client) -> None:
        with pytest.raises(poplib.error_proto, match="-ERR"):
            client.ask(command)

    await in_session(servers, work)


@pytest.mark.parametrize("command", ["RETR 3", "RETR", "RETR x", "TOP 1", "DELE 0", "UIDL 9", "AUTH XOAUTH2"])
async def test_what_is_wrong_after_the_login_is_refused(servers: Servers, command: str) -> None:
    def work(client: Client) -> None:
        client.log_in()
        with pytest.raises(poplib.error_proto, match="-ERR"):
            client.ask(command)

    await in_session(servers, work)
