"""Asks a mail server for TLS on a plaintext connection. No credential ever follows on it."""

from __future__ import annotations

import socket

from emailproxy.config.model import KIB, MailProtocol
from emailproxy.errors import EmailProxyError, one_line

MAX_REPLY = 64 * KIB  # octets of all that the server says until then
CHUNK = 4 * KIB


class Refused(EmailProxyError):
    """The server does not begin TLS; the text says what it answered."""


def ask_for_tls(sock: socket.socket, protocol: MailProtocol) -> None:
    """Greeting, STARTTLS or STLS, go-ahead. Blocks.

    Raises:
        Refused: the server says no, or something else.
        OSError: the connection broke, or the server took too long.
    """
    talk = Talk(sock)
    match protocol:
        case MailProtocol.SMTP:
            talk.expect("220")
            talk.say("EHLO [127.0.0.1]")
            talk.expect("250")
            talk.say("STARTTLS")
            talk.expect("220")
        case MailProtocol.IMAP:
            talk.expect("* OK")
            talk.say("EP STARTTLS")
            talk.expect("EP OK", passing="* ")
        case MailProtocol.POP:
            talk.expect("+OK")
            talk.say("STLS")
            talk.expect("+OK")


class Talk:
    """Lines over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._heard = b""
        self._left = MAX_REPLY

    def say(self, command: str) -> None:
        self._sock.sendall(command.encode("ascii") + b"\r\n")

    def expect(self, start: str, *, passing: str = "") -> None:
        """Reads a reply whose last line begins so; lines that begin with `passing` go before it."""
        line = self._line()
        while line.startswith(f"{start}-") or (passing and line.startswith(passing)):
            line = self._line()
        if not line.upper().startswith(start):
            raise Refused(f"the server does not begin TLS here: {one_line(line) or 'it closed the connection'}")

    def _line(self) -> str:
        while b"\n" not in self._heard:
            chunk = self._sock.recv(min(CHUNK, self._left))
            self._left -= len(chunk)
            if not chunk:  # the end, or more than a greeting and two replies can be
                line, self._heard = self._heard, b""
                return line.decode("utf-8", "replace")
            self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("utf-8", "replace").rstrip("\r")
