"""The embedded POP3 server (RFC 1939, 2449, 5034): logs in with XOAUTH2 and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from emailproxy.demo.mailbox import Folder, Message
from emailproxy.demo.server import CHALLENGE, Conversation, LineServer, credentials, decoded
from emailproxy.errors import ProtocolError

BEFORE_LOGIN = ("CAPA", "AUTH", "USER", "PASS", "QUIT")
AFTER_LOGIN = ("CAPA", "STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET", "NOOP", "QUIT")


class Pop3Conversation(Conversation):
    """One POP3 session. Message numbers are fixed at login; deletions happen at QUIT."""

    _folder: Folder | None = None
    _messages: list[Message]
    _deleted: set[Message]
    _over = False

    async def converse(self) -> None:
        await self.send("+OK the embedded mailbox is ready")
        while not self._over:
            command, *arguments = (await self.read_line()).decode("utf-8", "replace").split(" ")
            name = command.upper()
            if name not in (BEFORE_LOGIN if self._folder is None else AFTER_LOGIN):
                await self.send("-ERR no such command at this point")
                continue
            action: Callable[[list[str]], Awaitable[None]] = getattr(self, f"_{name.lower()}")
            try:
                await action(arguments)
            except ProtocolError as error:
                await self.send(f"-ERR {error}")

    async def _capa(self, _: list[str]) -> None:
        await self.send("+OK", "SASL XOAUTH2", "TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", ".")

    async def _auth(self, arguments: list[str]) -> None:
        if not arguments:
            await self.send("+OK", "XOAUTH2", ".")
            return
        if arguments[0].upper() != "XOAUTH2":
            raise ProtocolError("this mechanism is not offered")
        if len(arguments) > 1:
            response = arguments[1].encode()
        else:
            await self.send("+ ")
            response = await self.read_line()
        user, token = credentials(decoded(response))
        if self.opens(user, token):
            self._folder = self.server.mailboxes.of(user).inbox
            self._messages = list(self._folder.messages)
            self._deleted = set()
            await self.send(f"+OK {len(self._messages)} messages")
            return
        await self.send(f"+ {CHALLENGE}")
        await self.read_line()
        raise ProtocolError("[AUTH] the access token is not accepted")

    async def _user(self, _: list[str]) -> None:
        raise ProtocolError("[AUTH] passwords are not accepted here, use AUTH XOAUTH2")

    _pass = _user

    async def _stat(self, _: list[str]) -> None:
        left = [message for _, message in self._left()]
        await self.send(f"+OK {len(left)} {sum(len(message.raw) for message in left)}")

    async def _list(self, arguments: list[str]) -> None:
        await self._listing(arguments, lambda message: len(message.raw))

    async def _uidl(self, arguments: list[str]) -> None:
        await self._listing(arguments, lambda message: message.uid)

    async def _listing(self, arguments: list[str], figure: Callable[[Message], int]) -> None:
        if arguments:
            await self.send(f"+OK {arguments[0]} {figure(self._message(arguments))}")
            return
        listed = [f"{number} {figure(message)}" for number, message in self._left()]
        await self.send(f"+OK {len(listed)} messages", *listed, ".")

    async def _retr(self, arguments: list[str]) -> None:
        message = self._message(arguments)
        await self.send(f"+OK {len(message.raw)} octets", *dot_stuffed(message.raw), ".")

    async def _top(self, arguments: list[str]) -> None:
        header, _, body = self._message(arguments).raw.partition(b"\r\n\r\n")
        if len(arguments) < 2 or not arguments[1].isdecimal():
            raise ProtocolError("TOP takes a message number and a number of lines")
        lines = body.split(b"\r\n")[: int(arguments[1])]
        await self.send("+OK", *dot_stuffed(header), "", *dot_stuffed(b"\r\n".join(lines)), ".")

    async def _dele(self, arguments: list[str]) -> None:
        self._deleted.add(self._message(arguments))
        await self.send("+OK marked")

    async def _rset(self, _: list[str]) -> None:
        self._deleted.clear()
        await self.send("+OK nothing is marked")

    async def _noop(self, _: list[str]) -> None:
        await self.send("+OK")

    async def _quit(self, _: list[str]) -> None:
        if self._folder is not None:
            self._folder.remove(self._deleted)
        self._over = True
        await self.send("+OK goodbye")

    def _left(self) -> list[tuple[int, Message]]:
        return [(number, message) for number, message in enumerate(self._messages, 1) if message not in self._deleted]

    def _message(self, arguments: list[str]) -> Message:
        wanted = arguments[0] if arguments else ""
        for number, message in self._left():
            if str(number) == wanted:
                return message
        raise ProtocolError("no such message")


class Pop3Server(LineServer):
    protocol = "POP"
    conversation: ClassVar[type[Conversation]] = Pop3Conversation


def dot_stuffed(raw: bytes) -> list[bytes]:
    """The lines of a message as RFC 1939 section 3 sends them."""
    lines = raw.removesuffix(b"\r\n").split(b"\r\n")
    return [b"." + line if line.startswith(b".") else line for line in lines]
