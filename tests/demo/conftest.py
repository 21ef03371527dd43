"""The embedded mailbox with its three servers over TLS, and a token that opens it."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.demo.imap import ImapServer
from emailproxy.demo.mailbox import Mailboxes
from emailproxy.demo.pop3 import Pop3Server
from emailproxy.demo.smtp import SmtpServer
from emailproxy.demo.transcript import Speaker

USER = "anna@example.test"
TOKEN = "token-of-anna-" + "x" * 1000
"""As long as a JWT."""


def xoauth2(token: str = TOKEN, user: str = USER) -> bytes:
    return f"user={user}\x01auth=Bearer {token}\x01\x01".encode()


def xoauth2_base64(token: str = TOKEN, user: str = USER) -> str:
    return base64.b64encode(xoauth2(token, user)).decode()


@dataclass
class Servers:
    mailboxes: Mailboxes
    imap: ImapServer
    pop3: Pop3Server
    smtp: SmtpServer
    trust: ssl.SSLContext
    said: list[tuple[str, Speaker, str]] = field(default_factory=list)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def servers(authority: Authority) -> AsyncIterator[Servers]:
    tls = authority.issue("localhost", "127.0.0.1").server_context()
    mailboxes = Mailboxes()
    said: list[tuple[str, Speaker, str]] = []

    def verify(user: str, token: str) -> bool:
        return (user, token) == (USER, TOKEN)

    def tap(protocol: str, speaker: Speaker, text: str) -> None:
        said.append((protocol, speaker, text))

    async with AsyncExitStack() as stack:
        imap = await stack.enter_async_context(ImapServer(mailboxes, verify, tls=tls, tap=tap))
        pop3 = await stack.enter_async_context(Pop3Server(mailboxes, verify, tls=tls, tap=tap))
        smtp = await stack.enter_async_context(SmtpServer(mailboxes, verify, tls=tls, tap=tap))
        yield Servers(mailboxes, imap, pop3, smtp, authority.client_context(), said)
