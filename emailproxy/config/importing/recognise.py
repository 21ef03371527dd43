"""Whose file it is, by what is in it."""

from __future__ import annotations

import json
import re
from typing import Any

from emailproxy.config.importing.found import Format

AGE = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")
ARMOUR = b"-----BEGIN PGP MESSAGE-----"

# RFC 9580 section 4.2: old and new headers of the packets that encrypted messages begin with (tags 1 and 3)
OPENPGP = re.compile(rb"[\x84-\x87\x8c-\x8f\xc1\xc3]")

INI = re.compile(r"^[ \t]*\[[^\[\]\n]+\]", re.MULTILINE)
YAML = re.compile(r"^(?:encryption|services)[ \t]*:", re.MULTILINE)
ACCOUNT_BLOCK = re.compile(r'^[ \t]*account[ \t\n]*"', re.MULTILINE)


def locked_by(data: bytes) -> str | None:
    """The program that encrypted it, if any."""
    if data.startswith(AGE):
        return "age"
    if data.startswith(ARMOUR):
        return "GnuPG"
    if not OPENPGP.match(data):
        return None
    try:  # what begins so is no UTF-8, but for letters of two octets
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "GnuPG"
    return None


def recognised(text: str) -> Format | None:
    found = json_object(text)
    if found is not None:
        return _of_object(found)
    if ACCOUNT_BLOCK.search(text):
        return Format.PIZAUTH
    if YAML.search(text):
        return Format.OAMA
    return Format.EMAILPROXY if INI.search(text) else None


def _of_object(found: dict[str, Any]) -> Format | None:
    if "registration" in found:
        return Format.MUTT
    if not found.keys().isdisjoint(("services", "exp_date", "service")):
        return Format.OAMA
    if not found.keys().isdisjoint(("refresh_token", "access_token", "client_id", "token_endpoint")):
        return Format.SASL
    return None


def json_object(text: str) -> dict[str, Any] | None:
    """What an object in JSON says; None where the text is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
