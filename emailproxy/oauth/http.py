"""POST to a token endpoint: verified TLS, bounded time and size, retries where they do no harm."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from emailproxy.config.model import SECONDS, Account
from emailproxy.config.outbound import Outbound
from emailproxy.config.proxies import ProxyFailed, UnusableProxy
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.replies import MAX_BODY, Reply, tokens_of
from emailproxy.oauth.sessions import HttpSessions, UnusableCa
from emailproxy.oauth.unreachable import behind_proxy, late, no_way, unreachable, untrusted
from emailproxy.secret import Secret

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 10 * SECONDS

log = logging.getLogger("emailproxy.oauth")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Form:
    """A request's body, and the secrets in it, which no error text may repeat."""

    body: str = field(repr=False)
    sent: Collection[Secret]


class Read(Protocol[T_co]):
    """Makes of a reply what it means, or the error that it is; `replies.tokens_of` is one."""

    def __call__(self, reply: Reply, *, now_s: int, sent: Collection[Secret]) -> T_co: ...


class TokenEndpoint:
    """All token requests of the process, over one shared HTTP session."""

    def __init__(
        self, *, ca_file: Path | None = None, outbound: Outbound | None = None, clock: Clock | None = None
    ) -> None:
        """`ca_file` stands in place of the system's trust store; without `outbound` the environment names proxies."""
        self._sessions = HttpSessions(ca_file=ca_file, outbound=outbound)
        self.clock = clock or Clock()
        self.attempts = Attempts(self.clock)
        """Shared with whoever else asks providers, so that all heed the same `Retry-After`."""

    async def request(self, account: Account, form: str, *, sent: Collection[Secret], once: bool = False) -> TokenSet:
        """Sends `form` to the account's token endpoint, and again while that may help.

        Args:
            sent: the secrets in `form`, which no error text may repeat.
            once: never send it twice (RFC 6749 section 4.1.2: a code used twice revokes what it granted).

        Raises:
            ProviderUnavailable, ProviderRefused: as `Flow.acquire` says.
        """

        async def same() -> Form:
            return Form(form, sent)

        return await self.ask(account.token_url, account.client_id, same, tokens_of, once=once)

    async def ask(
        self, url: str, client_id: str, form: Callable[[], Awaitable[Form]], read: Read[T], *, once: bool = False
    ) -> T:
        """What `read` makes of an endpoint's reply to a form, which is made anew for every attempt.

        Raises:
            ProviderUnavailable, ProviderRefused: as `request`; or what `form` and `read` raise.
        """
        parts = urlsplit(url)

        async def attempt(left_s: float) -> T:
            begun_s = self.clock.monotonic_s()
            filled = await form()
            now_s = self.clock.now_s()
            reply = await self._post(url, filled.body, left_s - (self.clock.monotonic_s() - begun_s))
            self.attempts.skew.compare(reply)
            return read(reply, now_s=now_s, sent=filled.sent)

        return await self.attempts.run(f"{parts.netloc}{parts.path} {client_id}", attempt, once=once)

    async def _post(self, url: str, form: str, left_s: float) -> Reply:
        import aiohttp

        host = urlsplit(url).netloc
        try:
            if left_s <= 0:  # aiohttp would wait for ever
                raise TimeoutError
            async with self._sessions.post(
                url,
                data=form.encode("ascii"),
                headers={
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
                timeout=aiohttp.ClientTimeout(total=left_s, connect=min(CONNECT_S, left_s)),
            ) as response:
                body = await bounded(response.content)
                headers = response.headers
                return Reply(host, response.status, headers.get("Retry-After"), body, headers.get("Date"))
        except UnusableCa as error:
            raise Refrain(f"{error}; give a file of PEM certificates") from None
        except UnusableProxy as error:
            raise no_way(host, error) from None
        except ProxyFailed as error:
            raise behind_proxy(host, error) from None
        except TimeoutError:
            raise late(host) from None
        except ssl.SSLError as error:
            raise untrusted(host, getattr(error, "verify_message", None)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(host, error) from None

    async def close(self) -> None:
        await self._sessions.close()


async def bounded(content: aiohttp.StreamReader) -> bytes | None:
    """The whole body, or None where it is longer than a reply can be."""
    body = bytearray()
    while chunk := await content.read(MAX_BODY + 1 - len(body)):
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)
