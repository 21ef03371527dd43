"""How one event reaches a hook: as JSON, to a program's standard input or to a URL."""

from __future__ import annotations

import hmac
import json
import ssl
from urllib.parse import urlsplit

from emailproxy.config.model import SECONDS, Settings
from emailproxy.config.outbound import Outbound
from emailproxy.config.proxies import ProxyFailed, UnusableProxy
from emailproxy.config.sources import HookCommand, HookUrl
from emailproxy.errors import EmailProxyError, system_words
from emailproxy.oauth.clock import Clock, rfc3339
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.happenings import Happening
from emailproxy.oauth.secrets import Secrets
from emailproxy.oauth.sessions import HttpSessions, UnusableCa

SIGNATURE = "X-Emailproxy-Signature"
TRIES = 3
DELAYS_S = (1 * SECONDS, 5 * SECONDS)  # between the tries: a restart of the receiver takes seconds
TOO_MANY_REQUESTS = 429  # RFC 6585 section 4


class NotDelivered(EmailProxyError):
    """The receiver did not take the event; `again` says that it may, if asked once more."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


def message(happening: Happening, *, at_s: float, count: int = 1) -> bytes:
    """The event as JSON. `count` says how many of its kind it stands for."""
    fields = {
        "event": happening.event.value,
        "account": happening.account,
        "time": rfc3339(at_s),
        "reason": happening.reason,
        "link": happening.link,
        "url": happening.url,
        "user_code": happening.user_code,
        "expires": "" if happening.expires_at_s is None else rfc3339(happening.expires_at_s),
        "protocol": happening.protocol,
        "address": happening.address,
        "count": count if count > 1 else "",
    }
    return json.dumps({name: value for name, value in fields.items() if value != ""}).encode("ascii")


class Delivery:
    """Runs programs and posts to URLs."""

    def __init__(
        self, settings: Settings, commands: Commands, secrets: Secrets, *, outbound: Outbound | None, clock: Clock
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._secrets = secrets
        self._clock = clock
        self._sessions = HttpSessions(ca_file=settings.ca_file, outbound=outbound)

    async def deliver(self, hook: HookCommand | HookUrl, what: str, body: bytes) -> None:
        """Hands the event over.

        Args:
            what: which hook, and whose event, for errors and the log.

        Raises:
            EmailProxyError: it was not taken; the text says why, and holds nothing of the event.
        """
        match hook:
            case HookCommand(arguments):
                await self._commands.run(arguments, what=what, timeout_s=self._settings.hook_timeout, stdin=body)
            case HookUrl(url):
                await self._post_until_taken(url, what, body)

    async def _post_until_taken(self, url: str, what: str, body: bytes) -> None:
        host = urlsplit(url).netloc.rpartition("@")[2]  # the path may hold a secret
        for delay_s in (*DELAYS_S, None):
            try:
                await self._post(url, body)
                return
            except NotDelivered as error:
                if not error.again or delay_s is None:
                    tries = f" ({TRIES} tries)" if error.again else ""
                    raise NotDelivered(f"{what}: {host} {error}{tries}") from None
            await self._clock.sleep(delay_s)

    async def _post(self, url: str, body: bytes) -> None:
        import aiohttp

        headers = {"Content-Type": "application/json", **await self._signature(body)}
        timeout = aiohttp.ClientTimeout(total=self._settings.hook_timeout)
        try:
            async with self._sessions.post(url, data=body, headers=headers, timeout=timeout) as response:
                status = response.status
        except (UnusableCa, UnusableProxy) as error:
            raise NotDelivered(f"was not asked: {error}") from None
        except ProxyFailed as error:
            raise NotDelivered(str(error), again=error.again) from None
        except TimeoutError:
            raise NotDelivered(f"did not answer within {self._settings.hook_timeout:g} s", again=True) from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or "TLS failed"
            raise NotDelivered(f"cannot be trusted: {reason}; check the URL and ca_file") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotDelivered(f"cannot be reached ({system_words(error)})", again=True) from None
        if not 200 <= status < 300:
            hint = "; give the URL that it leads to" if 300 <= status < 400 else ""
            raise NotDelivered(f"answered HTTP {status}{hint}", again=status >= 500 or status == TOO_MANY_REQUESTS)

    async def _signature(self, body: bytes) -> dict[str, str]:
        """HMAC-SHA256 (RFC 2104) of the body, where there is a secret to sign with; it is read anew each time."""
        source = self._settings.hook_secret
        if source is None:
            return {}
        secret = await self._secrets.read(source, owner="[emailproxy]", key="hook_secret")
        return {SIGNATURE: "sha256=" + hmac.new(secret.reveal().encode(), body, "sha256").hexdigest()}

    async def close(self) -> None:
        await self._sessions.close()
