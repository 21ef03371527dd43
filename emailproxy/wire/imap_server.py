"""IMAP4rev1 and rev2 (RFC 3501, RFC 9051) up to the login, towards the mail server."""

from __future__ import annotations

import re

from emailproxy.wire import events as ev
from emailproxy.wire import sasl
from emailproxy.wire.serverside import Accepted, Broken, Rejected, ServerSide, Steps, with_challenge, words_of

MAX_CHALLENGES = 3  # continuations of one SASL exchange: the empty one, the failure's, one to spare
# RFC 9051 section 7.1: resp-text-code = "CAPABILITY" SP ... ; the same words are an untagged response of their own
CAPABILITY = re.compile(rb"\* (?:OK \[)?CAPABILITY ([^\]\r\n]*)", re.IGNORECASE)
# RFC 5530 section 3: codes that say "not now"; Exchange has a sentence of its own
NOT_NOW = re.compile(rb"\[(?:UNAVAILABLE|INUSE|LIMIT|SERVERBUG)\]|Request is throttled", re.IGNORECASE)


def parse_capabilities(line: bytes) -> ev.Capabilities | None:
    """The capabilities in a greeting or an untagged response, in upper case; None where it has none."""
    match = CAPABILITY.match(line)
    return tuple(match[1].decode("ascii", "replace").upper().split()) if match else None


class ImapServer(ServerSide):
    """From the greeting to the last line of AUTHENTICATE."""

    _tag = b"*"
    """The client's, once it logs in."""

    def _open(self) -> Steps[None]:
        greeting = yield from self._server_line()
        status = greeting[:10].upper()
        if status.startswith(b"* PREAUTH"):
            raise Broken("the mail server says that we are logged in already (PREAUTH): not trusted", fatal=True)
        if not status.startswith(b"* OK"):
            raise Broken(f"the mail server refuses connections: {words_of(greeting)}")
        fresh = parse_capabilities(greeting)
        if self._terms.starttls:
            reply = yield from self._ask(b"STARTTLS")
            if not reply[-1].upper().startswith(b"EP OK"):
                raise Broken(f"the mail server refuses STARTTLS: {words_of(reply[-1])}")
            yield from self._start_tls()
            fresh = None
        if fresh is not None:
            self._learn(fresh)
        elif self._capabilities is None:
            yield from self._ask_capabilities()

    def _ask(self, command: bytes) -> Steps[list[bytes]]:
        """A command of our own; returns the reply's lines, the tagged one last."""
        self._send(b"EP " + command + b"\r\n")
        lines: list[bytes] = []
        while not lines or not lines[-1].startswith(b"EP "):
            lines.append((yield from self._server_line()))
        return lines

    def _ask_capabilities(self) -> Steps[None]:
        lines = yield from self._ask(b"CAPABILITY")
        found = [names for line in lines if (names := parse_capabilities(line)) is not None]
        if not found:
            raise Broken("the mail server does not tell its capabilities")
        self._learn(found[0])

    def _mechanism(self) -> str | None:
        return sasl.pick_mechanism(name[5:] for name in self._capabilities or () if name.startswith("AUTH="))

    def _exchange(self, mechanism: str, credential: ev.Credential) -> Steps[Accepted | Rejected]:
        """Under the client's own tag, so that the server's final reply can go to the client as it is."""
        response = sasl.initial_response(mechanism, credential, self._terms.host, self._terms.port)
        command = self._tag + b" AUTHENTICATE " + mechanism.encode()
        answers = [sasl.failure_answer(mechanism)] * MAX_CHALLENGES
        if "SASL-IR" in (self._capabilities or ()):
            self._send(command + b" " + response + b"\r\n")
        else:
            self._send(command + b"\r\n")
            answers.insert(0, response)
        untagged, challenge = b"", ""
        while True:
            line = yield from self._server_line()
            if line.startswith(b"+"):
                if not answers:
                    raise Broken("the mail server does not end the SASL exchange")
                answer = answers.pop(0)
                if answer is not response:
                    challenge = sasl.failure_text(line[1:].strip())
                self._send(answer + b"\r\n")
            elif line.startswith(self._tag + b" "):
                return self._judge(line, untagged, challenge)
            elif line[:5].upper() == b"* BYE":
                raise Broken(f"the mail server ended the connection: {words_of(line)}", left=True)
            else:
                untagged += line + b"\r\n"

    def _judge(self, line: bytes, untagged: bytes, challenge: str) -> Accepted | Rejected:
        status = line[len(self._tag) + 1 :]
        if status[:3].upper() == b"OK " or status.upper() == b"OK":
            return Accepted(untagged + line + b"\r\n")
        if NOT_NOW.search(status):
            raise Broken(f"the mail server is not available: {words_of(line)}")
        words = with_challenge(words_of(line), challenge)
        return Rejected(words, misunderstood=status[:3].upper() == b"BAD")
