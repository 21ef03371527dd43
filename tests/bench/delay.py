"""A line with a round trip: a TCP relay that passes everything on some time later, in a process of its own.

A connect to it returns at once, unlike over a real line. So it dials the server one and a half round trips after it
has accepted, which is when a server at the far end of such a line would see the connection; whoever measures from the
connect on counts the round trip of TCP with it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection

SPAWN = multiprocessing.get_context("spawn")  # a fork would share the measuring process's loop
CHUNK = 256 * 1024


@asynccontextmanager
async def delayed(port: int, delay_s: float) -> AsyncIterator[int]:
    """The port of a line to loopback's `port` that takes `delay_s` each way: half a round trip."""
    theirs, ours = SPAWN.Pipe()
    line = SPAWN.Process(target=_main, args=(port, delay_s, theirs), daemon=True)
    line.start()
    theirs.close()  # so that a line that fails ends the wait for it
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        line.terminate()
        await asyncio.to_thread(line.join)
        ours.close()


def _main(port: int, delay_s: float, told: Connection) -> None:
    asyncio.run(_serve(port, delay_s, told))


async def _serve(port: int, delay_s: float, told: Connection) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upwards = _Way(reader, delay_s)  # it is on its way while the server is dialled
        with suppress(OSError):
            _send_at_once(writer)
            await asyncio.sleep(3 * delay_s)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)
            _send_at_once(far_writer)
            await asyncio.gather(upwards.lead_to(far_writer), _Way(far_reader, delay_s).lead_to(writer))
            far_writer.close()
        upwards.close()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, limit=CHUNK, backlog=1024) as listening:
        told.send(listening.sockets[0].getsockname()[1])
        await listening.serve_forever()


def _send_at_once(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Way:
    """One direction: what arrives leaves after the delay, in order, however much is on the line by then."""

    def __init__(self, reader: asyncio.StreamReader, delay_s: float) -> None:
        self._reader = reader
        self._delay_s = delay_s
        self._line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._arriving = asyncio.create_task(self._arrive())

    def close(self) -> None:
        self._arriving.cancel()

    async def lead_to(self, writer: asyncio.StreamWriter) -> None:
        """Up to the end of the stream."""
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await self._line.get()
            await asyncio.sleep(due_s - loop.time())
            if not data:
                break
            writer.write(data)
        with suppress(OSError):
            writer.write_eof()

    async def _arrive(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"*"
        while data:
            try:
                data = await self._reader.read(CHUNK)
            except OSError:
                data = b""
            self._line.put_nowait((loop.time() + self._delay_s, data))
