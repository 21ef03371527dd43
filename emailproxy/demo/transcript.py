"""Who said what: lines of a mail protocol with everything secret cut out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

# RFC 6750 section 2.1: b64token, and base64 as SASL uses it; a run this long is never a word.
LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_.~=-]{40,}")
SHOWN = 12
"""Characters of a long token that are shown: ``user=`` of XOAUTH2, or a JWT's header."""
# The arguments of LOGIN, PASS and AUTH PLAIN, however short: RFC 3501 6.2.3, RFC 1939 section 7, RFC 4616.
PASSWORDS = (
    re.compile(r"(?i)^(\S+ LOGIN \S+ ).*$"),
    re.compile(r"(?i)^(PASS ).*$"),
    re.compile(r"(?i)^((?:AUTH|\S+ AUTHENTICATE) PLAIN ).+$"),
)


class Speaker(StrEnum):
    CLIENT = "client"
    PROXY = "proxy"
    SERVER = "server"
    PERSON = "person"
    PROVIDER = "provider"


Tap = Callable[[str, Speaker, str], None]
"""Told of every line: the protocol, who said it, and the line without its secrets."""


@dataclass(frozen=True, slots=True)
class Line:
    protocol: str
    speaker: Speaker
    listener: Speaker
    text: str


class Transcript:
    """What was said on both sides of the proxy, in order; `hidden` texts appear as ``******``."""

    def __init__(self, *hidden: str) -> None:
        self._hidden = hidden
        self._lines: list[Line] = []
        self._closed: set[str] = set()

    def close(self, protocol: str) -> None:
        """Records no more of this protocol: after the login, both sides see the same."""
        self._closed.add(protocol)

    def take(self) -> tuple[Line, ...]:
        """What was said since the last time."""
        taken, self._lines = tuple(self._lines), []
        return taken

    def near(self, protocol: str, speaker: Speaker, text: str) -> None:
        """The tap between the client and the proxy; what is not the client is the proxy."""
        if speaker is Speaker.CLIENT:
            self.record(protocol, Speaker.CLIENT, Speaker.PROXY, text)
        else:
            self.record(protocol, Speaker.PROXY, Speaker.CLIENT, text)

    def far(self, protocol: str, speaker: Speaker, text: str) -> None:
        """The mail server's own tap; its client is the proxy."""
        if speaker is Speaker.CLIENT:
            self.record(protocol, Speaker.PROXY, Speaker.SERVER, text)
        else:
            self.record(protocol, Speaker.SERVER, Speaker.PROXY, text)

    def record(self, protocol: str, speaker: Speaker, listener: Speaker, text: str) -> None:
        for secret in self._hidden:
            text = text.replace(secret, "******")
        if protocol not in self._closed:
            self._lines.append(Line(protocol, speaker, listener, text))


def without_secrets(line: bytes) -> str:
    """A protocol line that may be shown: passwords as ``******``, tokens cut after a few characters."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    for pattern in PASSWORDS:
        text = pattern.sub(r"\1******", text)
    text = LONG_TOKEN.sub(lambda found: f"{found[0][:SHOWN]}…", text)
    return "".join(letter if letter.isprintable() else "·" for letter in text)


class LineTap:
    """Feeds a tap from one side's octets, in whatever pieces they come."""

    LIMIT = 4096
    """Octets of an unfinished line that are kept; a tap needs no more of it."""

    def __init__(self, tap: Tap, protocol: str, speaker: Speaker) -> None:
        self._tap = tap
        self._protocol = protocol
        self._speaker = speaker
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tap(self._protocol, self._speaker, without_secrets(line))
        self._rest = rest[: self.LIMIT]
