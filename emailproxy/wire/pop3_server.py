"""POP3 (RFC 1939, RFC 2449, RFC 5034) up to the login, towards the mail server."""

from __future__ import annotations

import re

from emailproxy.wire import events as ev
from emailproxy.wire import sasl
from emailproxy.wire.serverside import Accepted, Broken, Rejected, ServerSide, Steps, with_challenge, words_of

# RFC 2449 section 8, RFC 3206: codes that say "not now"
NOT_NOW = re.compile(rb"\[(?:SYS/TEMP|IN-USE|LOGIN-DELAY)\]", re.IGNORECASE)


class Pop3Server(ServerSide):
    """From the greeting to the last line of AUTH."""

    def _open(self) -> Steps[None]:
        greeting = yield from self._server_line()
        if not _is_ok(greeting):
            raise Broken(f"the mail server refuses connections: {words_of(greeting)}")
        if self._terms.starttls:
            self._send(b"STLS\r\n")
            reply = yield from self._server_line()
            if not _is_ok(reply):
                raise Broken(f"the mail server refuses STLS: {words_of(reply)}")
            yield from self._start_tls()
        if self._capabilities is None:
            yield from self._ask_capabilities()

    def _ask_capabilities(self) -> Steps[None]:
        """RFC 2449 section 5; a server without CAPA is given the benefit of the doubt."""
        self._send(b"CAPA\r\n")
        status = yield from self._server_line()
        lines: list[str] = []
        while _is_ok(status) and (line := (yield from self._server_line())) != b".":
            lines.append(line.decode("ascii", "replace"))
        self._learn(tuple(lines))

    def _mechanism(self) -> str | None:
        lines = [line.upper().split() for line in self._capabilities or () if line.strip()]
        offered = [name for first, *names in lines if first == "SASL" for name in names]
        return sasl.pick_mechanism(offered or ["XOAUTH2"])

    def _exchange(self, mechanism: str, credential: ev.Credential) -> Steps[Accepted | Rejected]:
        """In two lines always: Exchange takes no initial response, and every server takes none. RFC 5034 section 4
        would have one on the line up to 255 octets, which hardly any access token fits."""
        answers = [
            sasl.initial_response(mechanism, credential, self._terms.host, self._terms.port),
            sasl.failure_answer(mechanism),
        ]
        challenge = ""
        self._send(b"AUTH " + mechanism.encode() + b"\r\n")
        while (line := (yield from self._server_line())).startswith(b"+") and not _is_ok(line):
            if not answers:
                raise Broken("the mail server does not end the SASL exchange")
            if len(answers) == 1:
                challenge = sasl.failure_text(line[1:].strip())
            self._send(answers.pop(0) + b"\r\n")
        if _is_ok(line):
            return Accepted(line + b"\r\n")
        if NOT_NOW.search(line):
            raise Broken(f"the mail server is not available: {words_of(line)}")
        words = with_challenge(words_of(line), challenge)
        return Rejected(words, misunderstood=len(answers) == 2)


def _is_ok(line: bytes) -> bool:
    return line[:3].upper() == b"+OK"
