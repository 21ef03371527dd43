"""Coverage-guided fuzzing of whatever reads octets that strangers send: `scripts/fuzz` runs it, by atheris.

Each target takes octets and may raise only what it documents; everything else, a failed check of ours included, is a
finding: atheris writes the octets to a file and ends with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["emailproxy"]):
    from emailproxy.config import importing, ini
    from emailproxy.errors import ConfigError, ProtocolError, StateError
    from emailproxy.oauth import web
    from emailproxy.oauth.callback import Callback
    from emailproxy.store import codec
    from emailproxy.wire import events as ev
    from emailproxy.wire import proxyprotocol

from tests.fuzz.test_dialogues import (
    ANY_TIME,
    CLIENT,
    EITHER,
    HONEST,
    LAST,
    SERVER,
    STRANGERS,
    Checked,
)
from tests.fuzz.test_local_side import MAIL, PRINTER, TLS, LocalSide
from tests.wire.driver import LOGIN, REMEMBERED

MOST_ACTIONS = 40
CHUNKS = (1, 2, 3, 7, 10**6)
PLACE = Path("/nowhere/emailproxy.ini")


def dialogue(protocol: str, octets: bytes) -> None:
    """Both sides of a login dialogue, and every event at any time."""
    data = atheris.FuzzedDataProvider(octets)
    pick = data.PickValueInList
    seen = pick([None, REMEMBERED[protocol]])
    options: dict[str, object] = {
        "verdicts": [pick(["yes", "no", "later"]) for _ in range(data.ConsumeIntInRange(0, 4))],
        "mechanisms": pick([["XOAUTH2"], ["OAUTHBEARER"], ["PLAIN"]]),
        "extras": pick([[], ["SASL-IR"]]),
    }
    if data.ConsumeBool():
        checked = Checked(protocol, ev.Terms(starttls=data.ConsumeBool(), seen=seen), options)
    else:
        printer, tls = pick(["", PRINTER]), pick(list(ev.LocalTls))
        terms = ev.Terms(routed=data.ConsumeBool(), seen=seen, local_tls=tls, login_as=printer)
        checked = LocalSide(protocol, terms, options)
    checked.feed(ev.ClientConnected())
    chunk = pick(list(CHUNKS))
    client = [*CLIENT[protocol], *EITHER, *STRANGERS, LOGIN[protocol], TLS[protocol], MAIL]
    server = [*SERVER[protocol], *EITHER]
    for _ in range(data.ConsumeIntInRange(0, MOST_ACTIONS)):
        if checked.over:
            return
        match data.ConsumeIntInRange(0, 7):
            case 0 | 1 | 2:
                checked.act(HONEST, chunk)
            case 3:
                checked.act(ev.ClientData(pick(client)), chunk)
            case 4:
                checked.act(ev.ServerData(pick(server)), chunk)
            case 5:
                checked.act(ev.ClientData(data.ConsumeBytes(data.ConsumeIntInRange(0, 200))), chunk)
            case 6:
                checked.act(ev.ServerData(data.ConsumeBytes(data.ConsumeIntInRange(0, 200))), chunk)
            case _:
                checked.act(pick([*ANY_TIME, *LAST]), chunk)


def proxy_header(octets: bytes) -> None:
    """The PROXY protocol's header, in any split."""
    header = proxyprotocol.Header()
    step = 1 + octets[0] % 16 if octets else 1
    try:
        for start in range(0, len(octets), step):
            if header.feed(octets[start : start + step]) is not None:
                return
    except ProtocolError:
        return


def configuration(octets: bytes) -> None:
    """The INI reader, by the way of a reload: from octets to a model."""
    with contextlib.suppress(ConfigError):
        ini.loads(octets.decode("utf-8", "surrogateescape"), PLACE)


def state_file(octets: bytes) -> None:
    """Records and pending consents, as whoever can write the folder could leave them."""
    for parse in (codec.parse_record, codec.parse_pending):
        with contextlib.suppress(StateError):
            parse(octets)


def token_file(octets: bytes) -> None:
    """Other programs' files, as `emailproxy import` is given them."""
    importing.read(octets, "file")


class Nobody:
    """No consent waits: whatever a request says, it finds none."""

    async def find(self, state: object) -> None:
        return None


class Redirect:
    """The redirect listener's HTTP server, from octets on a connection to its reply."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self._make())

    async def _make(self) -> web.Server:
        return web.Server(Callback(Nobody()).answer, header_s=10)  # type: ignore[arg-type]

    def __call__(self, octets: bytes) -> None:
        self._loop.run_until_complete(self._ask(octets))

    async def _ask(self, octets: bytes) -> None:
        replied = bytearray()
        transport = Transport(replied)
        handler = self._server()
        handler.connection_made(transport)
        handler.data_received(octets)
        handler.eof_received()
        for _ in range(20):
            if transport.is_closing():
                break
            await asyncio.sleep(0)
        handler.connection_lost(None)
        await asyncio.sleep(0)
        assert not replied or replied.startswith(b"HTTP/1."), bytes(replied)
        assert b" 200 " not in replied.partition(b"\r\n")[0], "nobody signs in without a state"
        assert b"Access-Control-" not in replied


class Transport(asyncio.Transport):
    """One end of a connection that nobody else has."""

    def __init__(self, replied: bytearray) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._replied = replied
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._replied += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""


def target(name: str) -> Callable[[bytes], None]:
    targets: dict[str, Callable[[bytes], None]] = {
        "imap": lambda octets: dialogue("IMAP", octets),
        "pop3": lambda octets: dialogue("POP3", octets),
        "smtp": lambda octets: dialogue("SMTP", octets),
        "proxy": proxy_header,
        "configuration": configuration,
        "state": state_file,
        "import": token_file,
    }
    return Redirect() if name == "redirect" else targets[name]


def main() -> None:
    """``guided.py TARGET [OPTIONS OF LIBFUZZER]``."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, target(name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
