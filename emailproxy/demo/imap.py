"""The embedded IMAP4rev1 server (RFC 3501): logs in with XOAUTH2 and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar

from emailproxy.demo.imap_fetch import fetched, flag_list, items, sees
from emailproxy.demo.imap_grammar import LITERAL, Argument, in_set, parse, string, text, words
from emailproxy.demo.imap_search import matching
from emailproxy.demo.mailbox import Folder, Mailbox, Message
from emailproxy.demo.server import CHALLENGE, Conversation, LineServer, credentials, decoded
from emailproxy.errors import ProtocolError

BEFORE_LOGIN = "IMAP4rev1 SASL-IR LITERAL+ ID AUTH=XOAUTH2 LOGINDISABLED"
AFTER_LOGIN = "IMAP4rev1 LITERAL+ ID IDLE NAMESPACE UNSELECT"
MAX_LITERAL = 256 * 1024 * 1024
"""Octets of an appended message: more than any provider takes."""
MAX_LITERAL_BEFORE_LOGIN = 4096
FLAGS = r"(\Answered \Flagged \Deleted \Seen \Draft)"

ANY_STATE = frozenset({"CAPABILITY", "NOOP", "LOGOUT", "ID"})
NOT_LOGGED_IN = ANY_STATE | {"AUTHENTICATE", "LOGIN"}
LOGGED_IN = ANY_STATE | {
    *("SELECT", "EXAMINE", "CREATE", "SUBSCRIBE", "UNSUBSCRIBE"),
    *("LIST", "LSUB", "STATUS", "APPEND", "NAMESPACE", "IDLE"),
}
SELECTED = LOGGED_IN | {
    *("CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH", "FETCH", "STORE", "COPY", "UID"),
}
BY_UID = frozenset({"SEARCH", "FETCH", "STORE", "COPY"})
KEEPS_NUMBERS = frozenset({"FETCH", "STORE", "SEARCH"})
"""Commands during which no EXPUNGE may be sent (RFC 3501 section 7.4.1), unless by UID."""


class Refusal(Exception):
    """The tagged NO of one command."""


class ImapConversation(Conversation):
    """One IMAP session."""

    _mailbox: Mailbox | None = None
    _folder: Folder | None = None
    _read_only = False
    _over = False

    def __init__(self, server: LineServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(server, reader, writer)
        self._view: list[Message] = []
        """The selected folder by sequence numbers, as far as the client has been told."""

    # ---- commands and their completion

    async def converse(self) -> None:
        await self.send(f"* OK [CAPABILITY {BEFORE_LOGIN}] the embedded mailbox is ready")
        while not self._over:
            line = await self.read_line()
            tag = line.split(b" ", 1)[0].decode("ascii", "replace") or "*"
            try:
                name, arguments = await self._command(line)
                done = await self._perform(name, arguments)
            except Refusal as refusal:
                done = f"NO {refusal}"
            except ProtocolError as error:
                done = f"BAD {error}"
            await self.send(f"{tag} {done}")

    async def _command(self, line: bytes) -> tuple[str, list[Argument]]:
        """A whole command's name and arguments, its literals fetched."""
        pieces = [line]
        limit = MAX_LITERAL if self._mailbox else MAX_LITERAL_BEFORE_LOGIN
        while found := LITERAL.search(pieces[-1]):
            size = int(found[1])
            if size > limit:
                self._over = True
                raise ProtocolError("the literal is too long")
            if not found[2]:
                await self.send("+ go ahead")
            pieces[-1] = pieces[-1][: found.start()]
            pieces += [await self.read_octets(size), await self.read_line()]
        _, *rest = parse(pieces) or [""]
        if not rest:
            raise ProtocolError("a command has a tag and a name")
        return text(rest[0]).upper(), rest[1:]

    async def _perform(self, name: str, arguments: list[Argument]) -> str:
        allowed = SELECTED if self._folder else LOGGED_IN if self._mailbox else NOT_LOGGED_IN
        if name not in allowed:
            raise ProtocolError("no such command at this point")
        by_uid = name == "UID"
        if by_uid:
            name, arguments = text(_first(arguments)).upper(), arguments[1:]
            if name not in BY_UID:
                raise ProtocolError("no such command by UID")
        if name in BY_UID:
            action: Callable[..., Awaitable[str | None]] = getattr(self, f"_{name.lower()}")
            said = await action(arguments, by_uid)
        else:
            action = getattr(self, f"_{name.lower()}")
            said = await action(arguments)
        await self._tell_changes(expunged=by_uid or name not in KEEPS_NUMBERS)
        return f"OK {said or f'{name} completed'}"

    async def _tell_changes(self, *, expunged: bool) -> None:
        """Untagged EXPUNGE and EXISTS for what others did to the selected folder."""
        if self._folder is None:
            return
        present = set(self._folder.messages)
        if expunged:
            for number in range(len(self._view), 0, -1):
                if self._view[number - 1] not in present:
                    del self._view[number - 1]
                    await self.send(f"* {number} EXPUNGE")
        known = set(self._view)
        new = [message for message in self._folder.messages if message not in known]
        if new:
            self._view += new
            await self.send(f"* {len(self._view)} EXISTS")

    # ---- any state

    async def _capability(self, _: list[Argument]) -> None:
        await self.send(f"* CAPABILITY {AFTER_LOGIN if self._mailbox else BEFORE_LOGIN}")

    async def _noop(self, _: list[Argument]) -> None:
        """Untagged changes follow every command anyway."""

    _check = _noop

    async def _id(self, _: list[Argument]) -> None:
        await self.send('* ID ("name" "emailproxy demo")')

    async def _logout(self, _: list[Argument]) -> None:
        self._over = True
        self._folder = None
        await self.send("* BYE goodbye")

    # ---- the login

    async def _login(self, _: list[Argument]) -> None:
        raise Refusal("[PRIVACYREQUIRED] passwords are not accepted here, use AUTHENTICATE XOAUTH2")

    async def _authenticate(self, arguments: list[Argument]) -> str:
        mechanism, *initial_response = words(arguments) or [""]
        if mechanism.upper() != "XOAUTH2":
            raise Refusal("[CANNOT] this mechanism is not offered")
        if initial_response:
            response = initial_response[0].encode()
        else:
            response = await self._continue("")
        user, token = credentials(decoded(response))
        if self.opens(user, token):
            self._mailbox = self.server.mailboxes.of(user)
            return f"[CAPABILITY {AFTER_LOGIN}] logged in"
        await self._continue(CHALLENGE)
        raise Refusal("[AUTHENTICATIONFAILED] the access token is not accepted")

    async def _continue(self, challenge: str) -> bytes:
        await self.send(f"+ {challenge}")
        response = await self.read_line()
        if response == b"*":
            raise ProtocolError("the authentication was cancelled")
        return response

    # ---- logged in

    async def _select(self, arguments: list[Argument], *, read_only: bool = False) -> str:
        self._folder = None
        folder = self._existing(_first(arguments))
        self._folder, self._read_only, self._view = folder, read_only, list(folder.messages)
        unseen = [number for number, message in enumerate(self._view, 1) if r"\Seen" not in message.flags]
        await self.send(
            f"* FLAGS {FLAGS}",
            f"* OK [PERMANENTFLAGS {'()' if read_only else FLAGS}] flags",
            f"* {len(self._view)} EXISTS",
            "* 0 RECENT",
            *([f"* OK [UNSEEN {unseen[0]}] first unseen"] if unseen else []),
            f"* OK [UIDVALIDITY {folder.uid_validity}] UIDs are valid",
            f"* OK [UIDNEXT {folder.uid_next}] next UID",
        )
        return f"[{'READ-ONLY' if read_only else 'READ-WRITE'}] selected"

    async def _examine(self, arguments: list[Argument]) -> str:
        return await self._select(arguments, read_only=True)

    async def _create(self, arguments: list[Argument]) -> None:
        self._own.create(text(_first(arguments)).rstrip("/"))

    async def _subscribe(self, arguments: list[Argument]) -> None:
        self._existing(_first(arguments))

    _unsubscribe = _subscribe

    async def _list(self, arguments: list[Argument]) -> None:
        await self._listing("LIST", arguments)

    async def _lsub(self, arguments: list[Argument]) -> None:
        await self._listing("LSUB", arguments)

    async def _listing(self, name: str, arguments: list[Argument]) -> None:
        if len(arguments) != 2:
            raise ProtocolError(f"{name} takes a reference and a pattern")
        pattern = text(arguments[0]) + text(arguments[1])
        if not pattern:
            await self.send(rf'* {name} (\Noselect) "/" ""')
            return
        wildcards = re.escape(pattern).replace(r"\*", ".*").replace("%", "[^/]*")
        for folder in self._own.folders:
            if re.fullmatch(wildcards, folder, re.IGNORECASE if folder == "INBOX" else re.NOFLAG):
                await self.send(b"* %s () %s %s" % (name.encode(), string("/"), string(folder)))

    async def _status(self, arguments: list[Argument]) -> None:
        folder = self._existing(_first(arguments))
        figures = {
            "MESSAGES": len(folder.messages),
            "RECENT": 0,
            "UIDNEXT": folder.uid_next,
            "UIDVALIDITY": folder.uid_validity,
            "UNSEEN": sum(r"\Seen" not in message.flags for message in folder.messages),
        }
        asked = [name.upper() for name in words(arguments[1])] if len(arguments) > 1 else []
        if not asked or not set(asked) <= figures.keys():
            raise ProtocolError("STATUS takes a mailbox and a list of items")
        listed = " ".join(f"{name} {figures[name]}" for name in asked).encode()
        await self.send(b"* STATUS %s (%s)" % (string(folder.name), listed))

    async def _append(self, arguments: list[Argument]) -> None:
        folder = self._existing(_first(arguments), "[TRYCREATE] ")
        message = arguments[-1]
        if not isinstance(message, bytes):
            raise ProtocolError("APPEND ends with a literal")
        flags = [words(argument) for argument in arguments[1:-1] if isinstance(argument, list)]
        folder.append(message, flags[0] if flags else ())

    async def _namespace(self, _: list[Argument]) -> None:
        await self.send('* NAMESPACE (("" "/")) NIL NIL')

    async def _idle(self, _: list[Argument]) -> None:
        """RFC 2177: tells of changes until the client says DONE."""
        await self.send("+ idling")
        done = asyncio.ensure_future(self.read_line())
        try:
            with (self._folder or self._own.inbox).watch() as changed:
                while not done.done():
                    waiting = asyncio.ensure_future(changed.wait())
                    await asyncio.wait((done, waiting), return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    changed.clear()
                    await self._tell_changes(expunged=True)
        finally:
            done.cancel()
        if done.result().upper() != b"DONE":
            raise ProtocolError("IDLE ends with DONE")

    # ---- selected

    async def _close(self, _: list[Argument]) -> None:
        if not self._read_only:
            self._opened.remove(self._marked())
        self._folder = None

    async def _unselect(self, _: list[Argument]) -> None:
        self._folder = None

    async def _expunge(self, _: list[Argument]) -> None:
        self._writable()
        self._opened.remove(self._marked())

    async def _search(self, arguments: list[Argument], by_uid: bool) -> None:
        numbered = list(enumerate(self._view, 1))
        found = matching(arguments, numbered)
        listed = [message.uid if by_uid else number for number, message in numbered if message in found]
        await self.send(" ".join(["* SEARCH", *map(str, listed)]))

    async def _fetch(self, arguments: list[Argument], by_uid: bool) -> None:
        if len(arguments) != 2:
            raise ProtocolError("FETCH takes a sequence set and items")
        asked = items(words(arguments[1]))
        if by_uid and "UID" not in [name.upper() for name in asked]:
            asked = ["UID", *asked]
        for number, message in self._chosen(arguments, by_uid):
            newly_seen = sees(asked) and not self._read_only and r"\Seen" not in message.flags
            if newly_seen:
                message.flags.add(r"\Seen")
            told = [*asked, "FLAGS"] if newly_seen and "FLAGS" not in map(str.upper, asked) else asked
            await self.send(b"* %d FETCH %s" % (number, fetched(message, told)))

    async def _store(self, arguments: list[Argument], by_uid: bool) -> None:
        self._writable()
        if len(arguments) < 3:
            raise ProtocolError("STORE takes a sequence set, an item and flags")
        item = text(arguments[1]).upper()
        change = STORE_ITEMS.get(item.removesuffix(".SILENT"))
        if change is None:
            raise ProtocolError("STORE takes FLAGS, +FLAGS or -FLAGS")
        flags = {flag for argument in arguments[2:] for flag in words(argument)}
        for number, message in self._chosen(arguments, by_uid):
            message.flags = change(message.flags, flags)
            if not item.endswith(".SILENT"):
                uid = b"UID %d " % message.uid if by_uid else b""
                await self.send(b"* %d FETCH (%sFLAGS %s)" % (number, uid, flag_list(message)))

    async def _copy(self, arguments: list[Argument], by_uid: bool) -> None:
        if len(arguments) != 2:
            raise ProtocolError("COPY takes a sequence set and a mailbox")
        target = self._existing(arguments[1], "[TRYCREATE] ")
        for _, message in list(self._chosen(arguments, by_uid)):
            target.append(message.raw, message.flags, message.received)

    # ---- small things

    @property
    def _own(self) -> Mailbox:
        assert self._mailbox is not None  # `_perform` lets nothing else here before the login
        return self._mailbox

    @property
    def _opened(self) -> Folder:
        assert self._folder is not None  # `_perform` lets nothing else here before SELECT
        return self._folder

    def _existing(self, argument: Argument, code: str = "") -> Folder:
        folder = self._own.folder(text(argument))
        if folder is None:
            raise Refusal(f"{code}no such mailbox")
        return folder

    def _writable(self) -> None:
        if self._read_only:
            raise Refusal("the mailbox is selected read-only")

    def _marked(self) -> list[Message]:
        return [message for message in self._opened.messages if r"\Deleted" in message.flags]

    def _chosen(self, arguments: list[Argument], by_uid: bool) -> Iterable[tuple[int, Message]]:
        numbered = list(enumerate(self._view, 1))
        highest = max((message.uid for message in self._view), default=0) if by_uid else len(numbered)
        ranges = list(in_set(text(_first(arguments)), highest))
        for number, message in numbered:
            key = message.uid if by_uid else number
            if any(first <= key <= last for first, last in ranges):
                yield number, message


STORE_ITEMS: dict[str, Callable[[set[str], set[str]], set[str]]] = {
    "FLAGS": lambda _, given: given,
    "+FLAGS": lambda present, given: present | given,
    "-FLAGS": lambda present, given: present - given,
}


def _first(arguments: list[Argument]) -> Argument:
    if not arguments:
        raise ProtocolError("an argument is missing")
    return arguments[0]


class ImapServer(LineServer):
    protocol = "IMAP"
    conversation: ClassVar[type[Conversation]] = ImapConversation
