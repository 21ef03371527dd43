"""IMAP's words (RFC 3501 section 9): commands into arguments, values into strings, sequence sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from emailproxy.errors import ProtocolError

# literal = "{" number ["+"] "}" CRLF *CHAR8 (RFC 7888 for "+")
LITERAL = re.compile(rb"\{(\d{1,10})(\+?)\}\Z")
# An atom, a flag, or a fetch item whose section holds spaces and parentheses: BODY.PEEK[HEADER.FIELDS (DATE)]<0.512>
ATOM = re.compile(rb'(?:[^\s()"\[\]]|\[[^\]]*\])+')
QUOTED = re.compile(rb'"((?:[^"\\]|\\["\\])*)"')
NUMBER = re.compile(r"[1-9]\d{0,9}\Z")
MAX_DEPTH = 20
"""Parentheses within parentheses; no honest command comes near."""

Argument = str | bytes | list["Argument"]
"""An atom or a quoted string, a literal, or a parenthesised list."""


def parse(pieces: Sequence[bytes]) -> list[Argument]:
    """The arguments of one command. Every second piece is the octets of a literal.

    Raises:
        ProtocolError: a quote or parenthesis has no partner.
    """
    stack: list[list[Argument]] = [[]]
    for index, piece in enumerate(pieces):
        if index % 2:
            stack[-1].append(piece)
        else:
            _parse_text(piece, stack)
    if len(stack) != 1:
        raise ProtocolError("a parenthesis is left open")
    return stack[0]


def _parse_text(text: bytes, stack: list[list[Argument]]) -> None:
    position = 0
    while position < len(text):
        letter = text[position : position + 1]
        if letter == b" ":
            position += 1
        elif letter == b"(" and len(stack) < MAX_DEPTH:
            stack.append([])
            position += 1
        elif letter == b")" and len(stack) > 1:
            closed = stack.pop()
            stack[-1].append(closed)
            position += 1
        else:
            found = QUOTED.match(text, position) or ATOM.match(text, position)
            if found is None:
                raise ProtocolError("the command cannot be read")
            word = re.sub(rb"\\(.)", rb"\1", found[1]) if found.re is QUOTED else found[0]
            stack[-1].append(word.decode("utf-8", "surrogateescape"))
            position = found.end()


def text(argument: Argument) -> str:
    """An astring.

    Raises:
        ProtocolError: it is a list.
    """
    if isinstance(argument, list):
        raise ProtocolError("a list stands where a word should")
    return argument.decode("utf-8", "surrogateescape") if isinstance(argument, bytes) else argument


def words(argument: Argument) -> list[str]:
    """A list of atoms, or one that stands alone."""
    return [text(word) for word in (argument if isinstance(argument, list) else [argument])]


def string(value: str | bytes | None) -> bytes:
    """An nstring: NIL, a quoted string, or a literal where it must be one."""
    if value is None:
        return b"NIL"
    octets = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if len(octets) < 1000 and octets.isascii() and not re.search(rb"[\r\n\0]", octets):
        return b'"' + re.sub(rb'(["\\])', rb"\\\1", octets) + b'"'
    return literal(octets)


def literal(octets: bytes) -> bytes:
    return b"{%d}\r\n" % len(octets) + octets


def in_set(sequence_set: str, highest: int) -> Iterator[tuple[int, int]]:
    """The ranges of a sequence set, ``*`` being `highest` (RFC 3501 section 9: sequence-set).

    Raises:
        ProtocolError: it is not one.
    """
    for part in sequence_set.split(","):
        ends = part.split(":")
        if len(ends) > 2 or not all(end == "*" or NUMBER.match(end) for end in ends):
            raise ProtocolError("the sequence set cannot be read")
        numbers = sorted(highest if end == "*" else int(end) for end in ends)
        yield numbers[0], numbers[-1]
