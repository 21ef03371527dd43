"""Where a secret or a token comes from, as the configuration names it; read anew at every use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emailproxy.secret import Secret


@dataclass(frozen=True, slots=True)
class FromFile:
    """The file's text, without the line break at its end."""

    path: Path


@dataclass(frozen=True, slots=True)
class FromCommand:
    """What a program prints, without the line break at its end. No shell is involved."""

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """An environment variable of emailproxy's own: ``env:NAME``."""

    name: str


@dataclass(frozen=True, slots=True)
class FromKeyring:
    """The system's keyring: ``keyring:service/name``."""

    service: str
    name: str


@dataclass(frozen=True, slots=True)
class FromRecord:
    """The account's record in the state folder, where it is sealed (`encrypt_client_secret_on_first_use`)."""


SecretSource = Secret | FromFile | FromCommand | FromEnvironment | FromKeyring | FromRecord


@dataclass(frozen=True, slots=True)
class HookCommand:
    """A program that gets an event as JSON on its standard input."""

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HookUrl:
    """A URL that gets an event as JSON by POST."""

    url: str


Hook = HookCommand | HookUrl
