"""Lines ended by CRLF: a buffer that yields them, with named limits, and the lines that we build."""

from __future__ import annotations

from emailproxy.errors import ProtocolError, one_line

MAX_LINE = 8_192  # octets of a command line before login, CRLF not counted (RFC 7162 section 4 advises 8,192)
MAX_SASL_RESPONSE = 12_288  # RFC 4954 section 4: the longest base64 response a server must take
MAX_LITERAL = 4_096  # octets; RFC 7888 section 5 (LITERAL-) has the same bound
MAX_SERVER_REPLY = 65_536  # octets of a server's answer to one command before login
MAX_REPLY = 512  # octets of a reply that we build, CRLF included (RFC 5321 section 4.5.3.1.5)
MAX_CAPABILITY = MAX_REPLY - len("250-\r\n")  # octets of one thing that a server offers
COMMAND_ROOM = 128  # octets for the words before an initial response: an IMAP tag, the command, the mechanism


def fit(prefix: bytes, words: str) -> bytes:
    """A reply line of ours: ASCII, one line, within 512 octets."""
    room = MAX_REPLY - len(prefix) - 2
    return prefix + one_line(words, room).encode("ascii", "replace") + b"\r\n"


class LineTooLong(ProtocolError):
    """No CRLF within the limit."""


class BareLineFeed(ProtocolError):
    """A line ended by LF without CR: the way in of smuggled commands."""


class LineBuffer:
    """Octets in, lines out. Scans every octet once, however they are split."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._scanned = 0

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        self._data += data

    def starts(self, count: int) -> bytes:
        """The first `count` octets, or fewer, left in place."""
        return bytes(self._data[:count])

    def take_line(self, limit: int) -> bytes | None:
        """The next line without its CRLF, or None while it is incomplete.

        Raises:
            LineTooLong: more than `limit` octets before the CRLF.
            BareLineFeed: the line ends with LF alone.
        """
        end = self._data.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._data)
            held_back = self._data.endswith(b"\r")
            if len(self._data) - held_back > limit:
                raise LineTooLong(f"a line of more than {limit} octets")
            return None
        ended_by_cr = self._data.endswith(b"\r", 0, end)
        if end - ended_by_cr > limit:
            raise LineTooLong(f"a line of more than {limit} octets")
        if not ended_by_cr:
            raise BareLineFeed("a line ended by LF without CR")
        return self._cut(end + 1)[:-2]

    def take(self, count: int) -> bytes | None:
        """Exactly `count` octets, or None while there are fewer."""
        return self._cut(count) if len(self._data) >= count else None

    def take_rest(self) -> bytes:
        """All that is left."""
        return self._cut(len(self._data))

    def _cut(self, count: int) -> bytes:
        piece = bytes(self._data[:count])
        del self._data[:count]
        self._scanned = 0
        return piece
