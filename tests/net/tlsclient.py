"""A TLS client that decides what goes into a segment."""

from __future__ import annotations

import socket
import ssl


def eager_login(sock: socket.socket, context: ssl.SSLContext, first: bytes, login: bytes, cut: int | None) -> bytes:
    """Sends `first` and the ClientHello in one segment, or only so much of it; and `login` in one segment with the end
    of the handshake. Returns what it hears until the login goes through."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    sock.settimeout(20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hello = first
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            hello += outgoing.read()
            sock.sendall(hello[: len(first) + cut] if cut is not None else hello)
            sock.sendall(hello[len(first) + cut :] if cut is not None else b"")
            hello, first, cut = b"", b"", None
            incoming.write(sock.recv(65536))
    tls.write(login)
    sock.sendall(outgoing.read())
    heard = b""
    while b"OK in\r\n" not in heard:
        try:
            heard += tls.read(1024)
        except ssl.SSLWantReadError:
            incoming.write(sock.recv(65536))
    return heard
