"""Free ports of the loopback, for servers that must be told theirs."""

from __future__ import annotations

import random
import socket

# Below Linux's ephemeral ports (32768 and up), where an outgoing connection could take one meanwhile.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """So many different ports that nothing listens on, on 127.0.0.1."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports are left")
