"""A mail server that is like Exchange Online where it differs from Dovecot: an application's token opens any mailbox,
the IMAP greeting names no capabilities, and submission wants STARTTLS. It counts the round trips of every login."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from emailproxy.demo.ledger import TokenInvalid
from emailproxy.demo.provider import Provider

MOST_SUBMISSIONS = 3
"""At once, for each mailbox."""
CHALLENGE = base64.b64encode(b'{"status":"401","schemes":"bearer","scope":"mail"}').decode()
CAPABILITY = "CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT IDLE LITERAL+"


@dataclass(frozen=True)
class Attempt:
    """One login that was answered."""

    protocol: str
    user: str
    accepted: bool
    round_trips: int
    """How often the server waited for the client, from its greeting to its answer; TLS handshakes do not count."""


@dataclass
class Exchange:
    provider: Provider
    tls: ssl.SSLContext
    greeting_names_capabilities: bool = False
    imap_port: int = 0
    smtp_port: int = 0
    delegates: dict[str, set[str]] = field(default_factory=dict)
    """Who may open which other mailboxes: Full Access and Send As."""
    attempts: list[Attempt] = field(default_factory=list)
    submitting: list[str] = field(default_factory=list)
    turned_away: list[str] = field(default_factory=list)
    """Whose submission came while as many stood as may."""
    connections: int = 0
    heard: list[str] = field(default_factory=list)
    """Every line of every client."""

    def opens(self, user: str, token: str, role: str) -> bool:
        try:
            claims = self.provider.verify(token)
        except TokenInvalid:
            return False
        person = claims.get("email")
        return role in claims.get("roles", ()) or person == user or user in self.delegates.get(str(person), set())

    def submissions(self, user: str) -> int:
        """How many of this mailbox's submissions stand."""
        return self.submitting.count(user)


class Conversation(ABC):
    """One connection, in lines, on a thread of its own."""

    protocol: str
    role: str

    def __init__(self, server: Exchange, connection: socket.socket) -> None:
        self.server = server
        self.round_trips = 0
        self.user = ""
        self.connection = connection
        self._heard = b""

    @abstractmethod
    def converse(self) -> None: ...

    def line(self) -> str:
        while b"\n" not in self._heard:
            self.round_trips += 1
            data = self.connection.recv(65_536)
            if not data:
                raise EOFError
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        self.server.heard.append(line.removesuffix(b"\r").decode())
        return self.server.heard[-1]

    def say(self, *lines: str) -> None:
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def start_tls(self) -> None:
        assert self._heard == b"", "bytes behind STARTTLS"
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)

    def accepts(self, response: str) -> bool:
        """Whether an XOAUTH2 initial response logs in."""
        found = re.fullmatch(r"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01", base64.b64decode(response).decode())
        assert found is not None, response
        self.user = found[1]
        accepted = self.server.opens(self.user, found[2], self.role)
        self.server.attempts.append(Attempt(self.protocol, found[1], accepted, self.round_trips))
        return accepted


class Imap(Conversation):
    protocol, role = "IMAP", "IMAP.AccessAsApp"

    def converse(self) -> None:
        self.start_tls()
        named = f"[{CAPABILITY}] " if self.server.greeting_names_capabilities else ""
        self.say(f"* OK {named}The Microsoft Exchange IMAP4 service is ready.")
        while True:
            tag, command, *arguments = (self.line()).split(" ")
            match command.upper(), arguments:
                case "CAPABILITY", []:
                    self.say(f"* {CAPABILITY}", f"{tag} OK CAPABILITY completed.")
                case "AUTHENTICATE", ["XOAUTH2", response]:
                    if self.accepts(response):
                        self.say(f"{tag} OK AUTHENTICATE completed.")
                        continue
                    self.say(f"+ {CHALLENGE}")
                    assert self.line() == ""
                    self.say(f"{tag} NO AUTHENTICATE failed.")
                case "SELECT", ["INBOX"]:
                    self.say("* 0 EXISTS", "* 0 RECENT", f"{tag} OK [READ-WRITE] SELECT completed.")
                case "LOGOUT", []:
                    self.say("* BYE Exchange server version 15 signing off.", f"{tag} OK LOGOUT completed.")
                    return
                case _:
                    self.say(f"{tag} BAD Command Argument Error. 12")


class Smtp(Conversation):
    protocol, role = "SMTP", "SMTP.SendAsApp"

    def converse(self) -> None:
        try:
            self.submit()
        finally:
            if self.user in self.server.submitting:
                self.server.submitting.remove(self.user)

    def submit(self) -> None:
        self.say("220 EX01.example.com Microsoft ESMTP MAIL Service ready")
        secured = logged_in = False
        while True:
            verb, *arguments = self.line().split(" ")
            match [verb.upper(), *arguments]:
                case ["EHLO", _]:
                    offers = "250-AUTH LOGIN XOAUTH2" if secured else "250-STARTTLS"
                    self.say("250-EX01.example.com Hello", "250-SIZE 157286400", offers, "250 8BITMIME")
                case ["STARTTLS"]:
                    self.say("220 2.0.0 SMTP server ready")
                    self.start_tls()
                    secured = True
                case ["AUTH", "XOAUTH2", *response] if secured:
                    logged_in = self.log_in("".join(response))
                case ["QUIT"]:
                    self.say("221 2.0.0 Service closing transmission channel")
                    return
                case _ if logged_in:
                    self.say("250 2.1.0 OK")
                case _:
                    self.say("530 5.7.57 Client not authenticated to send mail.")

    def log_in(self, response: str) -> bool:
        if not response:
            self.say("334 ")
            response = self.line()
        if self.accepts(response):
            if self.server.submissions(self.user) == MOST_SUBMISSIONS:
                self.server.turned_away.append(self.user)
                self.say("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded")
                return False
            self.server.submitting.append(self.user)
            self.say("235 2.7.0 Authentication successful")
            return True
        self.say(f"334 {CHALLENGE}")
        assert self.line() == ""
        self.say("535 5.7.3 Authentication unsuccessful")
        return False


@contextlib.contextmanager
def exchange(
    provider: Provider, tls: ssl.SSLContext, *, greeting_names_capabilities: bool = False
) -> Iterator[Exchange]:
    """Runs one on free ports of 127.0.0.1: IMAP over implicit TLS, submission with STARTTLS."""
    server = Exchange(provider, tls, greeting_names_capabilities)
    with contextlib.ExitStack() as stack:
        server.imap_port = stack.enter_context(_listening(server, Imap))
        server.smtp_port = stack.enter_context(_listening(server, Smtp))
        yield server


@contextlib.contextmanager
def _listening(server: Exchange, kind: type[Conversation]) -> Iterator[int]:
    conversations: list[Conversation] = []
    threads: list[threading.Thread] = []

    def talk(conversation: Conversation) -> None:
        # A client that leaves, or refuses our certificate, is a client's right.
        with contextlib.suppress(EOFError, OSError):
            conversation.converse()
        conversation.connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):  # The listening socket was shut down.
            while True:
                connection, _ = listener.accept()
                server.connections += 1
                conversations.append(kind(server, connection))
                threads.append(threading.Thread(target=talk, args=(conversations[-1],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for conversation in conversations:
                with contextlib.suppress(OSError):
                    conversation.connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
