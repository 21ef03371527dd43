"""Values that say who may connect, where to, and through what: networks, mail servers, proxies."""

from __future__ import annotations

import ipaddress
import re

from emailproxy.config.hosts import canonical_host
from emailproxy.config.model import LocalStartTls, MailServer, Networks
from emailproxy.config.proxies import Proxy, UnusableProxy
from emailproxy.config.scan import shown
from emailproxy.config.values import BOOLEANS, MAX_PORT, Wrong, nearest
from emailproxy.secret import Secret

LOOPBACK = "loopback"
LOOPBACKS: Networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))  # RFC 6890
EVERYTHING = "*"

SEPARATORS = re.compile(r"[\s,]+")

# host ":" port [ "/starttls" ], an IPv6 address in brackets as in RFC 3986 section 3.2.2
MAIL_SERVER = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:/\[\]]+):(?P<port>[0-9]{1,5})(?:/(?P<way>[^/]*))?\Z")
STARTTLS = "starttls"

NETWORKS = "write addresses or networks, with commas or spaces between them, e.g. 192.168.1.0/24 fd00::/8, or loopback"


def networks(text: str) -> Networks:
    """Addresses and networks in CIDR notation; ``loopback`` is this host's own."""
    found: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for word in _words(text):
        found += LOOPBACKS if word.casefold() == LOOPBACK else (_network(word),)
    if not found:
        raise Wrong("names no network", NETWORKS)
    return tuple(dict.fromkeys(found))


def _network(word: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(word, strict=False)
    except ValueError:
        mend = f"did you mean {LOOPBACK}?" if nearest(word.casefold(), (LOOPBACK,)) else NETWORKS
        raise Wrong(f"{shown(word)!r} is no address or network", mend) from None
    raise Wrong(f"{shown(word)!r} is an address with a network's length", f"write {meant}")


def mail_server(text: str) -> MailServer:
    """A mail server of an account's own: ``host:port``, or ``host:port/starttls``."""
    mend = "write HOST:PORT, e.g. imap.example.com:993, or HOST:PORT/starttls, e.g. smtp.example.com:587/starttls"
    match = MAIL_SERVER.match(text)
    host = canonical_host(match["host"]) if match else None
    if match is None or host is None or ("[" in match["host"]) != (":" in host):
        raise Wrong(f"{shown(text)!r} is no host and port", mend)
    port = int(match["port"])
    if not 1 <= port <= MAX_PORT:
        raise Wrong(f"{port} is no port", f"write a port from 1 to {MAX_PORT}")
    if match["way"] is not None and match["way"].casefold() != STARTTLS:
        what = f"/{shown(match['way'])} is no way to connect"
        raise Wrong(what, "write /starttls, or nothing for TLS from the first octet")
    return MailServer(host, port, starttls=match["way"] is not None)


def local_starttls(text: str) -> LocalStartTls:
    """off, offered or required. Other proxies have True, which is required: no login comes before STARTTLS there."""
    word = text.casefold()
    if word in BOOLEANS:
        return LocalStartTls.REQUIRED if BOOLEANS[word] else LocalStartTls.OFF
    try:
        return LocalStartTls(word)
    except ValueError:
        near = nearest(word, LocalStartTls)
        mend = f"did you mean {near}?" if near else f"write one of: {', '.join(LocalStartTls)}"
        raise Wrong(f"{shown(text)!r} is not one of its values", mend) from None


def upstream_proxy(text: str) -> Secret:
    """An HTTP CONNECT or SOCKS5 proxy's URL, which may hold a password."""
    source = "upstream_proxy"
    try:
        Proxy.parsed(Secret(text), source)
    except UnusableProxy as unusable:
        what, _, mend = str(unusable).removeprefix(f"{source} ").partition("; ")
        raise Wrong(what, mend or "correct its user name and password") from None
    return Secret(text)


def no_proxy(text: str) -> tuple[str, ...]:
    """Hosts, domains and networks that are reached without a proxy, as curl takes them."""
    found = tuple(dict.fromkeys(word.casefold() for word in _words(text)))
    mend = "write hosts, .domains or networks, with commas or spaces between them, or * for all"
    if not found:
        raise Wrong("names nothing", mend)
    for word in found:
        if word != EVERYTHING and not _is_place(word):
            raise Wrong(f"{shown(word)!r} is no host, domain or network", mend)
    return found


def _is_place(word: str) -> bool:
    try:
        ipaddress.ip_network(word, strict=False)
    except ValueError:
        return canonical_host(word.removeprefix("*").removeprefix(".")) is not None
    return True


def _words(text: str) -> list[str]:
    return [word for word in SEPARATORS.split(text) if word]
