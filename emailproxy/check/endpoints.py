"""The provider's endpoints: can they be reached, and does the token endpoint speak OAuth 2.0?"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.check.network import Place, reach
from emailproxy.config.model import KIB, SECONDS, Account, FlowName, ProviderName, Settings
from emailproxy.config.outbound import Outbound
from emailproxy.config.proxies import ProxyFailed, UnusableProxy
from emailproxy.errors import one_line, system_words
from emailproxy.net.dial import Dialer
from emailproxy.oauth.advice import NOT_THE_PROVIDER, PROVIDER_DOWN, advise
from emailproxy.oauth.sessions import HttpSessions, UnusableCa

if TYPE_CHECKING:
    import aiohttp

TOTAL_S = 15 * SECONDS
MAX_BODY = 64 * KIB  # octets that are read of an answer
GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address: where key files point
PROBE = "grant_type=refresh_token"
"""A request that lacks its token: RFC 6749 section 5.2 answers it with an error, and nothing is granted or used up."""
NOT_THE_ENDPOINT = "check token_url: it is not the provider's token endpoint, or an HTTP proxy is in between"
# tenant or cloud do not exist there; what else a probe hears is what it lacks
WRONG_PLACE = re.compile(r"AADSTS(?:90002|900023|900382|900432|900439)\b")


def urls_of(accounts: Iterable[Account]) -> tuple[dict[str, str], dict[str, str]]:
    """Token endpoints, and the other endpoints at hosts of their own; each with the account that it is of."""
    tokens: dict[str, str] = {}
    others: dict[str, str] = {}
    for account in accounts:
        url = account.token_url
        if not url and account.flow is FlowName.SERVICE_ACCOUNT and account.provider is ProviderName.GOOGLE:
            url = GOOGLE_TOKEN_URL
        if url:
            tokens.setdefault(url, account.name)
        if account.permission_url:
            others.setdefault(account.permission_url, account.name)
    reached = {urlsplit(url).netloc for url in tokens}
    return tokens, {url: name for url, name in others.items() if urlsplit(url).netloc not in reached}


async def endpoints(dialer: Dialer, accounts: Iterable[Account], settings: Settings) -> AsyncIterator[Finding]:
    """Each endpoint of these accounts, once."""
    tokens, others = urls_of(accounts)
    sessions = HttpSessions(ca_file=settings.ca_file, outbound=Outbound.of(settings, os.environ))
    try:
        for key, urls in (("token_url", tokens), ("permission_url", others)):
            for url, name in urls.items():
                broken = False
                async for finding in way_to(dialer, sessions, url, f"{key} of {name}", settings):
                    yield finding
                    broken = finding.breaks
                if not broken and key == "token_url":
                    yield await ask(sessions, url, f"{key} of {name}")
    finally:
        await sessions.close()


async def way_to(
    dialer: Dialer, sessions: HttpSessions, url: str, about: str, settings: Settings
) -> AsyncIterator[Finding]:
    """DNS, TCP and TLS; through a proxy they are the proxy's business."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    try:
        proxy = sessions.proxy_for(url)
    except UnusableProxy as error:
        yield Finding(Link.TCP, about, Grade.FAILED, str(error))
        return
    if proxy is not None:
        text = f"asked through the proxy {proxy} ({proxy.source})"
        yield Finding(Link.TCP, about, Grade.SKIPPED, text, facts={"proxy": str(proxy)})
        return
    key = about.partition(" ")[0]
    port = parts.port or (443 if secure else 80)
    place = Place(about, host, port, tls=secure, ca_file=settings.ca_file, mend=f"check {key}")
    async for finding in reach(dialer, place):
        yield finding


async def ask(sessions: HttpSessions, url: str, about: str) -> Finding:
    """One request to a token endpoint that grants nothing."""
    import aiohttp

    host, mend = urlsplit(url).netloc, "check token_url, and any HTTP proxy in between"
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    timeout = aiohttp.ClientTimeout(total=TOTAL_S)
    try:
        async with sessions.post(url, data=PROBE, headers=headers, timeout=timeout) as reply:
            return judged(about, host, reply.status, await beginning(reply.content), reply.headers)
    except TimeoutError:
        text = f"{host} did not answer within {TOTAL_S} s"
    except ProxyFailed as error:  # it says what to do
        text, mend = f"{host} {error}", ""
    except UnusableCa as error:
        text, mend = str(error), "give a file of PEM certificates"
    except ssl.SSLError as error:
        text, mend = f"{host} cannot be trusted ({getattr(error, 'verify_message', 'TLS failed')})", "check ca_file"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        text = f"{host} gave no answer ({system_words(error)})"
    return Finding(Link.ENDPOINT, about, Grade.FAILED, text, mend)


async def beginning(content: aiohttp.StreamReader) -> bytes:
    """As much of a body as is looked at, in however many pieces it comes."""
    body = bytearray()
    while len(body) < MAX_BODY and (piece := await content.read(MAX_BODY - len(body))):
        body += piece
    return bytes(body)


def judged(about: str, host: str, status: int, body: bytes, headers: Mapping[str, str]) -> Finding:
    """What an endpoint's answer to the probe says of it."""
    facts: dict[str, Any] = {"status": status}

    def failed(text: str, action: str) -> Finding:
        return Finding(Link.ENDPOINT, about, Grade.FAILED, text, action, facts)

    if 300 <= status < 400:
        place = one_line(headers.get("Location", "nowhere"))
        return failed(
            f"{host} sends elsewhere (HTTP {status}): {place}", "a secret follows no redirect: check token_url"
        )
    fields = read(body)
    if status == 429 or status >= 500:
        return failed(f"{PROVIDER_DOWN.meaning} (HTTP {status} from {host})", PROVIDER_DOWN.action)
    if fields is None and body.lstrip()[:1] == b"<":
        if status >= 400:
            return failed(f"{host} answers with a web page (HTTP {status})", NOT_THE_ENDPOINT)
        return failed(f"{NOT_THE_PROVIDER.meaning} (HTTP {status} from {host})", NOT_THE_PROVIDER.action)
    error = fields.get("error") if fields is not None else None
    if fields is None or not isinstance(error, str):
        return failed(f"{host} answers, and not as OAuth 2.0 has it (HTTP {status})", NOT_THE_ENDPOINT)
    said = f"{error}: {fields.get('error_description', '')}"
    facts["error"] = one_line(error)
    if WRONG_PLACE.search(said) and (advice := advise(said)) is not None:
        return failed(f"{advice.meaning} ({one_line(said)})", advice.action)
    text = f"{host} is an OAuth 2.0 token endpoint (HTTP {status}, {one_line(error)})"
    return Finding(Link.ENDPOINT, about, Grade.OK, text, facts=facts)


def read(body: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
