"""Messages through the proxy, in each direction; every octet is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.candidate import Candidate
from tests.bench.clients import Imap, Smtp
from tests.bench.effort import GB, MB, Effort
from tests.bench.site import Bench

APPENDED = 20 * MB
"""One message: servers keep each in memory or in a file of its own."""
MAILBOX = b"Uploads"
Transfer = Callable[[], int]
"""Passes messages, and returns of how many octets."""


class Incomplete(Exception):
    """Fewer octets came than there are."""


@dataclass(frozen=True, slots=True)
class Passed:
    octets: int
    took_s: float
    cpu_s: float | None
    """Of the proxy."""

    @property
    def cpu_s_per_gb(self) -> float | None:
        return None if self.cpu_s is None else self.cpu_s / self.octets * GB

    @property
    def mb_per_s(self) -> float:
        return self.octets / self.took_s / MB


async def download(bench: Bench, candidate: Candidate, effort: Effort) -> Passed:
    """This round's FETCH of the whole INBOX; made once."""

    async def make() -> Passed:
        return await asyncio.to_thread(_download, candidate, effort)

    return await bench.shared("download", candidate, make)


async def append(candidate: Candidate, effort: Effort) -> Passed:
    """IMAP APPEND into a mailbox that is made for it, and then deleted."""
    return await asyncio.to_thread(_append, candidate, effort)


async def submit(candidate: Candidate, effort: Effort) -> Passed:
    """SMTP DATA, in one message."""
    return await asyncio.to_thread(_submit, candidate, effort)


def _download(candidate: Candidate, effort: Effort) -> Passed:
    assert candidate.imap is not None
    with Imap(candidate.imap) as client:
        client.login(candidate.account)
        client.select()
        passed = _measured(candidate, client.fetch)
        client.logout()
    if passed.octets < effort.octets:
        raise Incomplete(f"{passed.octets} of {effort.octets} octets")
    return passed


def _append(candidate: Candidate, effort: Effort) -> Passed:
    assert candidate.imap is not None
    with Imap(candidate.imap) as client:
        client.login(candidate.account)
        client.command(b"CREATE " + MAILBOX + b"\r\n")
        try:
            sizes = [min(APPENDED, effort.octets)] * -(-effort.octets // APPENDED)
            return _measured(candidate, lambda: sum(client.append(size, MAILBOX) for size in sizes))
        finally:
            client.command(b"DELETE " + MAILBOX + b"\r\n")
            client.logout()


def _submit(candidate: Candidate, effort: Effort) -> Passed:
    assert candidate.smtp is not None
    with Smtp(candidate.smtp) as client:
        client.login(candidate.account)
        passed = _measured(candidate, lambda: client.data(effort.octets, candidate.account.user))
        client.logout()
    return passed


def _measured(candidate: Candidate, transfer: Transfer) -> Passed:
    tree = candidate.tree
    start_s, cpu_s = time.perf_counter(), tree.cpu_s() if tree else 0.0
    octets = transfer()
    took_s = time.perf_counter() - start_s
    return Passed(octets, took_s, tree.cpu_s() - cpu_s if tree else None)
