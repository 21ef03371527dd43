"""Which proxy, if any, a connection outwards takes: one place decides, for mail and for OAuth 2.0 alike.

`upstream_proxy` counts for all of them. Without it the environment does, as curl reads it: `https_proxy` and
`http_proxy` for HTTP requests, `all_proxy` for these and for mail, `no_proxy` for what needs none; in capitals too.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

from emailproxy.config.model import Settings
from emailproxy.config.proxies import Proxy
from emailproxy.secret import Secret

MAIL = "mail"
"""The `scheme` of connections to mail servers."""
OF_ITS_OWN = frozenset({"http", "https"})
"""Schemes that have a variable in the environment, before `all_proxy`."""
EVERYTHING = "*"
METADATA_HOSTS = frozenset({"metadata.google.internal", "fd00:ec2::254"})
"""Where clouds answer their machines, beside link-local addresses."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """The decision, and all that it depends on. `environ` is looked at whenever a connection is made."""

    proxy: Secret | None = None
    """`upstream_proxy`."""
    no_proxy: tuple[str, ...] = ()
    """Hosts, domains, networks; in place of the environment's, where there are any."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Its URLs may hold passwords."""

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Self:
        return cls(settings.upstream_proxy, settings.no_proxy, environ)

    @classmethod
    def by_environment(cls) -> Self:
        """Where no setting says anything."""
        return cls(environ=os.environ)

    def proxy_for(self, scheme: str, host: str) -> Proxy | None:
        """The proxy for a connection to this host; None: it is made without one.

        What answers on a link-local address (RFC 3927, RFC 4291 section 2.5.6), as the metadata services of clouds do,
        is no proxy's business, whatever is set.

        Args:
            scheme: ``https``, ``http`` or `MAIL`.

        Raises:
            UnusableProxy: the URL of the proxy is none.
        """
        if is_link_local(host):
            return None
        source, url = self._chosen(scheme)
        if not url or exempt(host, self.no_proxy or self._exempted()):
            return None
        return Proxy.parsed(url, source)

    def _chosen(self, scheme: str) -> tuple[str, Secret]:
        if self.proxy:
            return "upstream_proxy", self.proxy
        for name in (f"{scheme}_proxy", "all_proxy") if scheme in OF_ITS_OWN else ("all_proxy",):
            spelt, value = self._variable(name)
            if value:
                return f"{spelt} in the environment", Secret(value)
        return "", Secret("")

    def _variable(self, name: str) -> tuple[str, str]:
        """How a variable is spelt, and its value; one in small letters counts even where it is empty."""
        spelt = name if name in self.environ else name.upper()
        return spelt, self.environ.get(spelt, "").strip()

    def _exempted(self) -> Iterable[str]:
        return re.split(r"[\s,]+", self._variable("no_proxy")[1])


def exempt(host: str, entries: Iterable[str]) -> bool:
    """Whether a host needs no proxy.

    An entry is a host, which its subdomains are with; an address; a network in CIDR notation; or ``*``.
    """
    bare = host.strip("[]").rstrip(".").casefold()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    for entry in entries:
        name = entry.strip("[]").removeprefix("*.").strip(".").casefold()
        if entry == EVERYTHING or (name and name == bare):
            return True
        if address is None:
            if name and bare.endswith(f".{name}"):
                return True
        elif within(address, name):
            return True
    return False


def within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


@lru_cache
def is_link_local(host: str) -> bool:
    """Whether the machine's host or its own network answers: link-local addresses, the metadata services of clouds."""
    bare = host.strip("[]").rstrip(".").casefold()
    if bare in METADATA_HOSTS:
        return True
    try:
        return ipaddress.ip_address(bare).is_link_local
    except ValueError:
        return False
