"""The device authorization grant (RFC 8628): the person signs in elsewhere, with a short code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from emailproxy.config.hosts import canonical_host, is_loopback
from emailproxy.config.model import HOURS, KIB, MINUTES, Account
from emailproxy.errors import AccountUnusable, LoginRefused
from emailproxy.oauth.flow import Approval, DeviceAuthorization, Grant, TokenSet
from emailproxy.oauth.replies import REFRESH_TOKEN, Reply, nonsense, object_in, refusal, seconds_of
from emailproxy.oauth.tokenrequests import Requests, refreshed
from emailproxy.secret import Secret

DEFAULT_INTERVAL_S = 5  # RFC 8628 section 3.2
MAX_INTERVAL_S = 5 * MINUTES  # a longer one would outlast most codes
MAX_LIFE_S = 24 * HOURS  # as long as any sign-in waits

# RFC 8628 section 6.1 leaves the characters to the provider; what a person types is short and can be seen
USER_CODE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,38}[\x21-\x7e])?")
# RFC 3986 section 2: printable ASCII without what delimits a URI in text
URI = re.compile(rf'[^\x00-\x20\x7f-\U0010ffff"<>\\^`{{|}}]{{1,{2 * KIB}}}')


class DeviceCode:
    """RFC 8628, refreshed by RFC 6749 section 6."""

    approval = Approval.PERSON

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def begin(self, account: Account) -> DeviceAuthorization:
        """Asks for a code for the person (RFC 8628 section 3.1)."""
        from oauthlib.common import add_params_to_qs

        if account.permission_url is None:
            raise AccountUnusable(
                f"account {account.name} has no permission_url, which names the device authorization endpoint; "
                f"add it to [{account.section}]"
            )

        def prepare(proof: Mapping[str, str]) -> str:
            asked = {"client_id": account.client_id, "scope": account.scope, **proof}
            body: str = add_params_to_qs("", [(name, value) for name, value in asked.items() if value])
            return body

        return await self._requests.ask(account, account.permission_url, prepare, authorization_of)

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        """Polls once (section 3.4): who calls keeps the interval."""
        from oauthlib.oauth2 import DeviceClient

        if not isinstance(grant, DeviceAuthorization):
            raise TypeError("the device grant needs a device authorization")
        device_code: Secret = grant.device_code

        def prepare(proof: Mapping[str, str]) -> str:
            body: str = DeviceClient(account.client_id).prepare_request_body(
                device_code=device_code.reveal(), include_client_id=True, **proof
            )
            return body

        return await self._requests.tokens(account, prepare, device_code, once=True)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await refreshed(self._requests, account, tokens)


def authorization_of(reply: Reply, *, now_s: int, sent: Collection[Secret] = ()) -> DeviceAuthorization:
    """A device authorization response (section 3.2), validated; the arguments are those of `replies.tokens_of`.

    Raises:
        ProviderRefused: a definite refusal, with its OAuth 2.0 error code.
        ProviderUnavailable: the provider asks us to come back, or its answer makes no sense.
    """
    try:
        answer = json.loads(object_in(reply, now_s))
    except (ValueError, RecursionError):
        raise nonsense(reply, "an answer that cannot be read") from None
    if "error" in answer:
        raise refusal(reply, answer["error"], answer.get("error_description"), sent)
    if reply.status != 200:
        raise nonsense(reply, "neither a device code nor an OAuth 2.0 error")
    return checked(answer, now_s, partial(nonsense, reply))


def checked(answer: Mapping[str, Any], now_s: int, complain: Callable[[str], LoginRefused]) -> DeviceAuthorization:
    device_code, user_code = answer.get("device_code"), answer.get("user_code")
    if not (isinstance(device_code, str) and REFRESH_TOKEN.fullmatch(device_code)):
        raise complain("a device_code that is not ASCII")
    if not (isinstance(user_code, str) and USER_CODE.fullmatch(user_code)):
        raise complain("a user_code that nobody could type")
    uri = answer.get("verification_uri", answer.get("verification_url"))  # Google's, and old drafts'
    complete = answer.get("verification_uri_complete", answer.get("verification_url_complete"))
    if not is_page(uri) or not (complete is None or is_page(complete)):
        raise complain("a verification_uri that is no https URL")
    life_s = seconds_of(answer.get("expires_in"), complain)
    if life_s is None:
        raise complain("a device code without its expires_in")
    interval_s = seconds_of(answer.get("interval") or None, complain, "an interval")
    return DeviceAuthorization(
        Secret(device_code),
        user_code,
        uri,
        complete,
        now_s + min(life_s, MAX_LIFE_S),
        min(interval_s or DEFAULT_INTERVAL_S, MAX_INTERVAL_S),
    )


def is_page(uri: object) -> bool:
    """Whether a person may be sent there: https, or a loopback."""
    if not (isinstance(uri, str) and URI.fullmatch(uri)):
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if canonical_host(host) is None or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
