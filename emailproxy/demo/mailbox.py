"""The embedded mailbox: messages in memory, shared by its IMAP, POP3 and SMTP servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid

DOMAIN = "example.test"
FOLDERS = ("INBOX", "Drafts", "Sent", "Trash")
"""What every mailbox begins with; programs may add more."""
LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(eq=False, slots=True)
class Message:
    uid: int
    raw: bytes
    """RFC 5322, every line ended by CRLF."""
    received: datetime
    flags: set[str] = field(default_factory=set)


class Folder:
    """A list of messages with ever growing UIDs (RFC 3501 section 2.3.1.1)."""

    def __init__(self, name: str, uid_validity: int) -> None:
        self.name = name
        self.uid_validity = uid_validity
        self.uid_next = 1
        self.messages: list[Message] = []
        self._watchers: set[asyncio.Event] = set()

    def append(self, raw: bytes, flags: Iterable[str] = (), received: datetime | None = None) -> Message:
        """Adds a message; bare line ends become CRLF."""
        message = Message(self.uid_next, LINE_END.sub(b"\r\n", raw), received or datetime.now(UTC), set(flags))
        self.uid_next += 1
        self.messages.append(message)
        self._wake()
        return message

    def remove(self, messages: Iterable[Message]) -> None:
        gone = set(messages)
        self.messages = [message for message in self.messages if message not in gone]
        self._wake()

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever a message comes or goes."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()


class Mailbox:
    """One user's folders."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.folders: dict[str, Folder] = {}
        for name in FOLDERS:
            self.create(name)
        self.inbox.append(welcome(user))

    @property
    def inbox(self) -> Folder:
        return self.folders["INBOX"]

    def folder(self, name: str) -> Folder | None:
        """INBOX in any case (RFC 3501 section 5.1), others as spelt."""
        return self.folders.get("INBOX" if name.upper() == "INBOX" else name)

    def create(self, name: str) -> Folder:
        return self.folders.setdefault(name, Folder(name, uid_validity=len(self.folders) + 1))


class Mailboxes:
    """Every user's mailbox, made when first asked for. User names compare without regard to case."""

    def __init__(self) -> None:
        self._mailboxes: dict[str, Mailbox] = {}

    def of(self, user: str) -> Mailbox:
        key = user.casefold()
        if key not in self._mailboxes:
            self._mailboxes[key] = Mailbox(user)
        return self._mailboxes[key]


def welcome(user: str) -> bytes:
    """The message that waits in every new mailbox."""
    message = EmailMessage()
    message["From"] = f"The embedded mailbox <postmaster@{DOMAIN}>"
    message["To"] = user if user.isascii() else f"postmaster@{DOMAIN}"
    message["Subject"] = "Welcome to emailproxy"
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=DOMAIN)
    message.set_content(
        "This mailbox takes OAuth 2.0 access tokens only.\n"
        "If your program shows this message after an ordinary login, the proxy works.\n"
    )
    return message.as_bytes(policy=SMTP)
