"""Where submitted mail ends: an SMTP server that keeps what it is given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_MESSAGE = 512 * 1024 * 1024


@dataclass(frozen=True)
class Mail:
    sender: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass
class Sink:
    """The mails taken so far are in `mails`; `next` waits for one that nobody waited for before."""

    port: int = 0
    mails: list[Mail] = field(default_factory=list)
    _arrived: asyncio.Queue[Mail] = field(default_factory=asyncio.Queue)

    async def next(self) -> Mail:
        return await self._arrived.get()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.content)
        self.mails.append(mail)
        self._arrived.put_nowait(mail)
        return "250 2.0.0 kept"


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """Runs one on a free port of 127.0.0.1."""
    kept = Sink()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(kept, data_size_limit=MAX_MESSAGE, enable_SMTPUTF8=True), "127.0.0.1", 0
    )
    kept.port = server.sockets[0].getsockname()[1]
    try:
        yield kept
    finally:
        server.close()
