"""Three programs that know nothing of OAuth 2.0: the standard library's clients with a user name and a password."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from emailproxy.errors import EmailProxyError

TIMEOUT_S = 30
"""Of one step of a client; longer than a login waits for a consent."""


class DemoFailed(EmailProxyError):
    """Something in the demo did not work; the text says what."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What a client is set to. `logged_in` is called once its login has succeeded."""

    host: str
    port: int
    user: str
    password: str
    logged_in: Callable[[], None]


def send(visit: Visit, subject: str) -> str:
    """Sends the user a message; says what happened. Blocks, as all of these do."""
    message = EmailMessage()
    message["From"] = message["To"] = visit.user
    message["Subject"] = subject
    message.set_content("Sent with a user name and a password; delivered with an OAuth 2.0 access token.\n")
    try:
        with smtplib.SMTP(visit.host, visit.port, timeout=TIMEOUT_S) as client:
            client.login(visit.user, visit.password)
            visit.logged_in()
            client.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise DemoFailed(f"smtplib could not send through the proxy: {error}") from error
    return f"sent “{subject}”"


def read_by_imap(visit: Visit, subject: str) -> str:
    """Reads the newest message, which must have this subject."""
    try:
        with imaplib.IMAP4(visit.host, visit.port, timeout=TIMEOUT_S) as client:
            client.login(visit.user, visit.password)
            visit.logged_in()
            count = int(client.select()[1][0] or b"0")
            fetched = client.fetch(str(count), "(RFC822)")[1][0]
    except (imaplib.IMAP4.error, OSError) as error:
        raise DemoFailed(f"imaplib could not read through the proxy: {error}") from error
    return _expect(subject, fetched[1] if isinstance(fetched, tuple) else b"", count)


def read_by_pop(visit: Visit, subject: str) -> str:
    """Reads the newest message, which must have this subject."""
    try:
        client = poplib.POP3(visit.host, visit.port, timeout=TIMEOUT_S)
        try:
            client.user(visit.user)
            client.pass_(visit.password)
            visit.logged_in()
            count = client.stat()[0]
            lines = client.retr(count)[1]
            client.quit()
        finally:
            client.close()
    except (poplib.error_proto, OSError) as error:
        raise DemoFailed(f"poplib could not read through the proxy: {error}") from error
    return _expect(subject, b"\r\n".join(lines), count)


def _expect(subject: str, raw: bytes, count: int) -> str:
    found = message_from_bytes(raw, policy=default)["Subject"]
    if found != subject:
        raise DemoFailed(f"the newest of {count} messages is “{found}”, not “{subject}”")
    return f"{count} messages, the newest is “{found}”"
