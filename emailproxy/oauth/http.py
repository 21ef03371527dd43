"""POST to a token endpoint: verified TLS, bounded time and size, retries where they do no harm."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from emailproxy.config.model import KIB, MINUTES, SECONDS, Account
from emailproxy.errors import ProviderRefused, ProviderUnavailable
from emailproxy.oauth.breaker import Breaker, Refrain
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.replies import Reply, Unreadable, date_s, tokens_of
from emailproxy.secret import Secret

if TYPE_CHECKING:
    import aiohttp

TOTAL_S = 30 * SECONDS  # for all attempts together: what a mail client waits before it gives up
CONNECT_S = 10 * SECONDS
MAX_BODY = 64 * KIB  # octets: a reply holds three tokens at most
MAX_ATTEMPTS = 4
FIRST_DELAY_S = 0.5 * SECONDS  # doubled each time, and spread by half, so that many proxies do not ask in step
MAX_POLITE_WAIT_S = 5 * SECONDS  # a `Retry-After` up to here is waited out inside the login
MAX_SKEW_S = 5 * MINUTES  # Kerberos' limit; more than that breaks certificates and lifetimes, and is worth a warning

log = logging.getLogger("emailproxy.oauth")


class TokenEndpoint:
    """All token requests of the process, over one shared HTTP session."""

    def __init__(self, *, ca_file: Path | None = None, clock: Clock | None = None) -> None:
        """`ca_file` stands in place of the system's trust store."""
        self._ca_file = ca_file
        self._clock = clock or Clock()
        self._breaker = Breaker(self._clock.monotonic_s)
        self._session: aiohttp.ClientSession | None = None
        self._skewed: set[str] = set()
        """Hosts of providers whose clock is not ours, as the log has it."""

    async def request(self, account: Account, form: str, *, sent: Collection[Secret], once: bool = False) -> TokenSet:
        """Sends `form` to the account's token endpoint, and again while that may help.

        Args:
            sent: the secrets in `form`, which no error text may repeat.
            once: never send it twice (RFC 6749 section 4.1.2: a code used twice revokes what it granted).

        Raises:
            ProviderUnavailable, ProviderRefused: as `Flow.acquire` says.
        """
        url = urlsplit(account.token_url)
        client = f"{url.netloc}{url.path} {account.client_id}"
        deadline_s = self._clock.monotonic_s() + TOTAL_S
        for attempt in range(1, (1 if once else MAX_ATTEMPTS) + 1):
            try:
                async with self._breaker.permit(client, deadline_s - self._clock.monotonic_s()):
                    return await self._attempt(account, client, form, sent, deadline_s)
            except (Refrain, Unreadable):
                raise
            except ProviderUnavailable as error:
                delay_s = self._delay_s(attempt, error.retry_after_s)
                out_of_time = self._clock.monotonic_s() + delay_s >= deadline_s
                if once or attempt == MAX_ATTEMPTS or delay_s > MAX_POLITE_WAIT_S or out_of_time:
                    raise
            await self._clock.sleep(delay_s)
        raise AssertionError("unreachable: the last attempt raises")

    async def _attempt(
        self, account: Account, client: str, form: str, sent: Collection[Secret], deadline_s: float
    ) -> TokenSet:
        now_s = self._clock.now_s()
        reply = await self._post(account.token_url, form, deadline_s - self._clock.monotonic_s())
        self._compare_clocks(reply)
        try:
            tokens = tokens_of(reply, now_s=now_s, sent=sent)
        except ProviderUnavailable as error:
            if error.retry_after_s is not None:
                self._breaker.opened(client, error.retry_after_s)
            raise
        except ProviderRefused:
            self._breaker.closed(client)
            raise
        self._breaker.closed(client)
        return tokens

    def _compare_clocks(self, reply: Reply) -> None:
        """Says so in the log, once, where this machine's clock is wrong: what follows is hard to guess from."""
        try:
            ahead_s = self._clock.wall_s() - date_s(reply.date or "")
        except (ValueError, TypeError, OverflowError, IndexError):
            return
        if abs(ahead_s) <= MAX_SKEW_S:
            self._skewed.discard(reply.host)
        elif reply.host not in self._skewed:
            self._skewed.add(reply.host)
            way = "ahead of" if ahead_s > 0 else "behind"
            mend = "set it (NTP), or tokens and certificates seem to end at the wrong time"
            log.warning("this machine's clock is %.0f s %s that of %s; %s", abs(ahead_s), way, reply.host, mend)

    @staticmethod
    def _delay_s(attempt: int, asked_s: float | None) -> float:
        if asked_s is not None:
            return asked_s
        doubled_s: float = FIRST_DELAY_S * 2 ** (attempt - 1)
        return doubled_s * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, hides nothing

    async def _post(self, url: str, form: str, left_s: float) -> Reply:
        import aiohttp

        host = urlsplit(url).netloc
        session = self._opened()
        try:
            if left_s <= 0:  # aiohttp would wait for ever
                raise TimeoutError
            async with session.post(
                url,
                data=form.encode("ascii"),
                headers={
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
                allow_redirects=False,  # a secret follows no redirect
                timeout=aiohttp.ClientTimeout(total=left_s, connect=min(CONNECT_S, left_s)),
            ) as response:
                body = await bounded(response.content)
                headers = response.headers
                return Reply(host, response.status, headers.get("Retry-After"), body, headers.get("Date"))
        except TimeoutError:
            raise ProviderUnavailable(f"the provider at {host} did not answer in time; try again later") from None
        except aiohttp.ClientSSLError as error:
            reason = getattr(getattr(error, "certificate_error", None), "verify_message", None) or "TLS failed"
            raise ProviderUnavailable(
                f"the provider at {host} cannot be trusted: {reason}; check token_url, the clock and ca_file"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderUnavailable(
                f"the provider at {host} cannot be reached ({type(error).__name__}); check the network"
            ) from None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            try:
                context = ssl.create_default_context(cafile=None if self._ca_file is None else str(self._ca_file))
            except OSError as error:  # ssl.SSLError, where it holds no certificate, is one
                raise Refrain(
                    f"ca_file {self._ca_file} cannot be used ({error.strerror}); give a file of PEM certificates"
                ) from None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the transports' own close callbacks run


async def bounded(content: aiohttp.StreamReader) -> bytes | None:
    """The whole body, or None where it is longer than a reply can be."""
    body = bytearray()
    while chunk := await content.read(MAX_BODY + 1 - len(body)):
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)
