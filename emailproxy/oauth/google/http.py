"""What google-auth sends, and whether it may read the answer.

It reads replies leniently, tries again by itself with sleeps between, and puts whole bodies into its errors. So every
reply is judged here first, by our own rules: google-auth sees only what it can use.

It is imported with google-auth only, which takes its time.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.auth.transport import Request, Response

from emailproxy.config.hosts import is_loopback
from emailproxy.errors import AccountUnusable, ProviderRefused, one_line
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.replies import Reply, nonsense, object_in, refused, tokens_of, without
from emailproxy.oauth.skew import Skew
from emailproxy.secret import Secret

SECRET_PARAMETERS = ("assertion", "subject_token", "refresh_token", "client_secret")
"""Of RFC 6749, 7521 and 8693: what a provider might repeat in an error text."""
IAM_ANSWERS = ("signedJwt", "accessToken")
"""Of iamcredentials' methods signJwt and generateAccessToken."""
JSON = "application/json"
NOT_TAKEN = (
    "Google does not take this machine's own token; check audience, issuer and attribute conditions of the workload "
    "identity pool's provider, and that the token is fresh"
)
MAX_URL = 200  # characters of one that an error text shows


class Exchange(Request):
    """The transport of one grant."""

    def __init__(self, request: Request, clock: Clock, skew: Skew, *, owner: str) -> None:
        """`request` does the sending; where it fails, it says why. `owner` is whose credentials they are."""
        self._request = request
        self._clock = clock
        self._skew = skew
        self._owner = owner
        self.granted: TokenSet | None = None
        """What the last token endpoint gave."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Response:
        """Sends one request.

        POST goes to token endpoints and IAM; GET and PUT to a platform's own metadata server or token file, whose
        answers google-auth knows best.

        Raises:
            ProviderUnavailable, ProviderRefused: as `Flow.acquire` says.
            AccountUnusable: a credential would leave in plain text.
        """
        address = urlsplit(url)
        if method == "POST" and address.scheme != "https" and not is_loopback(address.hostname or ""):
            raise AccountUnusable(
                f"{self._owner} must not go to {one_line(url, MAX_URL)}, which is not https; mend the address there"
            )
        now_s = self._clock.now_s()
        response: Response = self._request(url, method, body=body, headers=headers, timeout=timeout, **options)
        if method == "POST":
            retry_after, date = response.headers.get("Retry-After"), response.headers.get("Date")
            reply = Reply(address.netloc, response.status, retry_after, response.data, date)
            self._skew.compare(reply)
            self._judge(reply, body or b"", headers or {}, now_s)
        return response

    def _judge(self, reply: Reply, body: bytes, headers: Mapping[str, str], now_s: int) -> None:
        form = {} if headers.get("Content-Type") == JSON else parse_qs(body.decode("utf-8", "replace"))
        sent = [Secret(value) for name in SECRET_PARAMETERS for value in form.get(name, [])]
        sent += [Secret(value.rpartition(" ")[2]) for name, value in headers.items() if name.lower() == "authorization"]
        answer = checked(reply, now_s, sent, federated="subject_token" in form)
        if form:  # token endpoints take forms, IAM's methods JSON
            self.granted = tokens_of(reply, now_s=now_s, sent=sent)
        elif not any(isinstance(answer.get(name), str) for name in IAM_ANSWERS):
            raise nonsense(reply, "neither a signature nor a token")


def checked(reply: Reply, now_s: int, sent: Collection[Secret], *, federated: bool) -> Mapping[str, Any]:
    """The answer, if it is one of Google's APIs and no refusal.

    Args:
        sent: the secrets of the request, which no error text may repeat.
        federated: it was the exchange of a workload's own token (RFC 8693).

    Raises:
        ProviderUnavailable, ProviderRefused: it is not.
    """
    try:
        answer: dict[str, Any] = json.loads(object_in(reply, now_s))
    except (ValueError, RecursionError):
        raise nonsense(reply, "an answer that cannot be read") from None
    error = answer.get("error")
    if isinstance(error, dict):  # {"error": {"code": 403, "message": "...", "status": "PERMISSION_DENIED"}}
        raise refused(reply.host, text_of(error, "status"), text_of(error, "message"), sent)
    if reply.status != 200 and error is None:
        raise nonsense(reply, "neither tokens nor an error")
    if federated and error == "invalid_grant":  # which means a person's sign-in anywhere else
        said = one_line(without(sent, text_of(answer, "error_description")))
        raise ProviderRefused(f"{NOT_TAKEN} (the provider at {reply.host} says: {said})", code=error)
    return answer


def text_of(answer: Mapping[str, Any], member: str) -> str:
    value = answer.get(member)
    return value if isinstance(value, str) else ""
