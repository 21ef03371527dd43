"""A nursery and its workers, which do nothing, in a process of its own: there may be no thread where one is forked."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import NoReturn

from emailproxy.workers import nursery
from emailproxy.workers.nursery import Nursery, NurseryGone, in_words


def work(end: socket.socket, _texts: socket.socket) -> NoReturn:
    """Says which process it is, and waits for the end of whoever asked for it."""
    end.sendall(str(os.getpid()).encode())
    end.recv(1)
    os._exit(0)


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def main() -> None:
    loop = asyncio.get_running_loop()
    tended = Nursery(work, lambda: None)
    tended.watch()
    (lost, lost_end), (end, its_end), (left, left_end) = pair(), pair(), pair()

    nobodys = asyncio.create_task(tended.fork(lost_end, lost_end))
    await asyncio.sleep(0)
    nobodys.cancel()
    pid = await tended.fork(its_end, its_end)
    assert pid == int(await loop.sock_recv(end, 9)), "that is the answer to the one before"
    lost_end.close()
    assert int(await loop.sock_recv(lost, 9)) != pid
    assert await loop.sock_recv(lost, 9) == b"", "a worker that nobody wants lives on"
    os.kill(pid, signal.SIGSTOP)
    assert in_words(await tended.end_of(pid)) == "SIGKILL"

    pid = await tended.fork(left_end, left_end)
    nursery.ANSWER_S = 0.1
    os.kill(tended._pid, signal.SIGSTOP)
    hung = asyncio.gather(tended.fork(its_end, its_end), tended.end_of(pid), return_exceptions=True)
    assert [type(error) for error in await hung] == [NurseryGone] * 2
    await tended.close()

    nursery.CLOSE_S, nursery.ANSWER_S = 0, 20
    another = Nursery(work, lambda: None)
    another.watch()
    last, last_end = pair()
    await another.fork(last_end, last_end)
    last_end.close()
    await loop.sock_recv(last, 9)
    await another.close()
    assert await loop.sock_recv(last, 9) == b"", "it lives on"
    left.close()  # its process outlives the nursery that was killed, and ends now


asyncio.run(asyncio.wait_for(main(), 20))
