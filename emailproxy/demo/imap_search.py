"""The embedded IMAP server's SEARCH (RFC 3501 section 6.4.4): the keys that mail programs use."""

from __future__ import annotations

from collections.abc import Callable

from emailproxy.demo.imap_grammar import Argument, in_set, text
from emailproxy.demo.mailbox import Message
from emailproxy.demo.mime import field, parse
from emailproxy.errors import ProtocolError

Numbered = list[tuple[int, Message]]
Test = Callable[[int, Message], bool]

MAX_DEPTH = 20
"""NOT and OR within each other."""
FLAG_KEYS = {
    "ANSWERED": r"\Answered",
    "DELETED": r"\Deleted",
    "DRAFT": r"\Draft",
    "FLAGGED": r"\Flagged",
    "SEEN": r"\Seen",
}
HEADER_KEYS = ("SUBJECT", "FROM", "TO", "CC", "BCC")
TEXT_KEYS = ("TEXT", "BODY")


def matching(arguments: list[Argument], numbered: Numbered) -> set[Message]:
    """The messages that meet every key.

    Raises:
        ProtocolError: a key is not known, or lacks its argument.
    """
    rest = list(arguments)
    if rest and text_or_empty(rest[0]).upper() == "CHARSET":
        rest = rest[2:]
    if not rest:
        raise ProtocolError("SEARCH takes at least one key")
    tests = []
    while rest:
        tests.append(_test(rest, numbered, depth=0))
    return {message for number, message in numbered if all(test(number, message) for test in tests)}


def text_or_empty(argument: Argument) -> str:
    return "" if isinstance(argument, list) else text(argument)


def _test(rest: list[Argument], numbered: Numbered, depth: int) -> Test:
    """Takes one key and its arguments off the front of `rest`."""
    if depth > MAX_DEPTH:
        raise ProtocolError("the search is nested too deeply")
    key = _take(rest)
    if isinstance(key, list):
        inner = list(key)
        tests = []
        while inner:
            tests.append(_test(inner, numbered, depth + 1))
        return lambda number, message: all(test(number, message) for test in tests)
    name = text(key).upper()
    if name == "ALL":
        return lambda _number, _message: True
    if name == "NOT":
        negated = _test(rest, numbered, depth + 1)
        return lambda number, message: not negated(number, message)
    if name == "OR":
        one, other = _test(rest, numbered, depth + 1), _test(rest, numbered, depth + 1)
        return lambda number, message: one(number, message) or other(number, message)
    return _flag_test(name) or _text_test(name, rest) or _set_test(name, rest, numbered)


def _flag_test(name: str) -> Test | None:
    if name in FLAG_KEYS:
        flag = FLAG_KEYS[name]
        return lambda _, message: flag in message.flags
    if name.removeprefix("UN") in FLAG_KEYS:
        flag = FLAG_KEYS[name.removeprefix("UN")]
        return lambda _, message: flag not in message.flags
    return None


def _text_test(name: str, rest: list[Argument]) -> Test | None:
    if name in TEXT_KEYS:
        octets = text(_take(rest)).lower().encode("utf-8", "surrogateescape")
        return lambda _, message: octets in message.raw.lower()
    if name in HEADER_KEYS or name == "HEADER":
        header = text(_take(rest)) if name == "HEADER" else name
        words = text(_take(rest)).lower()
        return lambda _, message: _in_header(message, header, words)
    return None


def _in_header(message: Message, header: str, words: str) -> bool:
    value = field(parse(message.raw).fields, header)
    return value is not None and words in value.lower()


def _set_test(name: str, rest: list[Argument], numbered: Numbered) -> Test:
    by_uid = name == "UID"
    sequence_set = text(_take(rest)) if by_uid else name
    highest = max((message.uid for _, message in numbered), default=0) if by_uid else len(numbered)
    ranges = list(in_set(sequence_set, highest))
    return lambda number, message: any(first <= (message.uid if by_uid else number) <= last for first, last in ranges)


def _take(rest: list[Argument]) -> Argument:
    if not rest:
        raise ProtocolError("a search key lacks its argument")
    return rest.pop(0)
