"""TLS over a connection that stands, on either side of it: records below, octets above.

In place of the event loops' own. With theirs, a connection that has once carried a large message keeps half a megabyte
of buffers for as long as it stands. Here all connections read into one buffer, and OpenSSL's hold a record or two.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import Any, cast

READ = 256 * 1024  # octets of one read from the network: as many as a fast line has brought meanwhile
RECORD = 16 * 1024  # RFC 8446 section 5.1: the most octets in a record; what OpenSSL is given at once
CERTAINLY_WHOLE = RECORD + 512  # what waits beyond so many octets begins with a whole record, whatever the cipher
BULK = 64 * 1024  # octets from the peer in a row: by then it is a transfer
VAIN = 1024 * 1024  # octets without another try, where it brought nothing to let them gather
MOST_UNANSWERED = 1024 * 1024  # octets unsent: more than any relay lets wait, so the peer asks TLS and never listens
GATHER_S = 0.001
FAIR = 256 * 1024  # octets from one peer before others have their turn: libuv would go on for two megabytes
READ_INTO = bytearray(READ)
"""Of all connections: the event loop fills it and calls `buffer_updated` at once, which leaves nothing in it."""
HAVE_READ = memoryview(READ_INTO)

NOBODY = asyncio.Protocol()

log = logging.getLogger("emailproxy.net")


async def start_tls(
    below: asyncio.Transport,
    above: asyncio.Protocol,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
    handshake_timeout_s: float,
) -> TlsTransport:
    """The handshake, over this connection; then the protocol above has octets of TLS. It hears nothing before.

    Raises:
        OSError: there is no TLS: `ssl.SSLError`, TimeoutError, or ConnectionError if the peer left; the connection is
            cut.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
    transport = TlsTransport(below, above, tls, incoming, outgoing)
    below.pause_reading()
    below.set_protocol(transport)
    try:
        async with asyncio.timeout(handshake_timeout_s):
            await transport.shake_hands()
    except BaseException:
        transport.abort()
        raise
    return transport


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """A transport for the protocol above; for the one below it is the protocol.

    TLS has no half-close here: whoever ends it first has the other end follow.
    """

    __slots__ = (
        "_above",
        "_below",
        "_closing",
        "_gathering",
        "_in_a_row",
        "_incoming",
        "_outgoing",
        "_paused",
        "_peer_ended",
        "_shaking",
        "_tls",
        "_up",
    )

    def __init__(
        self,
        below: asyncio.Transport,
        above: asyncio.BaseProtocol,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self._below = below
        self._above = cast("asyncio.Protocol", above)
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._shaking: asyncio.Future[None] | None = None
        self._up = False
        self._peer_ended = False
        self._paused = False
        self._in_a_row = 0
        self._gathering = False
        self._closing = False

    # ---- the handshake

    async def shake_hands(self) -> None:
        """What comes behind it waits until the caller has gone on."""
        loop = asyncio.get_running_loop()
        self._shaking = loop.create_future()
        if not self._below.is_closing():
            self._go_on_shaking()
            loop.call_soon(self._below.resume_reading)
        else:
            self._fail(ConnectionResetError())
        await self._shaking

    def _go_on_shaking(self) -> None:
        assert self._shaking is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._flush()
            self._up = True
            self._shaking.set_result(None)
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._shaking = None
        if not self._paused:
            self._take_up([])

    # ---- for the connection below

    def get_buffer(self, sizehint: int) -> bytearray:
        return READ_INTO

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes > RECORD or self._paused or self._closing or not self._up or self._shaking is not None:
            goes_on = self._take(nbytes)
        else:
            goes_on = self._take_one(nbytes)
        if goes_on:
            self._in_a_row += nbytes
            if self._in_a_row > BULK:
                self._go_on_with_transfer(nbytes)

    def _take_one(self, nbytes: int) -> bool:
        """One record, most likely: a command, or a reply. Returns whether that is all there was."""
        self._incoming.write(HAVE_READ[:nbytes])
        try:
            data = self._tls.read(RECORD)
        except ssl.SSLError as error:
            self._stop_decrypting(error)
        else:
            if data:
                self._above.data_received(data)
                if not (self._incoming.pending or self._outgoing.pending):
                    return True
            else:
                self._peer_ended = True
        if not self._paused:
            self._take_up([])
        return False

    def _take(self, nbytes: int) -> bool:
        """Any number of them, at any time. Returns whether they are no handshake's, and nobody has paused."""
        if self._closing and not self._up:
            return False
        plain: list[bytes] = []
        for start in range(0, nbytes, RECORD):
            self._incoming.write(HAVE_READ[start : min(start + RECORD, nbytes)])
            if not self._up:
                self._go_on_shaking()
            elif self._shaking is None and not self._paused:
                self._decrypt(plain, CERTAINLY_WHOLE)
        if self._shaking is not None or self._paused:
            return False
        self._take_up(plain)
        return True

    def _go_on_with_transfer(self, nbytes: int) -> None:
        """The peer sends much, and we say nothing. Where it comes in small pieces it is left alone for a moment: what
        has gathered then costs what one piece does. Where that brings no more, the network is what takes its time."""
        if nbytes < RECORD and not self._gathering and not self.is_closing():
            self._gathering = True
            self._below.pause_reading()
            asyncio.get_running_loop().call_later(GATHER_S, self._go_on_reading)
        elif nbytes == READ and self._in_a_row > BULK + FAIR and not self.is_closing():
            self._in_a_row = BULK
            self._below.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on_reading)
        elif self._gathering:
            self._gathering = False
            self._in_a_row = BULK if nbytes >= RECORD else -VAIN

    def _go_on_reading(self) -> None:
        if not self._paused and not self._below.is_closing():
            self._below.resume_reading()

    def _take_up(self, plain: list[bytes]) -> None:
        self._decrypt(plain, 0)
        if plain:
            self._above.data_received(plain[0] if len(plain) == 1 else b"".join(plain))
        if self._peer_ended:
            self._end_with_peer()

    def _decrypt(self, plain: list[bytes], leaving: int) -> None:
        """So many octets may stay for the next time: to try a record of which a part is missing costs an exception."""
        incoming, tls = self._incoming, self._tls
        try:
            while (waiting := incoming.pending or tls.pending()) > leaving:
                data = tls.read(min(waiting, RECORD))
                if not data:
                    raise ssl.SSLZeroReturnError
                if not self._closing:
                    plain.append(data)
        except ssl.SSLError as error:
            self._stop_decrypting(error)
        if self._outgoing.pending:  # an answer of TLS itself (RFC 8446 section 4.6.3)
            self._flush()
            if self._below.get_write_buffer_size() > MOST_UNANSWERED:
                self._fail(ConnectionAbortedError("the peer asks for new keys, and takes no answer"))

    def _stop_decrypting(self, reason: ssl.SSLError) -> None:
        match reason:
            case ssl.SSLWantReadError():
                pass  # of the next record, only a part has come
            case ssl.SSLZeroReturnError():
                self._peer_ended = True
            case _:
                self._fail(reason)

    def eof_received(self) -> bool:
        """The peer cut the stream; without its close_notify this is no end that the protocol above hears of first."""
        if not self._up:
            self._fail(ConnectionResetError())
        elif not self._closing:
            self._say_goodbye()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        above, self._above = self._above, NOBODY  # so that whatever knows of this connection is freed at once
        if self._up:
            above.connection_lost(exc)
        elif self._shaking is not None and not self._shaking.done():
            self._shaking.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """During the handshake, too: the pause may be older than it."""
        self._above.resume_writing()

    # ---- for the protocol above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def pause_reading(self) -> None:
        """Both: what has been read already, and the connection below."""
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """What has been read already comes first."""
        if self._paused:
            self._paused = False
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if not self._paused:
            self._take_up([])
        if not self._paused and not self._below.is_closing():
            self._below.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._closing or self._below.is_closing():
            return
        self._in_a_row = 0
        try:
            if len(data) <= RECORD:
                self._tls.write(data)
                self._below.write(self._outgoing.read())
            else:
                records = self._records(memoryview(data))
                last = records.pop()
                self._below.writelines(records)
                self._below.write(last)  # CPython's loop, since 3.12, asks for a pause only after this one
        except ssl.SSLError as error:
            self._fail(error)

    def _records(self, data: memoryview) -> list[bytes]:
        records, start = [], 0
        while start < len(data):
            start += self._tls.write(data[start : start + RECORD])
            records.append(self._outgoing.read())
        return records

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Octets that wait for the peer, as records."""
        return self._below.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """Sends what is written and close_notify, and waits for the peer's; what it still says is dropped. To end the
        stream below right away would be allowed, but there are peers that lose what they have not read by then."""
        if not self._closing:
            self._say_goodbye()
            self._paused = False
            asyncio.get_running_loop().call_soon(self._resume)

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    # ---- endings

    def _end_with_peer(self) -> None:
        """Its close_notify came; ours answers it, if it is not an answer itself (RFC 8446 section 6.1)."""
        if not self._closing:
            self._above.eof_received()
        if not self._closing:
            self._say_goodbye()
        self._below.close()

    def _say_goodbye(self) -> None:
        self._closing = True
        self._decrypt([], 0)  # for OpenSSL, octets that it finds behind our close_notify are an error that ends all
        with suppress(ssl.SSLError):  # the peer's is missing: that is not waited for
            self._tls.unwrap()
        self._flush()

    def _fail(self, error: OSError) -> None:
        """The alert that says why is on its way, if there is one."""
        self._flush()
        if self._up:
            log.debug("a connection is cut: %s", error)
            self.abort()
        elif self._shaking is not None and not self._shaking.done():
            self._shaking.set_exception(error)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._below.is_closing():
            self._below.write(data)
