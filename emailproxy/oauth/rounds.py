"""How often a file asks for its passphrase to be hashed: told before that is done, as nothing stops it once begun.

OpenSSL takes any number, and nothing else of the process runs meanwhile: a file that says two thousand million would
stop every account for a quarter of an hour.
"""

from __future__ import annotations

import base64
import re

MAX_ROUNDS = 2_000_000  # a second's work; programs that write such files take 2,048 to 1,000,000
MAX_DEPTH = 16  # of structures within octet strings; PKCS #12 has four

# ITU-T X.690 section 8.1: identifier octets of what PKCS #5 and #12 build with
CONSTRUCTED, INTEGER, OCTET_STRING, SEQUENCE = 0x20, 0x02, 0x04, 0x30
LONG_FORM = 0x80
ARMOUR = re.compile(rb"-----[^-\n]{1,100}-----")


def rounds_in(content: bytes) -> int:
    """The highest count that follows a salt in DER or BER: PBKDF2 and scrypt (RFC 8018 appendix A.2, RFC 7914
    section 7), PKCS #12's own way and its MAC (RFC 7292 section 4 and appendix C)."""
    return highest(content, MAX_DEPTH)


def rounds_in_pem(pem: bytes) -> int:
    """The same in PEM (RFC 7468); 0 where it is no base64."""
    try:
        return rounds_in(base64.b64decode(ARMOUR.sub(b"", pem)))
    except ValueError:
        return 0


def highest(content: bytes, depth: int) -> int:
    found, at, after_salt = 0, 0, False
    while at + 2 <= len(content) and depth:
        tag, length, at = content[at], content[at + 1], at + 2
        if length & LONG_FORM:
            octets = length & ~LONG_FORM  # none: BER's indefinite form, whose content ends with two NULs
            length = int.from_bytes(content[at : at + octets])
            at += octets
        if tag & CONSTRUCTED:
            after_salt = False
            continue  # into it
        value = content[at : at + length]
        if tag == INTEGER and after_salt:
            found = max(found, int.from_bytes(value))
        if tag == OCTET_STRING and value[:1] == bytes([SEQUENCE]):
            found = max(found, highest(value, depth - 1))
        after_salt = tag == OCTET_STRING
        at += length
    return found
