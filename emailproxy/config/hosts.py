"""Host names and addresses as a configuration writes them."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

MAX_HOST_NAME = 253  # RFC 1035 section 2.3.4: 255 octets on the wire, less the first length and the root

# RFC 1123 section 2.1; the underscore is no host name's, but private DNS uses it
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this host's loopback (RFC 6761 section 6.3, RFC 6890)."""
    bare = host.strip("[]").rstrip(".").casefold()
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


@lru_cache
def is_local_address(local_address: str | None) -> bool:
    """Whether a `local_address` is certain to be a loopback; None is the loopbacks of this host.

    What a name leads to is for resolvers to say, but for ``localhost`` (RFC 6761 section 6.3).
    """
    if local_address is None or local_address.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(local_address.strip("[]")).is_loopback
    except ValueError:
        return False


def canonical_host(text: str) -> str | None:
    """A host name in its ASCII form, or an address without brackets; None where it is neither."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text.removesuffix(".")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if not bare or len(bare) > MAX_HOST_NAME:
        return None
    try:
        ascii_form = bare if bare.isascii() else bare.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    labels = ascii_form.split(".")
    named = all(LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    return ascii_form if named and len(ascii_form) <= MAX_HOST_NAME else None


def host_and_port(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def overlap(one: str | None, other: str | None) -> bool:
    """Whether two `local_address` values claim the same port. None is the loopbacks of this host."""
    return any(_claim(ours, theirs) for ours in _addresses(one) for theirs in _addresses(other))


def _claim(one: str, other: str) -> bool:
    same_family = (":" in one) == (":" in other)
    wildcards = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return one == other or (same_family and bool({one, other} & wildcards))


def _addresses(local_address: str | None) -> set[str]:
    if local_address is None or local_address.casefold() == "localhost":
        return {"127.0.0.1", "::1"}
    return {local_address.casefold()}
