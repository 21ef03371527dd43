"""Small honest mail servers without I/O: they hear octets and answer, and remember what they heard."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable

CHALLENGE = base64.b64encode(b'{"status":"401","schemes":"Bearer","scope":"mail"}')


class Server(ABC):
    """Takes one token after another: `verdicts` are ``yes``, ``no`` or ``later``."""

    def __init__(
        self,
        *,
        verdicts: Iterable[str] = ("yes",),
        mechanisms: Iterable[str] = ("XOAUTH2",),
        starttls: bool = False,
        extras: Iterable[str] = (),
    ) -> None:
        self.verdicts = deque(verdicts)
        self.mechanisms = list(mechanisms)
        self.starttls = starttls
        self.extras = list(extras)
        self.secured = not starttls
        self.heard: list[bytes] = []
        """Lines, without their ends."""
        self.heard_in_plaintext: list[bytes] = []
        self.responses: list[bytes] = []
        """SASL messages, decoded."""
        self._pending = b""
        self._respond: Callable[[bytes], bytes] | None = None

    @abstractmethod
    def greet(self) -> bytes:
        """A new connection's first line."""

    @abstractmethod
    def obey(self, line: bytes) -> bytes:
        """The answer to a command."""

    @abstractmethod
    def judge(self, verdict: str) -> bytes:
        """The last line of a SASL exchange."""

    def begin(self) -> None:
        self.secured = not self.starttls
        self._respond = None

    def hear(self, data: bytes) -> bytes:
        self._pending += data
        answer = b""
        while b"\r\n" in self._pending:
            line, self._pending = self._pending.split(b"\r\n", 1)
            self.heard.append(line)
            if not self.secured:
                self.heard_in_plaintext.append(line)
            respond, self._respond = self._respond or self.obey, None
            answer += respond(line)
        return answer

    def ask(self, prompt: bytes, then: Callable[[bytes], bytes]) -> bytes:
        self._respond = then
        return prompt + b"\r\n"

    def sasl(self, response: bytes, prompt: bytes) -> bytes:
        """The client's message; a refused one is answered by a challenge that the client must answer, too."""
        try:
            self.responses.append(base64.b64decode(response, validate=True))
        except ValueError:
            return self.judge("no base64")
        verdict = self.verdicts.popleft()
        if verdict != "no":
            return self.judge(verdict)
        dummy = b"AQ==" if self.responses[-1].startswith(b"n,") else b""
        return self.ask(prompt + CHALLENGE, lambda answer: self.judge("no" if answer == dummy else "unended"))


class ImapServer(Server):
    greets_with_capabilities = True

    def greet(self) -> bytes:
        self.begin()
        capabilities = b"[" + self.capabilities() + b"] " if self.greets_with_capabilities else b""
        return b"* OK " + capabilities + b"hello\r\n"

    def capabilities(self) -> bytes:
        offers = [f"AUTH={name}" for name in self.mechanisms] if self.secured else ["STARTTLS", "LOGINDISABLED"]
        return " ".join(["CAPABILITY", "IMAP4rev1", *self.extras, *offers]).encode()

    def obey(self, line: bytes) -> bytes:
        if b" " not in line:
            return b"* BAD no command\r\n"
        self.tag, name, *rest = line.split(b" ")
        match name:
            case b"CAPABILITY":
                return b"* " + self.capabilities() + b"\r\n" + self.tag + b" OK done\r\n"
            case b"STARTTLS":
                self.secured = True
                return self.tag + b" OK begin\r\n"
            case b"AUTHENTICATE" if rest[0].decode() in self.mechanisms:
                if rest[1:]:
                    return self.tag + b" BAD too many words\r\n" if "SASL-IR" not in self.extras else self._go(rest[1])
                return self.ask(b"+ ", self._go)
        return self.tag + b" BAD unknown\r\n"

    def _go(self, response: bytes) -> bytes:
        return self.sasl(response, b"+ ")

    def judge(self, verdict: str) -> bytes:
        words = {
            "yes": b"OK [CAPABILITY IMAP4rev1 IDLE] welcome",
            "no": b"NO [AUTHENTICATIONFAILED] no",
            "later": b"NO [UNAVAILABLE] later",
        }
        return self.tag + b" " + words.get(verdict, b"BAD strange") + b"\r\n"


class Pop3Server(Server):
    def greet(self) -> bytes:
        self.begin()
        return b"+OK hello\r\n"

    def obey(self, line: bytes) -> bytes:
        name, *rest = line.split(b" ")
        match name:
            case b"CAPA":
                sasl = [" ".join(["SASL", *self.mechanisms])]
                return "\r\n".join(["+OK list", "TOP", "UIDL", "STLS", *sasl, *self.extras, ".\r\n"]).encode()
            case b"STLS":
                self.secured = True
                return b"+OK begin\r\n"
            case b"AUTH" if len(rest) == 1 and rest[0].decode() in self.mechanisms:
                return self.ask(b"+ ", lambda response: self.sasl(response, b"+ "))
        return b"-ERR unknown\r\n"

    def judge(self, verdict: str) -> bytes:
        words = {"yes": b"+OK welcome", "no": b"-ERR [AUTH] no", "later": b"-ERR [SYS/TEMP] later"}
        return words.get(verdict, b"-ERR strange") + b"\r\n"


class SmtpServer(Server):
    def greet(self) -> bytes:
        self.begin()
        return b"220 hello\r\n"

    def obey(self, line: bytes) -> bytes:
        name, *rest = line.split(b" ")
        match name:
            case b"EHLO":
                offer = " ".join(["AUTH", *self.mechanisms]) if self.secured else "STARTTLS"
                lines = ["hello", *self.extras, offer]
                return "".join(f"250{'-' if at < len(lines) else ' '}{x}\r\n" for at, x in enumerate(lines, 1)).encode()
            case b"STARTTLS":
                self.secured = True
                return b"220 begin\r\n"
            case b"AUTH" if rest[0].decode() in self.mechanisms:
                if len(line) + 2 > 512:
                    return b"500 5.5.2 Line too long\r\n"
                return self._go(rest[1]) if rest[1:] else self.ask(b"334 ", self._go)
        return b"504 5.5.4 unknown\r\n"

    def _go(self, response: bytes) -> bytes:
        return self.sasl(response, b"334 ")

    def judge(self, verdict: str) -> bytes:
        words = {
            "yes": b"235 2.7.0 welcome",
            "no": b"535 5.7.8 no",
            "later": b"454 4.7.0 later",
        }
        return words.get(verdict, b"501 strange") + b"\r\n"
