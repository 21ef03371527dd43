"""A consent that waits for a person, and those in this process who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from emailproxy.config.model import SECONDS, Account
from emailproxy.errors import ConsentRequired, StateError
from emailproxy.secret import Secret
from emailproxy.store import sealing

POLL_S = 0.5 * SECONDS  # how soon a login notices that another process completed its consent


@dataclass(frozen=True, slots=True)
class Waiting:
    """A consent that waits for a person."""

    account: Account
    state: Secret
    url: str = field(repr=False)
    """The provider's page."""
    link: str = field(repr=False)
    """The short link to it, under the account's `redirect_uri`; a device's `verification_uri` is short already."""
    user_code: str
    """What to type there, for a device; else empty."""
    expires_at_s: int
    """Seconds since the epoch."""
    generation: int
    """Of the account's record when this was looked at: a later one without a fault means that it is complete."""
    _consents: Watched = field(repr=False, compare=False)
    new_key: bytes = field(default=b"", repr=False)
    """Where the consent replaces the record: the public key that the record has once it is complete."""

    @property
    def what_to_do(self) -> str:
        if self.user_code:
            return f"open {self.link} and enter the code {self.user_code}"
        return f"open {self.link} in a browser"

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it was completed, by whichever process, before `timeout_s` seconds passed.

        Raises:
            LoginRefused: no tokens will come of it: they were refused, or another consent took its place.
            StateError: the state folder cannot be used.
        """
        return await self._consents.wait(self, timeout_s)

    def who(self) -> tuple[str, ...]:
        """Who signed in, where the provider told and this process completed it."""
        return self._consents.who(self)


class Watched(Protocol):
    """What `Waiting` needs of all the consents."""

    async def wait(self, waiting: Waiting, timeout_s: float | None) -> bool:
        """As `Waiting.wait`."""

    def who(self, waiting: Waiting) -> tuple[str, ...]:
        """As `Waiting.who`."""


@dataclass(slots=True)
class Watch:
    """Those in this process who wait for one consent."""

    done: asyncio.Future[None]
    waiters: int = 0
    poll: asyncio.Task[None] | None = None

    def end(self, error: Exception | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # all may have left meanwhile: that is no "exception was never retrieved"


class Watches:
    """All of them, by what their consents' files are called."""

    def __init__(self, is_complete: Callable[[Waiting], Awaitable[bool]]) -> None:
        self._is_complete = is_complete
        self._watches: dict[str, Watch] = {}

    async def wait(self, waiting: Waiting, timeout_s: float | None) -> bool:
        """As `Waiting.wait`."""
        name = sealing.state_hash(waiting.state)
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(asyncio.get_running_loop().create_future())
            watch.poll = asyncio.create_task(self._poll(watch, waiting))
        watch.waiters += 1
        try:
            await asyncio.wait({watch.done}, timeout=timeout_s)
            if watch.done.done():
                watch.done.result()
                return True
            return await self._is_complete(waiting)
        finally:
            watch.waiters -= 1
            if watch.waiters == 0:
                if self._watches.get(name) is watch:
                    del self._watches[name]
                watch.poll.cancel() if watch.poll else None

    async def _poll(self, watch: Watch, waiting: Waiting) -> None:
        while not watch.done.done():
            try:
                if await self._is_complete(waiting):
                    watch.end()
            except (ConsentRequired, StateError) as error:
                watch.end(error)
            await asyncio.wait({watch.done}, timeout=POLL_S)

    def wake(self, name: str, error: Exception | None = None) -> None:
        """The consent is complete, or no tokens will come of it."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.end(error)
