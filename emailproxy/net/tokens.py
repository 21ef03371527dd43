"""What net/ needs of oauth/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from emailproxy.config.model import Route
    from emailproxy.errors import LoginRefused
    from emailproxy.wire import events as ev


class TokenSource(Protocol):
    """Who decides what a login is given to log in upstream with."""

    def route(self, login: ev.Login, visit: ev.Visit) -> Route:
        """Where this login goes. Returns at once.

        Raises:
            LoginRefused: nowhere.
        """

    def at_once(self, login: ev.Login, visit: ev.Visit) -> ev.Credential | None:
        """What `token` would say, where nothing has to be waited for; None where something has.

        Raises:
            LoginRefused: this login does not go ahead.
        """

    async def token(self, login: ev.Login, visit: ev.Visit, rejected: str | None = None) -> ev.Credential:
        """What to log in upstream with.

        Raises:
            LoginRefused: this login does not go ahead.
        """

    def is_settled(self, login: ev.Login, visit: ev.Visit) -> bool:
        """The mail server took the login: whether that is all, or `accepted` has to be awaited. Returns at once."""

    async def accepted(self, login: ev.Login, visit: ev.Visit) -> None:
        """The mail server took the login: what was only tried on is kept."""

    def refused(self, login: ev.Login, visit: ev.Visit, error: LoginRefused) -> None:
        """The client was told that its login does not go ahead. Returns at once."""

    def advise(self, text: str) -> ev.Advice | None:
        """What is known about a mail server's refusal."""
