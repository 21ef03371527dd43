"""The embedded IMAP server's FETCH (RFC 3501 section 6.4.5): which item of a message, and in which octets."""

from __future__ import annotations

import re
from datetime import datetime

from emailproxy.demo import mime
from emailproxy.demo.imap_grammar import literal, string
from emailproxy.demo.mailbox import Message
from emailproxy.errors import ProtocolError

MACROS = {
    "FAST": ["FLAGS", "INTERNALDATE", "RFC822.SIZE"],
    "ALL": ["FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"],
    "FULL": ["FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"],
}
OLD_NAMES = {
    "RFC822": "BODY[]",
    "RFC822.HEADER": "BODY.PEEK[HEADER]",
    "RFC822.TEXT": "BODY[TEXT]",
}
# "BODY" [".PEEK"] section ["<" number "." nz-number ">"]
BODY = re.compile(r"BODY(\.PEEK)?\[([^\]]*)\](?:<(\d{1,10})\.(\d{1,10})>)?\Z", re.IGNORECASE)
# section-part ["." section-text] / section-msgtext; the field list stays as it is
SECTION = re.compile(
    r"(?P<part>\d{1,4}(?:\.\d{1,4})*)?\.?"
    r"(?P<text>HEADER\.FIELDS(?:\.NOT)? \((?P<fields>[^)]*)\)|HEADER|TEXT|MIME)?\Z",
    re.IGNORECASE,
)
# RFC 5322 section 2.2: a field, folded lines included
FIELD = re.compile(rb"([^\s:]+)[ \t]*:.*?\r\n(?![ \t])", re.DOTALL)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def items(asked: list[str]) -> list[str]:
    """The fetch items behind macros."""
    if len(asked) == 1 and asked[0].upper() in MACROS:
        return MACROS[asked[0].upper()]
    return asked


def sees(asked: list[str]) -> bool:
    """Whether fetching these items sets ``\\Seen``."""
    return any(name.upper() in ("RFC822", "RFC822.TEXT") or name.upper().startswith("BODY[") for name in asked)


def fetched(message: Message, asked: list[str]) -> bytes:
    """The parenthesised data of a FETCH response.

    Raises:
        ProtocolError: an item is not known.
    """
    found = []
    for name in asked:
        label = name.upper()
        octets = _plain(message, label)
        if octets is None:
            label, octets = _body(message, OLD_NAMES.get(label, name), label)
        found.append(label.encode("utf-8", "surrogateescape") + b" " + octets)
    return b"(%s)" % b" ".join(found)


def _plain(message: Message, name: str) -> bytes | None:
    match name:
        case "UID":
            return b"%d" % message.uid
        case "FLAGS":
            return flag_list(message)
        case "RFC822.SIZE":
            return b"%d" % len(message.raw)
        case "INTERNALDATE":
            return string(internal_date(message.received))
        case "ENVELOPE":
            return mime.envelope(mime.parse(message.raw))
        case "BODY" | "BODYSTRUCTURE":
            return mime.structure(mime.parse(message.raw), extended=name == "BODYSTRUCTURE")
        case _:
            return None


def _body(message: Message, name: str, label: str) -> tuple[str, bytes]:
    asked = BODY.match(name)
    section = SECTION.match(asked[2]) if asked else None
    if asked is None or section is None:
        raise ProtocolError("a fetch item is not known")
    octets = _section(message, section)
    if label not in OLD_NAMES:
        label = f"BODY[{asked[2].upper()}]"
    if asked[3] is not None and octets is not None:
        start, count = int(asked[3]), int(asked[4])
        octets = octets[start : start + count]
        label = f"{label}<{start}>"
    return label, b"NIL" if octets is None else literal(octets)


def _section(message: Message, section: re.Match[str]) -> bytes | None:
    if section["part"] is None and section["text"] is None:
        return message.raw
    whole = mime.parse(message.raw)
    part, text = whole, (section["text"] or "").upper()
    for number in map(int, section["part"].split(".") if section["part"] else ()):
        child = (mime.parse(part.body) if part.is_message else part).child(number)
        if child is None:
            return None
        part = child
    if section["part"] and text not in ("", "MIME"):
        if not part.is_message:
            return None
        part = mime.parse(part.body)
    if text.startswith("HEADER.FIELDS"):
        wanted = {name.strip('"').lower() for name in section["fields"].split()}
        return _fields(part.header, wanted, keep=not text.startswith("HEADER.FIELDS.NOT"))
    return part.header if text in ("HEADER", "MIME") else part.body


def _fields(header: bytes, wanted: set[str], *, keep: bool) -> bytes:
    chosen = [
        found[0] for found in FIELD.finditer(header) if (found[1].decode("ascii", "replace").lower() in wanted) is keep
    ]
    return b"".join(chosen) + b"\r\n"


def flag_list(message: Message) -> bytes:
    return b"(%s)" % " ".join(sorted(message.flags)).encode("utf-8", "surrogateescape")


def internal_date(received: datetime) -> str:
    """date-time of RFC 3501 section 9; month names are English wherever we run."""
    month = MONTHS[received.month - 1]
    return f"{received.day:2d}-{month}-{received:%Y %H:%M:%S} {received:%z}"
