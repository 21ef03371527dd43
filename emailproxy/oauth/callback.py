"""What a request to the redirect listener means, and the page it gets. No HTTP library here.

The `state` decides first (256 random bits, looked up by its hash), then the path, then the host: a stranger
learns nothing and consumes nothing (RFC 9700 sections 4.1 and 4.7).
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from emailproxy.config.hosts import is_loopback
from emailproxy.config.model import Account
from emailproxy.errors import LoginRefused, ProviderUnavailable, StateError
from emailproxy.oauth import pages
from emailproxy.oauth.answer import Declined, NotAnAnswer, answer_of, values_of
from emailproxy.oauth.consent import Consents, Found
from emailproxy.oauth.pages import Page
from emailproxy.secret import Secret

MAX_PLACES = 1000  # accounts whose hosts and paths are remembered

# What `secrets.token_urlsafe` makes of 32 octets
STATE = re.compile(r"[A-Za-z0-9_-]{43}")

log = logging.getLogger("emailproxy.oauth")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, as far as it matters."""

    method: str
    hosts: tuple[str | None, ...]
    """Every host that the request names: `Host`, and the target's where that is in absolute form."""
    origins: tuple[str, ...]
    """Who sent it, where that is told: browsers do with what is no navigation."""
    embedded: bool
    """A browser says that it is a part of some page, and not what its person went to."""
    path: str
    """Decoded."""
    query: Sequence[tuple[str, str]] = field(default=(), repr=False)
    """With state and code."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an account's redirects arrive."""

    hosts: frozenset[str]
    paths: frozenset[str]
    """Without trailing slashes; a reverse proxy may keep or strip the prefix."""


def place_of(account: Account) -> Place:
    uri = urlsplit(account.redirect_uri)
    address = account.redirect_listen_address or ""
    listening = urlsplit(address if "://" in address else f"//{address}")
    own = urlsplit(f"//{account.listen_address}")
    hosts = {host.casefold() for host in (uri.hostname, listening.hostname, own.hostname) if host}
    return Place(frozenset(hosts), frozenset({"", uri.path.rstrip("/"), listening.path.rstrip("/")}))


class Callback:
    """Answers for all accounts."""

    def __init__(self, consents: Consents) -> None:
        self._consents = consents
        self._places: OrderedDict[str, Place] = OrderedDict()

    def expect(self, account: Account) -> None:
        """Redirects of this account may arrive: its hosts and paths get helpful pages."""
        self._places[account.key] = place_of(account)
        if len(self._places) > MAX_PLACES:
            self._places.popitem(last=False)

    async def answer(self, ask: Ask) -> Page:
        try:
            return await self._answer(ask)
        except StateError as error:  # its text names files of ours, and a stranger may have asked
            log.error("the redirect listener cannot use the state folder: %s", error)
            return pages.broken()
        except LoginRefused as error:
            unavailable = isinstance(error, ProviderUnavailable)
            return pages.failed(HTTPStatus.BAD_GATEWAY if unavailable else HTTPStatus.BAD_REQUEST, str(error))

    async def _answer(self, ask: Ask) -> Page:
        if ask.method not in ("GET", "HEAD"):
            return pages.not_allowed()
        prefix, short = shortened(ask.path)
        states = [value for name, value in ask.query if name == "state"]
        state = short or (states[0] if len(states) == 1 else None)
        found = None
        if state is not None and STATE.fullmatch(state):
            found = await self._consents.find(Secret(state))
        places = [place_of(found.account)] if found else list(self._places.values())
        if not all(host is not None and is_ours(host, places) for host in ask.hosts):
            return pages.misdirected()
        if ask.embedded or not all(is_from(origin, ask.hosts) for origin in ask.origins):
            return pages.forbidden()
        if prefix != "" and not any(prefix in place.paths for place in places):
            return pages.not_found()
        if short:
            return pages.redirect(found.url) if found else pages.stale()
        return await self._returned(ask, state, found)

    async def _returned(self, ask: Ask, state: str | None, found: Found | None) -> Page:
        """The provider sent the browser back (RFC 6749 section 4.1.2)."""
        try:
            values = values_of(ask.query)
            if not state:
                return pages.bad_request("It has no state.")
            if found is None:
                return pages.stale()
            answer = answer_of(values, found.url)
        except NotAnAnswer as error:
            return pages.bad_request(str(error))
        if isinstance(answer, Declined):
            log.warning("the provider did not sign %s in: %s", found.account.name, answer)
            return pages.declined(answer)
        if ask.method == "HEAD":  # a preview of the link, not the person
            return pages.page(HTTPStatus.OK, "Sign in")
        name = await self._consents.finish(found.state, answer)
        return pages.stale() if name is None else pages.succeeded(name)


def shortened(path: str) -> tuple[str, str | None]:
    """The path without trailing slashes, and without the ``c/STATE`` of a short link, and that STATE."""
    head, _, state = path.rpartition("/")
    if head.rstrip("/").endswith("/c") and STATE.fullmatch(state):
        return head.rstrip("/").removesuffix("/c").rstrip("/"), state
    return path.rstrip("/"), None


def is_from(origin: str, hosts: Sequence[str | None]) -> bool:
    """Whether an Origin (RFC 6454 section 7) is the very host and port that the request is for; ``null`` never is."""
    try:
        named = urlsplit(origin).netloc.casefold()
    except ValueError:
        return False
    return named in {host.casefold() for host in hosts if host}


def is_ours(host: str, places: list[Place]) -> bool:
    """Whether a host, with any port, is a loopback's or one of these places'."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if not name:
        return False
    return is_loopback(name) or any(name.casefold() in place.hosts for place in places)
