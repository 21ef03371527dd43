"""Lines in, with their limits; lines out, within 512 octets."""

from __future__ import annotations

import pytest

from emailproxy.errors import ProtocolError
from emailproxy.wire.lines import MAX_LINE, MAX_REPLY, BareLineFeed, LineBuffer, LineTooLong, fit
from tests.wire.driver import CHUNKS

LINES = [
    pytest.param(b"a\r\n", [b"a"], b"", id="one"),
    pytest.param(b"\r\n", [b""], b"", id="empty"),
    pytest.param(b"a\r\nb\r\n", [b"a", b"b"], b"", id="two"),
    pytest.param(b"a\r\nb", [b"a"], b"b", id="the beginning of another"),
    pytest.param(b"a\r", [], b"a\r", id="half an end"),
    pytest.param(b"a\rb\r\r\n", [b"a\rb\r"], b"", id="CR inside is an octet like any other"),
    pytest.param(b"\0\xff\r\n", [b"\0\xff"], b"", id="any octets"),
    pytest.param(b"x" * MAX_LINE + b"\r\n", [b"x" * MAX_LINE], b"", id="the longest"),
    pytest.param(b"x" * MAX_LINE + b"\r", [], b"x" * MAX_LINE + b"\r", id="the longest, half an end"),
]
REFUSED = [
    pytest.param(b"x" * (MAX_LINE + 1), LineTooLong, id="too long and unended"),
    pytest.param(b"x" * (MAX_LINE + 1) + b"\r\n", LineTooLong, id="too long"),
    pytest.param(b"\n", BareLineFeed, id="LF alone"),
    pytest.param(b"a\n", BareLineFeed, id="a bare LF"),
    pytest.param(b"a\nb\r\n", BareLineFeed, id="a bare LF inside"),
]


def read(data: bytes, chunk: int) -> tuple[list[bytes], LineBuffer]:
    lines, buffer = [], LineBuffer()
    for start in range(0, len(data), chunk):
        buffer.append(data[start : start + chunk])
        while (line := buffer.take_line(MAX_LINE)) is not None:
            lines.append(line)
    return lines, buffer


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("data", "lines", "rest"), LINES)
def test_lines_come_however_they_are_split(data: bytes, lines: list[bytes], rest: bytes, chunk: int) -> None:
    taken, buffer = read(data, chunk)
    assert taken == lines
    assert len(buffer) == len(rest)
    assert buffer.take_rest() == rest
    assert len(buffer) == 0


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("data", "error"), REFUSED)
def test_lines_that_are_none_are_refused(data: bytes, error: type[ProtocolError], chunk: int) -> None:
    with pytest.raises(error):
        read(data, chunk)


def test_octets_are_taken_exactly_or_not_at_all() -> None:
    buffer = LineBuffer()
    buffer.append(b"abc\r\nd")
    assert buffer.take(7) is None
    assert buffer.starts(2) == b"ab"
    assert buffer.starts(99) == b"abc\r\nd"
    assert buffer.take(0) == b""
    assert buffer.take(4) == b"abc\r"
    buffer.append(b"\r\n")
    with pytest.raises(BareLineFeed):
        buffer.take_line(MAX_LINE)


def test_a_line_that_comes_octet_by_octet_is_scanned_once() -> None:
    """A scan from the start at every octet would touch some 30 million."""
    buffer = LineBuffer()
    searched = 0

    class Counting(bytearray):
        def find(self, sub: bytes, start: int = 0) -> int:  # type: ignore[override]
            nonlocal searched
            searched += len(self) - start
            return super().find(sub, start)

    buffer._data = Counting()
    for _ in range(MAX_LINE):
        buffer.append(b"x")
        assert buffer.take_line(MAX_LINE) is None
    assert searched == MAX_LINE


WORDS = [
    pytest.param("all is well", b"- all is well\r\n", id="plain"),
    pytest.param("a\r\nb\0c\td\x7fe", b"- a b c d e\r\n", id="control characters"),
    pytest.param("x\u2028y\x85z", b"- x y z\r\n", id="line ends of Unicode"),
    pytest.param("Bj\u00f6rn \U0001f600", b"- Bj?rn ?\r\n", id="beyond ASCII"),
    pytest.param("\ud800", b"- \r\n", id="half a surrogate pair"),
    pytest.param("", b"- \r\n", id="nothing"),
]


@pytest.mark.parametrize(("words", "line"), WORDS)
def test_somebody_elses_words_make_one_line_of_ascii(words: str, line: bytes) -> None:
    assert fit(b"- ", words) == line


@pytest.mark.parametrize("length", [MAX_REPLY - 5, MAX_REPLY - 4, MAX_REPLY - 3, 10**5])
def test_a_reply_never_exceeds_its_limit(length: int) -> None:
    line = fit(b"- ", "\u00f6" * length)
    assert len(line) == min(length + 4, MAX_REPLY)
    assert line.endswith(b"...\r\n") == (length + 4 > MAX_REPLY)
