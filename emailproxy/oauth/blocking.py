"""A few threads for the libraries that block (msal, google-auth), and the one HTTP session that they share."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from emailproxy.config.model import SECONDS
from emailproxy.config.outbound import Outbound
from emailproxy.errors import ProviderUnavailable
from emailproxy.oauth.breaker import Refrain

if TYPE_CHECKING:
    from emailproxy.oauth.bounded import BoundedSession

THREADS = 4  # logins that wait for a provider at the same time; further ones queue
JOB_S = 30 * SECONDS  # for one job and all of its requests: what a mail client waits before it gives up
BEYOND_S = 1 * SECONDS  # until a job is given up whose time is over: looking up a name heeds no time limit
GOODBYE_S = 0.2 * SECONDS  # what the threads have to end in; one that still waits for a provider is left behind

STOPPING = "emailproxy is stopping; try again later"
TOO_LATE = "the provider did not answer in time: others wait for it, or its name cannot be looked up; try again later"

T = TypeVar("T")


class Blocking:
    """Runs what blocks, in threads of its own: nothing else can starve it, nor it others.

    The threads are daemons: the process ends without waiting for a provider that hangs.
    """

    def __init__(self, *, ca_file: Path | None = None, outbound: Outbound | None = None) -> None:
        """`ca_file` stands in place of the system's trust store; without `outbound` the environment names proxies."""
        self._ca_file = ca_file
        self._outbound = outbound or Outbound.by_environment()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._session: BoundedSession | None = None
        self._current = threading.local()
        """Of the thread's job: the deadline."""
        self._closed = False

    async def run(self, work: Callable[[], T], *, left_s: float = JOB_S) -> T:
        """What `work` returns.

        Its requests share `left_s` seconds with the wait for a thread: none lasts longer, and every answer that does
        come is used. A caller that is cancelled, or whose time is long over, leaves the work to end by itself.

        Raises:
            ProviderUnavailable: a request of `work` failed, whatever the library made of that; or there was no time.
        """
        if self._closed:
            raise Refrain(STOPPING)
        future: Future[T] = Future()
        self._jobs.put(partial(self._perform, future, work, time.monotonic() + left_s))
        if len(self._threads) < THREADS:
            thread = threading.Thread(target=self._serve, name=f"provider-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        waiting = asyncio.timeout(max(0.0, left_s) + BEYOND_S)
        try:
            async with waiting:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if not waiting.expired():  # it is an error of `work`
                raise
            raise ProviderUnavailable(TOO_LATE) from None

    def session(self) -> BoundedSession:
        """The session for requests to providers; only what `run` runs asks for it.

        Raises:
            ProviderUnavailable: `ca_file` cannot be used.
        """
        from emailproxy.oauth.bounded import BoundedSession

        with self._lock:
            if self._session is None:
                self._session = BoundedSession(self._ca_file, self._outbound, self._left_s)
            return self._session

    def close(self) -> None:
        """Ends the threads; what was not begun yet is refused."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        deadline_s = time.monotonic() + GOODBYE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._session is not None:
            self._session.close()

    def _left_s(self) -> float:
        """Seconds that this thread's job has for further requests."""
        deadline_s: float = self._current.deadline_s
        return deadline_s - time.monotonic()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # what it holds, tokens among it, does not lie here until the next one

    def _perform(self, future: Future[T], work: Callable[[], T], deadline_s: float) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._current.deadline_s = deadline_s
        try:
            if self._closed:
                raise Refrain(STOPPING)
            if self._left_s() <= 0:
                raise ProviderUnavailable(TOO_LATE)
            future.set_result(work())
        except Exception as error:
            future.set_exception(unavailable_behind(error) or error)
        except BaseException as error:
            future.set_exception(error)
            raise


def unavailable_behind(error: BaseException) -> ProviderUnavailable | None:
    """What the session said of a failed request, from below what a library made of it."""
    seen: set[int] = set()
    below: BaseException | None = error
    while below is not None and id(below) not in seen:
        if isinstance(below, ProviderUnavailable):
            return below
        seen.add(id(below))
        below = below.__cause__ or (None if below.__suppress_context__ else below.__context__)
    return None
