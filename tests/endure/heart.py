"""The process behind `tests.endure.pulse`: a client of its own, which no busy scenario slows down.

Its standard input has one line of JSON, and its end is the client's end; each login is one line of JSON as well.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import BinaryIO, NamedTuple

from tests.endure.talk import Step, Steps, Unexpected, steps


class Orders(NamedTuple):
    """What it is told."""

    port: int
    source: str
    protocol: str
    user: str
    password: str
    every_s: float
    """From the end of one login to the beginning of the next one."""
    count: int | None
    """None: until its standard input ends."""
    patience_s: float


def login_ms(orders: Orders, dialogue: Steps) -> float:
    """From the first SYN to the answer to the login.

    Raises:
        OSError, EOFError, Unexpected: it failed.
    """
    began_s = time.perf_counter()
    address, source = ("127.0.0.1", orders.port), (orders.source, 0)
    with socket.create_connection(address, orders.patience_s, source_address=source) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as lines:
            for step in dialogue.login:
                _say(connection, lines, step)
            took_s = time.perf_counter() - began_s
            _say(connection, lines, dialogue.goodbye)
    return took_s * 1000


def _say(connection: socket.socket, lines: BinaryIO, step: Step) -> None:
    connection.sendall(step.sends)
    for line in lines:
        if step.last.match(line):
            if not step.wants.match(line):
                raise Unexpected(line.decode(errors="replace").strip())
            return
    raise EOFError("the connection ended")


def main() -> None:
    orders = Orders(*json.loads(sys.stdin.readline()))
    dialogue = steps(orders.protocol, orders.user, orders.password)
    done = 0
    while orders.count is None or done < orders.count:
        try:
            outcome: dict[str, object] = {"ms": login_ms(orders, dialogue)}
        except (OSError, EOFError, Unexpected) as error:
            outcome = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(outcome), flush=True)
        done += 1
        ended, _, _ = select.select([sys.stdin], [], [], orders.every_s)
        if ended:
            return


if __name__ == "__main__":
    main()
