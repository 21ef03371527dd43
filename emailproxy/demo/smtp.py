"""The embedded submission server: aiosmtpd with XOAUTH2. What a user sends arrives in that user's own mailbox."""

from __future__ import annotations

import asyncio
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from emailproxy.demo.mailbox import Mailboxes
from emailproxy.demo.server import FAILURE, TLS_SHUTDOWN_S, MailServer, Verify, credentials, decoded
from emailproxy.demo.transcript import Speaker
from emailproxy.errors import ProtocolError

MIB = 1024 * 1024
MAX_RESPONSE = 12_288 + len("\r\n")
"""RFC 4954 section 4: the longest SASL response that a server must take."""
MAX_MESSAGE = 256 * MIB
"""More than any provider takes: the proxy is to be tried, not the mailbox."""
MECHANISMS_WITHOUT_TOKENS = ("LOGIN", "PLAIN")


class Delivery:
    """aiosmtpd's hooks: who may send, and where it goes."""

    def __init__(self, mailboxes: Mailboxes, verify: Verify) -> None:
        self._mailboxes = mailboxes
        self._verify = verify

    async def auth_XOAUTH2(self, server: SMTP, arguments: list[str]) -> AuthResult:
        """XOAUTH2, inline or prompted; a refusal is preceded by its challenge."""
        try:
            if len(arguments) > 1:
                response = decoded(arguments[1].encode())
            else:
                answer = await server.challenge_auth("")
                if not isinstance(answer, bytes):  # aborted; the client has been told
                    return AuthResult(success=False)
                response = answer
            user, token = credentials(response)
        except ProtocolError as error:
            return AuthResult(success=False, handled=False, message=f"501 5.5.2 {error}")
        if self._verify(user, token):
            return AuthResult(success=True, auth_data=user)
        answer = await server.challenge_auth(FAILURE)
        return AuthResult(success=False, handled=not isinstance(answer, bytes))

    async def handle_MAIL(
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not session.authenticated:
            return "530 5.7.57 Client not authenticated to send mail"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        content, user = envelope.content, session.auth_data
        assert isinstance(content, bytes)  # decode_data is off
        assert isinstance(user, str)  # from auth_XOAUTH2
        self._mailboxes.of(user).inbox.append(content)
        return "250 2.0.0 delivered"


class Submission(Session):
    """aiosmtpd's session without its warning: AUTH sets this deprecated name whatever the mechanism does."""

    login_data: Any = None


class SmtpConversation(SMTP):
    """One SMTP session, tapped."""

    line_length_limit = MAX_RESPONSE

    def __init__(self, server: SmtpServer) -> None:
        self._connections = server.connections
        self._heard = server.line_tap(Speaker.CLIENT)
        self._said = server.line_tap(Speaker.SERVER)
        super().__init__(
            Delivery(server.mailboxes, server.verify),
            data_size_limit=MAX_MESSAGE,
            enable_SMTPUTF8=True,
            hostname="localhost",
            ident="the embedded mailbox is ready",
            auth_require_tls=False,  # TLS is implicit here; aiosmtpd only knows STARTTLS
            auth_exclude_mechanism=MECHANISMS_WITHOUT_TOKENS,
            loop=asyncio.get_running_loop(),
        )

    def _create_session(self) -> Session:
        return Submission(self.loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(error)

    async def drop(self) -> None:
        """Ends the connection at once."""
        transport: Any = self.transport
        if transport is not None and self._handler_coroutine is not None:
            transport.abort()
            await asyncio.gather(self._handler_coroutine, return_exceptions=True)

    def data_received(self, data: bytes) -> None:
        if self._heard:
            self._heard.feed(data)
        super().data_received(data)

    async def push(self, status: Any) -> None:
        if self._said:
            octets = status.encode("utf-8") if isinstance(status, str) else status
            self._said.feed(octets + b"\r\n")
        await super().push(status)


class SmtpServer(MailServer):
    protocol = "SMTP"
    connections: set[SmtpConversation]

    async def _listen(self) -> asyncio.Server:
        self.connections = set()
        return await asyncio.get_running_loop().create_server(
            lambda: SmtpConversation(self),
            "127.0.0.1",
            0,
            ssl=self.tls,
            ssl_shutdown_timeout=TLS_SHUTDOWN_S if self.tls else None,
        )

    async def _drop_connections(self) -> None:
        await asyncio.gather(*(connection.drop() for connection in list(self.connections)))
