"""What requests to the control socket say: JSON objects with these members and no others, each of its kind."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, TypeVar

from emailproxy.errors import ProtocolError
from emailproxy.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class OfAccount:
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(OfAccount):
    name: str
    password: Secret | None = None
    """None: one is generated."""
    protocols: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    expires_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(OfAccount):
    old: Secret
    new: Secret | None = None
    """None: one is generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove(OfAccount):
    name: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    text: str | None = None
    """None: the server reads its own file."""
    path: str = ""
    """Where the text is from, for messages; absolute."""


M = TypeVar("M", OfAccount, Add, Change, Remove, Configuration)


def parsed(kind: type[M], body: bytes) -> M:
    """A body's message.

    Raises:
        ProtocolError: it is none; the text shows none of it, as it may hold a password.
    """
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise ProtocolError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise ProtocolError("the body is no JSON object")
    members = fields(kind)
    if found.keys() - {member.name for member in members}:
        raise ProtocolError(f"the body takes {', '.join(member.name for member in members)}, and nothing else")
    return kind(**{member.name: _read(member, found.get(member.name, MISSING)) for member in members})


def _read(member: Field[Any], value: object) -> Any:
    """What a member says; `None` and a missing one mean its default, where it has one."""
    if value is MISSING and member.default is MISSING:
        raise ProtocolError(f"{member.name} is missing")
    if value is MISSING or (value is None and member.default is None):
        return member.default
    kind = str(member.type).removesuffix(" | None")  # an annotation is a text here
    match kind, value:
        case ("str", str()) | ("bool", bool()):
            return value
        case "int", int() if not isinstance(value, bool):
            return value
        case "Secret", str():
            return Secret(value)
        case "tuple[str, ...]", list() if all(isinstance(each, str) for each in value):
            return tuple(value)
    raise ProtocolError(f"{member.name} is not of its kind")
