"""Those that are measured side by side, each started by a context manager of its own, in front of the servers given.

Who cannot run here yields None, and the reason is printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.bench import candidate as names
from tests.bench.candidate import Candidate
from tests.bench.candidates.direct import direct
from tests.bench.candidates.dovecot import dovecot
from tests.bench.candidates.emailproxy import emailproxy, prewarmed
from tests.bench.candidates.pypi import pypi
from tests.bench.candidates.stunnel import stunnel
from tests.bench.site import Bench, Servers

Start = Callable[[Bench, Servers], contextlib.AbstractAsyncContextManager[Candidate | None]]
STARTS: dict[str, Start] = {
    names.DIRECT: direct,
    names.EMAILPROXY: emailproxy,
    names.PREWARMED: prewarmed,
    names.STUNNEL: stunnel,
    names.DOVECOT: dovecot,
    names.PYPI: pypi,
}
"""In the order of a round and of the tables."""


def fresh(bench: Bench, candidate: Candidate) -> contextlib.AbstractAsyncContextManager[Candidate | None]:
    """One more of the kind, just started: for what depends on the past of a process, as its memory does."""
    return STARTS[candidate.name](bench, bench.servers)
