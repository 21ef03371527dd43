"""Values that lead outside the file: secrets and where they come from, programs, hooks, certificates."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from emailproxy.config import values
from emailproxy.config.hosts import is_loopback
from emailproxy.config.scan import shown
from emailproxy.config.sources import (
    FromCommand,
    FromEnvironment,
    FromFile,
    FromKeyring,
    Hook,
    HookCommand,
    HookUrl,
    SecretSource,
)
from emailproxy.config.values import Wrong
from emailproxy.secret import Secret

ENVIRONMENT = "env:"
KEYRING = "keyring:"

# POSIX.1-2017 section 8.1: underscores, digits and letters, no digit first
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# RFC 7468 sections 5, 10, 11; "RSA" and "EC" are OpenSSL's older forms
PEM_CERTIFICATE = re.compile(rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----", re.MULTILINE)
PEM_KEY = re.compile(rb"^-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----", re.MULTILINE)
MAX_PEM_OCTETS = 1 << 20  # a chain has some 10,000; beyond it somebody named the wrong file

LIST = 'write a list in JSON, e.g. ["/usr/bin/pass", "show", "mail"]: the program, then its arguments'


def secret(text: str) -> SecretSource:
    """A secret itself, ``env:NAME`` or ``keyring:service/name``. JSON may span lines."""
    if text.startswith(ENVIRONMENT):
        name = text.removeprefix(ENVIRONMENT)
        if not VARIABLE.match(name):
            raise Wrong("names no environment variable after env:", "write env:NAME, NAME of letters, digits and _")
        return FromEnvironment(name)
    if text.startswith(KEYRING):
        service, _, name = text.removeprefix(KEYRING).rpartition("/")
        if not (service and name and text.isprintable()):
            raise Wrong("names no entry of the keyring", "write keyring:SERVICE/NAME, as the keyring has them")
        return FromKeyring(service, name)
    return Secret(text if json_object(text) is not None else values.plain(text))


def is_reference(text: str) -> bool:
    """Whether a secret's key only says where the secret is."""
    return text.startswith((ENVIRONMENT, KEYRING))


def json_object(text: str) -> dict[str, object] | None:
    """What an object in JSON says, or None where the text is none."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def from_file(base: Path) -> Callable[[str], FromFile]:
    """A file that holds a secret; it may come later, as those of a container do."""
    path = values.path(base)
    return lambda text: FromFile(path(text))


def from_command(base: Path) -> Callable[[str], FromCommand]:
    """A program that prints a secret."""
    read = arguments(base)
    return lambda text: FromCommand(read(text))


def arguments(base: Path) -> Callable[[str], tuple[str, ...]]:
    """A program and its arguments as a list in JSON. A relative program with a slash begins at the file's folder."""

    def read(text: str) -> tuple[str, ...]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise Wrong("is not a list of a program and its arguments", LIST) from None
        if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
            raise Wrong("is not a list of texts", LIST)
        if not found or not found[0].strip():
            raise Wrong("names no program", LIST)
        if not all(_can_be_passed(part) for part in found):
            raise Wrong("holds a character that no argument can have", "remove the NUL or the lone surrogate")
        return (_program(base, found[0]), *found[1:])

    return read


def hook(base: Path) -> Callable[[str], Hook]:
    """A program and its arguments, or a URL: https, but for loopback hosts."""
    read_arguments = arguments(base)

    def read(text: str) -> Hook:
        if text.startswith("["):
            return HookCommand(read_arguments(text))
        mend = 'write a list in JSON, e.g. ["/usr/local/bin/notify", "--mail"], or a URL, https://HOST/PATH'
        if not re.match(r"https?://", text, re.IGNORECASE):
            raise Wrong("is neither a list of a program and its arguments nor a URL", mend)
        parts = values.split_url(text, mend)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise Wrong("is http: what happens to accounts would cross the network unencrypted", "write https://")
        return HookUrl(text)

    return read


def existing_file(base: Path) -> Callable[[str], Path]:
    """A file that is there, and that we can read."""
    path = values.path(base)

    def read(text: str) -> Path:
        found = path(text)
        try:
            is_file = stat.S_ISREG(found.stat().st_mode)
            if is_file:
                found.open("rb").close()
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "it has no such name"
            mend = f"name a file that this user can read; a relative path begins at {shown(str(base))}"
            raise Wrong(f"{shown(str(found))} cannot be read: {reason}", mend) from None
        if not is_file:
            raise Wrong(f"{shown(str(found))} is not a file", "name the file itself")
        return found

    return read


def pem_certificate(base: Path) -> Callable[[str], Path]:
    """A file of certificates in PEM; whether they can be served is for the listener to say."""
    return _pem_file(base, PEM_CERTIFICATE, "certificate")


def pem_key(base: Path) -> Callable[[str], Path]:
    """A file that holds a private key in PEM."""
    return _pem_file(base, PEM_KEY, "private key")


def holds_key(path: Path) -> bool:
    """Whether a file, e.g. a certificate's, holds a private key, too."""
    try:
        return bool(PEM_KEY.search(_beginning(path)))
    except OSError:
        return False


def _pem_file(base: Path, label: re.Pattern[bytes], what: str) -> Callable[[str], Path]:
    read_path = existing_file(base)

    def read(text: str) -> Path:
        found = read_path(text)
        try:
            is_one = label.search(_beginning(found))
        except OSError as error:
            raise Wrong(f"{shown(str(found))} cannot be read: {error.strerror}", "let this user read it") from None
        if not is_one:
            raise Wrong(f"{shown(str(found))} holds no {what} in PEM", f"name a file with a {what} in PEM")
        return found

    return read


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_PEM_OCTETS)


def _program(base: Path, name: str) -> str:
    """Names without a slash are looked for in $PATH."""
    if not {os.sep, os.altsep or os.sep} & set(name):
        return name
    return str(values.path(base)(name))


def _can_be_passed(argument: str) -> bool:
    try:
        return b"\0" not in argument.encode()
    except UnicodeEncodeError:
        return False
