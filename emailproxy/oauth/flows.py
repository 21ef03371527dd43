"""Which grant serves an account: by its flow, and by the library that speaks with its provider."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.config.outbound import Outbound
from emailproxy.oauth.blocking import Blocking
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import Flow
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.oauth.secrets import Secrets


class Flows:
    """All grants of a process. Call it with an account; `close` it in the end."""

    def __init__(
        self,
        secrets: Secrets,
        commands: Commands,
        *,
        ca_file: Path | None,
        outbound: Outbound | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`ca_file` stands in place of the system's trust store; without `outbound` the environment names proxies."""
        self._secrets = secrets
        self._clock = clock or Clock()
        self._endpoint = TokenEndpoint(ca_file=ca_file, outbound=outbound, clock=self._clock)
        self._ca_file, self._outbound = ca_file, outbound
        self._blocking: list[Blocking] = []
        """One for each provider: those who wait for one that hangs hold up nobody at another."""
        self._commands = commands
        self._others: dict[ProviderName, Mapping[FlowName, Flow]] = {}

    def __call__(self, account: Account) -> Flow:
        return self._grants(account.provider).get(account.flow) or self._generic[account.flow]

    @cached_property
    def _generic(self) -> Mapping[FlowName, Flow]:
        from emailproxy.oauth import generic

        return generic.grants(self._endpoint, self._secrets, self._commands)

    def _grants(self, provider: ProviderName) -> Mapping[FlowName, Flow]:
        """What a provider's own library does; all else is as the RFCs say."""
        if provider not in self._others:
            self._others[provider] = self._own(provider)
        return self._others[provider]

    def _own(self, provider: ProviderName) -> Mapping[FlowName, Flow]:
        if provider is ProviderName.GENERIC:
            return {}
        blocking = Blocking(ca_file=self._ca_file, outbound=self._outbound)
        self._blocking.append(blocking)
        parts = blocking, self._secrets, self._endpoint.attempts
        if provider is ProviderName.MICROSOFT:
            from emailproxy.oauth import microsoft

            return microsoft.grants(*parts, clock=self._clock)
        from emailproxy.oauth import google

        return google.grants(*parts, clock=self._clock)

    async def close(self) -> None:
        for blocking in self._blocking:
            blocking.close()
        await self._endpoint.close()
