"""A message's parts as octets, and what IMAP says of them: ENVELOPE and BODYSTRUCTURE (RFC 3501 section 7.4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.utils import collapse_rfc2231_value, getaddresses

from emailproxy.demo.imap_grammar import string

MAX_DEPTH = 20
"""Multiparts within multiparts."""
ADDRESS_FIELDS = ("From", "Sender", "Reply-To", "To", "Cc", "Bcc")
DEFAULTED_TO_FROM = ("Sender", "Reply-To")


@dataclass(frozen=True, slots=True)
class Part:
    """A message or body part: header octets (blank line included), body octets, and its own parts."""

    header: bytes
    body: bytes
    fields: Message
    parts: tuple[Part, ...]

    @property
    def is_message(self) -> bool:
        return self.fields.get_content_type() == "message/rfc822"

    def child(self, number: int) -> Part | None:
        """Part `number`, from 1 (RFC 3501 section 6.4.5); what is no multipart has itself as part 1."""
        if self.parts:
            return self.parts[number - 1] if 1 <= number <= len(self.parts) else None
        return self if number == 1 else None


def parse(raw: bytes, depth: int = 0) -> Part:
    """A message's tree; every octet of a part comes from `raw` unchanged."""
    header, blank, body = raw.partition(b"\r\n\r\n")
    if raw.startswith(b"\r\n"):
        header, blank, body = b"", b"\r\n", raw[2:]
    fields = message_from_bytes(header + b"\r\n\r\n")
    parts: tuple[Part, ...] = ()
    boundary = fields.get_boundary() if fields.get_content_maintype() == "multipart" else None
    if boundary and depth < MAX_DEPTH:
        parts = tuple(parse(piece, depth + 1) for piece in _split(body, boundary))
    return Part(header + blank, body, fields, parts)


def _split(body: bytes, boundary: str) -> list[bytes]:
    """RFC 2046 section 5.1.1: the CRLF before a delimiter belongs to the delimiter."""
    delimiter = re.escape(boundary.encode("utf-8", "surrogateescape"))
    pieces = re.split(rb"(?:\A|\r\n)--" + delimiter + rb"(--)?[ \t]*(?=\r\n|\Z)", body)
    parts = []
    # preamble, end?, part, end?, part ... ; what follows the closing delimiter is the epilogue
    for closing, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if closing:
            break
        parts.append(piece.removeprefix(b"\r\n"))
    return parts


def field(fields: Message, name: str) -> str | None:
    value = fields.get(name)
    return None if value is None else re.sub(r"\s+", " ", str(value)).strip()


def envelope(part: Part) -> bytes:
    fields = part.fields
    addresses = {name: _addresses(fields, name) for name in ADDRESS_FIELDS}
    for name in DEFAULTED_TO_FROM:
        if addresses[name] == b"NIL":
            addresses[name] = addresses["From"]
    return b"(%s)" % b" ".join(
        (
            string(field(fields, "Date")),
            string(field(fields, "Subject")),
            *addresses.values(),
            string(field(fields, "In-Reply-To")),
            string(field(fields, "Message-ID")),
        )
    )


def _addresses(fields: Message, name: str) -> bytes:
    found = []
    for display_name, address in getaddresses([str(value) for value in fields.get_all(name, [])]):
        mailbox, at, host = address.rpartition("@")
        if at:
            found.append(b"(%s NIL %s %s)" % (string(display_name or None), string(mailbox), string(host)))
    return b"(%s)" % b"".join(found) if found else b"NIL"


def structure(part: Part, *, extended: bool) -> bytes:
    """BODYSTRUCTURE, or with `extended` off, BODY."""
    if part.parts:
        inner = b"".join(structure(child, extended=extended) for child in part.parts)
        more = b" %s NIL NIL NIL" % _parameters(part.fields) if extended else b""
        return b"(%s %s%s)" % (inner, string(part.fields.get_content_subtype().upper()), more)
    fields = part.fields
    basic = [
        string(fields.get_content_maintype().upper()),
        string(fields.get_content_subtype().upper()),
        _parameters(fields),
        string(field(fields, "Content-ID")),
        string(field(fields, "Content-Description")),
        string((field(fields, "Content-Transfer-Encoding") or "7bit").upper()),
        b"%d" % len(part.body),
    ]
    if part.is_message:
        inside = parse(part.body)
        basic += [envelope(inside), structure(inside, extended=extended)]
    if part.is_message or fields.get_content_maintype() == "text":
        basic.append(b"%d" % part.body.count(b"\r\n"))
    if extended:
        basic += [b"NIL", _disposition(fields), b"NIL", b"NIL"]
    return b"(%s)" % b" ".join(basic)


def _parameters(fields: Message, header: str = "content-type") -> bytes:
    found = fields.get_params(failobj=[], header=header)[1:]
    if not found and header == "content-type" and fields.get_content_maintype() == "text":
        found = [("charset", "us-ascii")]  # RFC 2045 section 5.2
    pairs = [string(name.upper()) + b" " + string(collapse_rfc2231_value(value)) for name, value in found]
    return b"(%s)" % b" ".join(pairs) if pairs else b"NIL"


def _disposition(fields: Message) -> bytes:
    disposition = fields.get_content_disposition()
    if disposition is None:
        return b"NIL"
    return b"(%s %s)" % (string(disposition.upper()), _parameters(fields, "content-disposition"))
