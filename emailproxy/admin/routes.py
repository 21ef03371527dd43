"""What the control socket offers, whatever carries it: a request's method, path and body in, facts out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, Protocol

from emailproxy.admin.messages import Add, Change, Configuration, OfAccount, Remove, parsed
from emailproxy.config.model import KIB
from emailproxy.config.scan import MAX_FILE_OCTETS
from emailproxy.errors import AccountUnusable, ConfigError, EmailProxyError, ProtocolError, UnknownAccount
from emailproxy.oauth.passwords import NewSlot
from emailproxy.service import Reloaded, Service
from emailproxy.service.facts import slot_facts
from emailproxy.store.base import Limits

MAX_BODY = 64 * KIB  # octets; a password and its limits have a few hundred
MAX_RELOAD = 2 * MAX_FILE_OCTETS  # a configuration file, as JSON escapes it

Facts = dict[str, object]


class FromElsewhere(NamedTuple):
    """A configuration that the caller has read, as the server itself may not: root's, for a service without rights."""

    text: str
    path: Path


Reload = Callable[[FromElsewhere | None], Awaitable[Reloaded]]
"""Reads the server's own configuration file again, or takes this text."""


class Locked(AccountUnusable):
    """Nobody has logged in to the account since the server started: it does not have the account's key."""


class Answer(NamedTuple):
    status: HTTPStatus
    facts: Facts


class Answers(Protocol):
    """Whoever has a server's answers."""

    def limit(self, path: str) -> int:
        """How many octets a body may have."""

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        """What a request gets."""


class Routes:
    """A server's answers."""

    def __init__(self, service: Service, reload: Reload) -> None:
        self._service = service
        self._reload_with = reload
        self._routes: dict[tuple[str, str], Callable[[Mapping[str, str], bytes], Awaitable[Facts]]] = {
            ("GET", "/status"): self._status,
            ("POST", "/reload"): self._reload,
            ("GET", "/accounts/passwords"): self._passwords,
            ("POST", "/accounts/passwords"): self._add,
            ("PUT", "/accounts/passwords"): self._change,
            ("DELETE", "/accounts/passwords"): self._remove,
            ("POST", "/accounts/forget"): self._forget,
        }

    @staticmethod
    def limit(path: str) -> int:
        """How many octets a body may have."""
        return MAX_RELOAD if path == "/reload" else MAX_BODY

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        route = self._routes.get((method, path))
        if route is None:
            known = sorted(known for known, place in self._routes if place == path)
            if known:
                return refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {', '.join(known)}")
            return refusal(HTTPStatus.NOT_FOUND, "there is nothing of that name here")
        return await answered(route(query, body))

    async def _status(self, _query: Mapping[str, str], _body: bytes) -> Facts:
        return await self._service.status()

    async def _reload(self, _query: Mapping[str, str], body: bytes) -> Facts:
        return await reloaded(self._reload_with, body)

    # ---- passwords

    async def _passwords(self, query: Mapping[str, str], _body: bytes) -> Facts:
        account = self._service.authority.resolve(query.get("account", ""))
        slots = await self._service.authority.broker.passwords.list(account.key)
        return {"account": account.name, "passwords": [slot_facts(slot) for slot in slots]}

    async def _add(self, _query: Mapping[str, str], body: bytes) -> Facts:
        wanted = parsed(Add, body)
        authority = self._service.authority
        account = authority.resolve(wanted.account)
        if not authority.broker.is_unlocked(account.key):
            raise Locked(
                f"{account.name} is locked: nobody has logged in to it since the server started; log in once with a "
                "mail program, or give one of its passwords"
            )
        limits = Limits(wanted.protocols, wanted.networks, wanted.expires_s)
        new = NewSlot(wanted.name, wanted.password, limits)
        slot, password = await authority.broker.passwords.add(account.key, None, new)
        return {"account": account.name, **slot_facts(slot), "password": password.reveal()}

    async def _change(self, _query: Mapping[str, str], body: bytes) -> Facts:
        wanted = parsed(Change, body)
        authority = self._service.authority
        account = authority.resolve(wanted.account)
        slot, password = await authority.broker.passwords.change(account.key, wanted.old, wanted.new)
        return {"account": account.name, **slot_facts(slot), "password": password.reveal()}

    async def _remove(self, _query: Mapping[str, str], body: bytes) -> Facts:
        wanted = parsed(Remove, body)
        authority = self._service.authority
        account = authority.resolve(wanted.account)
        removed = await authority.broker.passwords.remove(account.key, wanted.name, force=wanted.force)
        return {"account": account.name, "name": removed.slot.name, "was_last": removed.record}

    async def _forget(self, _query: Mapping[str, str], body: bytes) -> Facts:
        wanted = parsed(OfAccount, body)
        await self._service.authority.forget(wanted.account)
        return {"account": wanted.account}


async def reloaded(reload: Reload, body: bytes) -> Facts:
    """What has come of another configuration."""
    given = parsed(Configuration, body)
    elsewhere = None if given.text is None else FromElsewhere(given.text, Path(given.path))
    return asdict(await reload(elsewhere))


async def answered(facts: Awaitable[Facts]) -> Answer:
    """The facts, or why there are none."""
    try:
        return Answer(HTTPStatus.OK, await facts)
    except ConfigError as error:
        return Answer(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
    except ProtocolError as error:
        return refusal(HTTPStatus.BAD_REQUEST, str(error))
    except Locked as error:
        return refusal(HTTPStatus.LOCKED, str(error))
    except UnknownAccount as error:
        return refusal(HTTPStatus.NOT_FOUND, str(error))
    except EmailProxyError as error:
        return refusal(HTTPStatus.CONFLICT, str(error))


def refusal(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, {"error": text})
