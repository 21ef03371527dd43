"""Free ports of the loopback, for servers that must be told theirs."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator

# Below Linux's ephemeral ports (32768 and up), where an outgoing connection could take one meanwhile.
PORTS = range(20_000, 32_000)
# Each test process of a run has a share of its own, so that two never choose the same port.
WORKERS = max(8, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))

_share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_left = list(PORTS[_share::WORKERS])
random.shuffle(_left)


def free_ports(count: int) -> list[int]:
    """So many different ports that nothing listens on, on 127.0.0.1; those handed out before come last."""
    found: list[int] = []
    for _ in range(len(_left)):
        port = _left.pop(0)
        _left.append(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports are left")


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, nor can begin to meanwhile: it is bound."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
