"""A connection to the mail server before there is a client for it: up to where a login may begin, and no further.

Nothing of anybody's is sent. What comes of it is `Ready`, which a dialogue takes in place of a server that has yet to
be greeted; after that the server has nothing to say, and one that speaks all the same, or closes, is given up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from emailproxy.errors import ProtocolError, one_line
from emailproxy.wire import events as ev
from emailproxy.wire.imap_server import ImapServer
from emailproxy.wire.pop3_server import Pop3Server
from emailproxy.wire.serverside import TOO_LONG, Broken, ServerSide, Steps
from emailproxy.wire.smtp_server import SmtpServer

SHOWN = 200  # octets of what a server says unasked


class Opening(ServerSide):
    """Common to all protocols. After `Hangup` it takes no further events."""

    def __init__(self, terms: ev.Terms) -> None:
        """What was seen of the server does not count: nobody waits, so it is asked."""
        super().__init__(replace(terms, seen=None))
        self._over = False
        self._steps = self._prepare()

    def handle(self, event: ev.Event) -> Iterable[ev.Effect]:
        """What should happen now: `ToServer`, `StartTls`, `Learned`, `Ready`, or `Hangup` with the reason.

        Takes the server's events, but for `ServerFailed`: whoever dials knows that.
        """
        if not self._over:
            self._take(event)
        effects, self._effects = self._effects, []
        return effects

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.ServerEOF():
                self._give_up("the mail server closed the connection")
                return
            case ev.ServerData(data):
                self._server.append(data)
                self._server_read += len(data)
            case ev.TlsStarted():
                self._secured = True
        self._run()
        if self._heard_too_much:
            self._give_up(TOO_LONG)

    def _run(self) -> None:
        try:
            next(self._steps)
        except ProtocolError as error:
            self._give_up(f"the mail server's reply cannot be read: {error}")
        except Broken as broken:
            self._give_up(str(broken))

    def _give_up(self, reason: str) -> None:
        if not self._over:
            self._emit(ev.Hangup(reason))
        self._over = True

    def _prepare(self) -> Steps[None]:
        yield from self._open()
        assert self._capabilities is not None
        self._emit(ev.Ready(self._capabilities))
        yield from self._until(lambda: len(self._server) > 0)
        said = one_line(self._server.starts(SHOWN).decode("utf-8", "replace"))
        raise Broken(f"the mail server said, unasked: {said}")


class ImapOpening(ImapServer, Opening):
    """IMAP."""


class Pop3Opening(Pop3Server, Opening):
    """POP3."""


class SmtpOpening(SmtpServer, Opening):
    """SMTP."""


OPENINGS: dict[str, type[Opening]] = {"IMAP": ImapOpening, "POP": Pop3Opening, "SMTP": SmtpOpening}
