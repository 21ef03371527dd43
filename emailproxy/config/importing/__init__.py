"""Files of other programs to accounts of ours. No I/O, and no secret in any message."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath

from emailproxy.config.importing import foreign, mutt, oama, pizauth, saslxoauth2
from emailproxy.config.importing.found import FORMATS, Format, Found, Imported, ImportedAccount
from emailproxy.config.importing.found import completed as _completed
from emailproxy.config.importing.recognise import json_object, locked_by, recognised
from emailproxy.config.scan import MAX_FILE_OCTETS, shown

__all__ = ["FORMATS", "Format", "Imported", "ImportedAccount", "read", "read_all"]

_READERS: Mapping[Format, Callable[[str, str], Found]] = {
    Format.EMAILPROXY: foreign.read,
    Format.MUTT: mutt.read,
    Format.OAMA: oama.read,
    Format.PIZAUTH: pizauth.read,
    Format.SASL: saslxoauth2.read,
}
_DECRYPTION = {"GnuPG": "gpg --decrypt", "age": "age --decrypt --identity KEYFILE"}


def read(data: bytes, name: str, *, format: str | None = None) -> Imported:
    """What one file holds; `name` is its path, for messages, and in some formats the account's name.

    Args:
        format: one of `FORMATS`; None: what the file looks like.
    """
    return read_all([(data, name)], format=format)


def read_all(files: Iterable[tuple[bytes, str]], *, format: str | None = None) -> Imported:
    """What several files hold together: some programs keep their clients in one file, and tokens in others."""
    return _completed([_read(data, name, format) for data, name in files])


def _read(data: bytes, name: str, format: str | None) -> Found:
    about = shown(PurePath(name).name)
    found = _taken_apart(data, name, format)
    return replace(found, unread=tuple(f"{about}: {line}" for line in found.unread), about=about)


def _taken_apart(data: bytes, name: str, format: str | None) -> Found:
    if len(data) > MAX_FILE_OCTETS:
        return Found(unread=(f"is larger than {MAX_FILE_OCTETS} octets, so it is no file of accounts",))
    locked = locked_by(data)
    if locked:
        plain = shlex.quote(f"{PurePath(name).name}.plain")
        command = f"{_DECRYPTION[locked]} {shlex.quote(name)} > {plain}"
        return Found(unread=(f"is encrypted with {locked}; decrypt it, (umask 077; {command}), and import {plain}",))
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return Found(unread=(f"is no text; {_OPAQUE}",))
    kind = Format(format) if format else recognised(text)
    if kind is None:
        return Found(unread=(f"is in none of the formats that are known here ({', '.join(FORMATS)}); {_OPAQUE}",))
    if kind in (Format.MUTT, Format.SASL) and json_object(text) is None:
        return Found(kind, unread=(f"is no JSON object, as {kind} writes it",))
    found = _READERS[kind](text, name)
    empty = not (found.accounts or found.services or found.sections or found.unread)
    return replace(found, unread=(f"holds no account of {kind}",)) if empty else found


_OPAQUE = "what 'pizauth dump' writes, only pizauth reads"
