"""What mail servers were last seen to offer, so that a client need not wait for its server's greeting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emailproxy.config.model import MailServer
    from emailproxy.wire.events import Capabilities

MAX_SEEN = 1000  # mail servers; a configuration names a handful, but reloads may change them for ever


class Seen:
    """The capabilities of mail servers (after TLS, before login), by protocol and server."""

    def __init__(self) -> None:
        self._by_server: dict[tuple[str, MailServer], Capabilities] = {}

    def of(self, protocol: str, server: MailServer) -> Capabilities | None:
        return self._by_server.get((protocol, server))

    def learn(self, protocol: str, server: MailServer, capabilities: Capabilities) -> None:
        self._by_server.pop((protocol, server), None)
        if len(self._by_server) >= MAX_SEEN:
            self._by_server.pop(next(iter(self._by_server)))
        self._by_server[protocol, server] = capabilities

    def common(self, protocol: str) -> Capabilities | None:
        """What all servers met through this protocol offer; None where none was met."""
        offers = [offer for (spoken, _), offer in self._by_server.items() if spoken == protocol]
        if not offers:
            return None
        return tuple(item for item in offers[0] if all(item in offer for offer in offers))
