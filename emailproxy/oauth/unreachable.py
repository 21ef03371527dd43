"""Why a provider's host gave no answer: the same words, whichever library asked it."""

from __future__ import annotations

from emailproxy.config.proxies import ProxyFailed, UnusableProxy
from emailproxy.errors import ProviderUnavailable, system_words
from emailproxy.oauth.breaker import Refrain


def late(host: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"the provider at {host} did not answer in time; try again later")


def untrusted(host: str, reason: str | None) -> ProviderUnavailable:
    """`reason` is what is wrong with its certificate, where that is known."""
    return ProviderUnavailable(
        f"the provider at {host} cannot be trusted: {reason or 'TLS failed'}; check token_url, the clock and ca_file"
    )


def unreachable(host: str, error: BaseException) -> ProviderUnavailable:
    return ProviderUnavailable(f"the provider at {host} cannot be reached ({system_words(error)}); check the network")


def busy(host: str, status: int, retry_after_s: float | None) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"the provider at {host} is busy or down (HTTP {status}); try again later", retry_after_s=retry_after_s
    )


def behind_proxy(host: str, error: ProxyFailed) -> ProviderUnavailable:
    """A proxy that wants a password, or refuses, is not asked again: some lock out who insists."""
    kind = ProviderUnavailable if error.again else Refrain
    return kind(f"the provider at {host} {error}")


def no_way(host: str, error: UnusableProxy) -> Refrain:
    return Refrain(f"the provider at {host} cannot be reached: {error}")
