"""Connections to a mail server that are opened before a login needs them (`prewarm`).

Each is as far as anybody's login may go: TLS stands, the server has greeted us and told what it offers. A login that
takes one saves those round trips, and another one is opened in its place. None grows old, because servers close what
does not log in; while nobody has come for a long time there are none, and ever fewer where the server dislikes them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING

from emailproxy.errors import LoginRefused
from emailproxy.net.ahead import Ahead

if TYPE_CHECKING:
    from emailproxy.config.model import Server
    from emailproxy.net.shared import Shared

log = logging.getLogger("emailproxy.net")

RENEW_S = 45.0  # the impatient providers close after a minute what has not logged in
SHORTEST_S = 10.0  # whoever closes sooner than that does not want connections that wait
EARLIEST = 0.8  # of a connection's time: the least after which it is renewed, so that not all are at once
PROVEN_S = EARLIEST * SHORTEST_S
LESSON = 0.8  # of the age at which a server closed one: the next ones are renewed then
FORGIVEN = 1.02  # by which that time grows with each connection that lived to see its end: restarts close some, too
QUIET_S = 3600.0  # nobody has come for so long: the server is left in peace until somebody does
REPLACE_S = 0.05  # after a login has taken one: on a small machine a handshake beside it would be in its way
AT_ONCE = 10  # dials of one section
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0


class Pace:
    """How long connections are kept, and how soon a server that does not like them is tried again. Times are seconds of
    one clock."""

    def __init__(self) -> None:
        self.life_s = RENEW_S
        self.failures = 0
        self.paused_until_s = 0.0

    def failed(self, now_s: float) -> bool:
        """A connection could not be opened, or was closed at once; returns whether that is news."""
        if now_s < self.paused_until_s:
            return False
        self.paused_until_s = now_s + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return self.failures == 1

    def healed(self) -> None:
        """One has stood for a while."""
        self.failures = 0

    def closed(self, age_s: float) -> None:
        """The server closed one that was to stand longer."""
        self.life_s = max(SHORTEST_S, min(self.life_s, LESSON * age_s))

    def renewed(self) -> None:
        """One came to the end of its time."""
        self.life_s = min(RENEW_S, FORGIVEN * self.life_s)


class Prewarmed:
    """Those of one listening section. Does nothing until `start`; `take` hands out."""

    def __init__(self, server: Server, shared: Shared) -> None:
        self._server = server
        self._wanted = (server.prewarm or 0) if server.target is not None else 0
        self._shared = shared
        self._standing: deque[Ahead] = deque()
        """The oldest first."""
        self._dialling: set[asyncio.Task[None]] = set()
        self._pace = Pace()
        self._timer: asyncio.TimerHandle | None = None
        self._last_visit_s = 0.0
        self._started = False
        self._soon = False
        """Whether what a login took is about to be replaced."""

    @property
    def ready(self) -> int:
        """How many stand."""
        return len(self._standing)

    def start(self, before: Prewarmed | None = None) -> None:
        """Opens them; those that stood `before` serve on, if they are to the same server in the same way."""
        self._started = self._wanted > 0
        if before is not None:
            if self._started and self._is_like(before):
                self._pace, self._standing = before._pace, before._standing
                before._standing = deque()
                for ahead in self._standing:
                    ahead.on_end = self._lost
                self._let_go(self._wanted)
            before.close()
        self._last_visit_s = _now_s()
        self._review()

    def _is_like(self, other: Prewarmed) -> bool:
        ours, theirs = self._server, other._server
        return (ours.protocol, ours.target, ours.ca_file, ours.ehlo_name) == (
            theirs.protocol, theirs.target, theirs.ca_file, theirs.ehlo_name,
        ) and self._shared is other._shared  # fmt: skip

    def take(self) -> Ahead | None:
        """One for a login; None: it dials for itself."""
        if not self._started:
            return None
        self._last_visit_s = _now_s()
        if not self._soon:
            self._soon = True
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_later(REPLACE_S, self._review)
        return self._next()

    def _next(self) -> Ahead | None:
        """The oldest that can still be trusted."""
        while self._standing:
            ahead = self._standing.popleft()
            ahead.on_end = None
            if ahead.is_trusted and not ahead.has_overslept(2 * RENEW_S):
                return ahead
            ahead.close()
        return None

    def close(self) -> None:
        """None is opened any more, and those that stand are closed."""
        self._started = False
        self._cancel_timer()
        for task in self._dialling:
            task.cancel()
        self._let_go(0)

    # ---- how many there are

    def _review(self) -> None:
        """Opens what is missing or will soon be too old, and comes back when there is a reason to."""
        self._soon = False
        self._cancel_timer()
        if not self._started:
            return
        now_s = _now_s()
        if now_s - self._last_visit_s >= QUIET_S:
            self._let_go(0)
            return
        if self._pace.failures and any(now_s - ahead.since_s >= PROVEN_S for ahead in self._standing):
            self._pace.healed()
            log.info("[%s] connections to its mail server are opened ahead again", self._server.section)
        for _ in range(self._missing(now_s)):
            self._open_another()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._next_reason_s(now_s) - now_s), self._review)

    def _missing(self, now_s: float) -> int:
        """How many to dial now; one to begin with, where the last ones failed."""
        if now_s < self._pace.paused_until_s:
            return 0
        young = sum(now_s < ahead.due_s for ahead in self._standing)
        wanted, room = (1, 1) if self._pace.failures else (self._wanted, AT_ONCE)
        return min(wanted - young, room) - len(self._dialling)

    def _next_reason_s(self, now_s: float) -> float:
        """One is due, or proven; the pause ends; it has been quiet for long."""
        reasons = [ahead.due_s for ahead in self._standing]
        if self._pace.failures:
            reasons += [ahead.since_s + PROVEN_S for ahead in self._standing]
            reasons.append(self._pace.paused_until_s)
        return min((at_s for at_s in reasons if at_s > now_s), default=self._last_visit_s + QUIET_S)

    def _let_go(self, left: int) -> None:
        """Closes the oldest, until so many are left."""
        while len(self._standing) > left:
            ahead = self._standing.popleft()
            ahead.on_end = None
            ahead.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- one of them

    def _open_another(self) -> None:
        task = asyncio.get_running_loop().create_task(self._open(Ahead(self._server, self._shared)))
        self._dialling.add(task)
        task.add_done_callback(self._opened)

    async def _open(self, ahead: Ahead) -> None:
        since_s = _now_s()
        try:
            await ahead.open()
        except LoginRefused as error:
            self._failed(str(error))
            return
        spread = random.uniform(EARLIEST, 1.0)  # noqa: S311 - spreads load, hides nothing
        ahead.since_s, ahead.due_s = since_s, since_s + spread * self._pace.life_s
        ahead.on_end = self._lost
        self._standing.append(ahead)
        if len(self._standing) > self._wanted:  # it takes the place of the oldest, which is due
            self._pace.renewed()
            self._let_go(self._wanted)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("[%s] a fault of emailproxy", self._server.section, exc_info=error)
            self._pace.failed(_now_s())
        self._review()

    def _failed(self, reason: str) -> None:
        if self._pace.failed(_now_s()):
            log.warning(
                "[%s] no connections are opened ahead for now: %s; logins connect for themselves, and this is tried "
                "again, ever more seldom (prewarm)",
                self._server.section,
                reason,
            )

    def _lost(self, ahead: Ahead) -> None:
        """The server closed it, or said something."""
        now_s = _now_s()
        self._standing.remove(ahead)
        if now_s - ahead.since_s < PROVEN_S:
            self._failed(ahead.ended)
        elif now_s < ahead.due_s:
            self._pace.closed(now_s - ahead.since_s)
        self._review()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
