"""The service manager, if there is one: what it is told of the server's state (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
import time

CLOSE_S = 10.0  # for what follows once the last session has ended: renewals under way, files

log = logging.getLogger("emailproxy")


def notify(state: str) -> None:
    """Tells the service manager."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("the service manager's socket does not answer: %s", error)


def notify_stopping(drain_timeout_s: float) -> None:
    """The end begins, and may take so long, whatever a unit says that was printed for another configuration."""
    notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((drain_timeout_s + CLOSE_S) * 1_000_000)}")


def notify_reloading() -> None:
    """The configuration is read again; READY=1 follows. `Type=notify-reload` wants to know since when."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
