"""Logins as several measures need them: one after another, and by several clients at once."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.bench.candidate import Candidate
from tests.bench.clients import Account, Endpoint, Imap, Pop, Smtp
from tests.bench.effort import Effort
from tests.bench.site import Bench, log_in_once

WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Row:
    """Warm IMAP logins one after another."""

    took_s: list[float]
    """From the connection to the tagged OK; the logout is outside."""
    cpu_s: float | None
    """Of the proxy, for all of them, logouts included."""

    @property
    def p50_s(self) -> float:
        return statistics.median(self.took_s)


async def in_a_row(bench: Bench, candidate: Candidate, effort: Effort) -> Row:
    """This round's; made once."""

    async def make() -> Row:
        return await asyncio.to_thread(_in_a_row, candidate, effort.logins)

    return await bench.shared("logins in a row", candidate, make)


def _in_a_row(candidate: Candidate, count: int) -> Row:
    assert candidate.imap is not None
    for _ in range(min(WARM_UP, count)):
        log_in_once(candidate)
    tree, took_s = candidate.tree, []
    cpu_s = tree.cpu_s() if tree else 0.0
    for _ in range(count):
        start_s = time.perf_counter()
        with Imap(candidate.imap) as client:
            client.login(candidate.account)
            took_s.append(time.perf_counter() - start_s)
            client.logout()
    return Row(took_s, tree.cpu_s() - cpu_s if tree else None)


def timed(client: type[Imap | Pop | Smtp], endpoint: Endpoint, account: Account) -> float:
    """Seconds from the connection to the reply that the login is in; the logout is outside."""
    start_s = time.perf_counter()
    with client(endpoint) as connection:
        connection.login(account)
        took_s = time.perf_counter() - start_s
        connection.logout()
    return took_s


async def at_once(candidate: Candidate, clients: int, seconds: float) -> float:
    """How many logins a second so many clients get through together, each with its logout."""
    with ThreadPoolExecutor(clients) as threads:  # they wait for the network nearly all the time
        start = threading.Barrier(clients)
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(threads, _again_and_again, candidate, start, seconds) for _ in range(clients)]
        return sum(await asyncio.gather(*jobs))


def _again_and_again(candidate: Candidate, start: threading.Barrier, seconds: float) -> float:
    """One client's logins a second: whole ones only, in the time that they took."""
    start.wait()
    start_s, count = time.perf_counter(), 0
    while True:
        log_in_once(candidate)
        count += 1
        if (took_s := time.perf_counter() - start_s) >= seconds:
            return count / took_s
