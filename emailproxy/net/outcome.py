"""One line in the log for every decided login.

It begins with the words that a widely used proxy writes, because there are scripts that look for them; our own facts
follow on the same line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from emailproxy.config.hosts import host_and_port
from emailproxy.errors import LoginRefused, UnknownAccount, WrongPassword, addressed

if TYPE_CHECKING:
    from emailproxy.wire.events import Login, Visit

log = logging.getLogger("emailproxy.net")


def accepted(visit: Visit, here: tuple[str, int], login: Login, took_ms: float) -> None:
    """The mail server took the login."""
    known = f"[ Successfully authenticated {visit.protocol} connection - releasing session ] "
    _write(logging.INFO, visit, here, login.user, known, "accepted", took_ms, "")


def refused(visit: Visit, here: tuple[str, int], login: Login | None, error: LoginRefused, took_ms: float) -> None:
    """The client was told that its login does not go ahead, and why."""
    account = "unreadable user name" if login is None else login.user
    match error:
        case UnknownAccount():
            known = f"Proxy config file entry missing for account {account} - aborting login; "
        case WrongPassword():
            known = f"Invalid password to decrypt credentials for account {account} - aborting login: "
        case _:
            known = ""
    _write(logging.WARNING, visit, here, account, known, "refused", took_ms, f": {addressed(error, account)}")


def _write(
    level: int, visit: Visit, here: tuple[str, int], account: str, known: str, outcome: str, took_ms: float, why: str
) -> None:
    log.log(
        level, "%s (%s; %s) %s%s login %s for %s from %s, %.0f ms [session %s]%s",
        visit.protocol, host_and_port(*here), account, known,
        visit.protocol, outcome, account, visit.address, took_ms, visit.session, why,
    )  # fmt: skip
