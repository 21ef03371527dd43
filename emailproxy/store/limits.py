"""What a key slot's password is good for: protocols, networks, and until when."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from emailproxy.errors import PasswordsUnchanged
from emailproxy.store.base import NO_LIMITS, Limits

PROTOCOLS = {"IMAP": "IMAP", "POP": "POP3", "SMTP": "SMTP"}
"""As `Limits.protocols` and listeners have them, and as people say."""
MAX_NETWORKS = 32  # of one slot; each login is held against all of them
MAX_SHOWN = 3  # networks in a sentence that a mail client is told: its line holds 512 octets
LATEST_S = 253_402_214_400  # 9999-12-31: beyond it is no calendar
MAPPED_BITS = 96  # RFC 4291 section 2.5.5.2: ::ffff:0:0/96 holds the IPv4 addresses


def canonical(limits: Limits) -> Limits:
    """The limits as they are kept: protocols in order, networks in CIDR notation, nothing twice.

    Raises:
        PasswordsUnchanged: the text names what is no protocol, network or time.
    """
    if limits == NO_LIMITS:
        return limits
    wanted = {_protocol(text) for text in limits.protocols}
    networks = tuple(dict.fromkeys(str(_network(text)) for text in limits.networks))
    if len(networks) > MAX_NETWORKS:
        raise PasswordsUnchanged(f"{len(networks)} networks for one password, where {MAX_NETWORKS} may be")
    if limits.expires_s is not None and not 0 <= limits.expires_s <= LATEST_S:
        raise PasswordsUnchanged(f"a password cannot end {limits.expires_s} s after 1970; choose a year before 9999")
    return Limits(tuple(name for name in PROTOCOLS if name in wanted), networks, limits.expires_s)


def _protocol(text: str) -> str:
    for name, spoken in PROTOCOLS.items():
        if text.upper() in (name, spoken):
            return name
    raise PasswordsUnchanged(f"{text[:40]!r} is no protocol; write imap, pop3 or smtp")


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise PasswordsUnchanged(
            f"{text[:60]!r} is no network; write an address, or one like 192.0.2.0/24 or 2001:db8::/32"
        ) from None
    if "/" in text and str(network.network_address) != str(ip_address(text.partition("/")[0])):
        raise PasswordsUnchanged(f"{text[:60]!r} is an address within a network; write {network}, or the address alone")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= MAPPED_BITS:
        return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))
    return network


def plain_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of a peer, an IPv4 one where it came mapped into IPv6; None where it is no IP address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def why_not(limits: Limits, protocol: str, address: str, now_s: float) -> str:
    """Why a password with these limits is no good for this login, as the end of a sentence; empty where it is.

    Args:
        protocol: ``IMAP``, ``POP`` or ``SMTP``; empty for the command line, which only the end of a password stops.
    """
    if limits.expires_s is not None and now_s >= limits.expires_s:
        return f"ended on {_day(limits.expires_s)}"
    if not protocol:
        return ""
    if limits.protocols and protocol not in limits.protocols:
        return f"is for {_spoken(limits.protocols)} only, and this is {PROTOCOLS.get(protocol, protocol)}"
    if limits.networks and not _is_within(address, limits.networks):
        return f"is for logins from {_shown(limits.networks)} only, and this one comes from {address or 'elsewhere'}"
    return ""


def _is_within(address: str, networks: tuple[str, ...]) -> bool:
    peer = plain_address(address)
    return peer is not None and any(peer in ip_network(network) for network in networks)


def in_words(limits: Limits) -> str:
    """The limits for people, e.g. ``SMTP only, from 10.0.0.0/8, until 2027-01-31 12:00 UTC``; empty for none."""
    parts = [f"{_spoken(limits.protocols)} only"] if limits.protocols else []
    if limits.networks:
        parts.append(f"from {', '.join(limits.networks)}")
    if limits.expires_s is not None:
        parts.append(f"until {_day(limits.expires_s)}")
    return ", ".join(parts)


def _spoken(protocols: tuple[str, ...]) -> str:
    return " and ".join(PROTOCOLS[name] for name in protocols)


def _shown(networks: tuple[str, ...]) -> str:
    more = len(networks) - MAX_SHOWN
    return ", ".join(networks[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _day(at_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))
