"""What msal sends, and whether it may read the answer.

It takes replies at their word, has exceptions of many kinds for odd ones, and remembers the rest: tokens, to serve them
again, errors for a minute, and HTML for a day where it asked for endpoints. So every reply is read here, by our own
rules, and msal gets to see none but a list of endpoints.

It is imported with msal only, which takes its time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import msal
import requests

from emailproxy.oauth.bounded import BoundedSession
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.http import Read
from emailproxy.oauth.microsoft.discoveries import Discoveries
from emailproxy.oauth.replies import Reply, nonsense, object_in, refusal
from emailproxy.oauth.skew import Skew
from emailproxy.secret import Secret

SECRET_PARAMETERS = ("client_secret", "client_assertion", "code", "code_verifier", "refresh_token", "device_code")
"""Of RFC 6749, 7521, 7636 and 8628: what a provider might repeat in an error text."""
ENDPOINTS = ("authorization_endpoint", "token_endpoint")
"""What msal needs of a discovery document."""

T = TypeVar("T")


class Confidential(msal.ConfidentialClientApplication):  # type: ignore[misc]  # msal has no types
    """Microsoft has the device grant for every client, msal for public ones."""

    DEVICE_FLOW_CORRELATION_ID = msal.PublicClientApplication.DEVICE_FLOW_CORRELATION_ID
    initiate_device_flow = msal.PublicClientApplication.initiate_device_flow
    acquire_token_by_device_flow = msal.PublicClientApplication.acquire_token_by_device_flow


@dataclass(frozen=True, slots=True)
class Page:
    """A reply, as msal reads it."""

    status_code: int
    text: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class Exchange(Generic[T]):
    """The transport of one application: GETs for its endpoints, and one POST."""

    def __init__(
        self, session: BoundedSession, discoveries: Discoveries, clock: Clock, skew: Skew, read: Read[T]
    ) -> None:
        """`read` makes of the POST's reply what it means."""
        self._session = session
        self._discoveries = discoveries
        self._clock = clock
        self._skew = skew
        self._read = read
        self.results: list[T] = []

    def get(self, url: str, **_: Any) -> Page:
        """A tenant's endpoints.

        Raises:
            ProviderRefused: there is no such tenant.
            requests.RequestException, ProviderUnavailable: there is no sensible answer.
        """
        known = self._discoveries.get(url)
        if known is None:
            known = discovered(reply_of(self._session.get(url)), self._clock.now_s())
            self._discoveries.put(url, known)
        return Page(200, known)

    def post(self, url: str, *, data: Mapping[str, Any], headers: Mapping[str, str] | None = None, **_: Any) -> Page:
        """The one request. Its reply is in `results`.

        Raises:
            requests.RequestException: there is none.
            ProviderUnavailable, ProviderRefused: what `read` makes of an error.
        """
        now_s = self._clock.now_s()
        sent = [Secret(text_of(data[name])) for name in SECRET_PARAMETERS if data.get(name)]
        reply = reply_of(self._session.post(url, data=data, headers=headers))
        self._skew.compare(reply)
        self.results.append(self._read(reply, now_s=now_s, sent=sent))
        return Page(200, "{}")

    def close(self) -> None:
        """The session is not msal's to close."""


def application(client_id: str, authority: str, credential: object, exchange: Exchange[T]) -> Any:
    """An msal application. It asks no other host than its authority's: neither whether that is Microsoft's (instance
    discovery) nor where it runs itself (regions)."""
    kind = msal.PublicClientApplication if credential is None else Confidential
    return kind(
        client_id,
        client_credential=credential,
        authority=authority,
        http_client=exchange,
        instance_discovery=False,
        azure_region=False,
    )


def reply_of(response: requests.Response) -> Reply:
    headers = response.headers
    host = urlsplit(response.url).netloc
    return Reply(host, response.status_code, headers.get("Retry-After"), response.content, headers.get("Date"))


def discovered(reply: Reply, now_s: int) -> str:
    """A discovery document that msal can use.

    Raises:
        ProviderRefused: an error, as the one for a tenant that does not exist.
        ProviderUnavailable: anything else.
    """
    text = object_in(reply, now_s).decode("utf-8", "replace")
    complain = partial(nonsense, reply)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise complain("a list of endpoints that cannot be read") from None
    if "error" in document:
        raise refusal(reply, document["error"], document.get("error_description"), ())
    if reply.status != 200 or not all(is_https(document.get(name)) for name in ENDPOINTS):
        raise complain("no list of its endpoints")
    return text


def is_https(url: object) -> bool:
    return isinstance(url, str) and url.startswith("https://")


def text_of(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
