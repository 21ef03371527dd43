"""SMTP submission (RFC 5321, RFC 4954, RFC 6409) up to the login, towards the mail server."""

from __future__ import annotations

import re

from emailproxy.errors import one_line
from emailproxy.wire import events as ev
from emailproxy.wire import sasl
from emailproxy.wire.lines import fit
from emailproxy.wire.serverside import Accepted, Broken, Rejected, ServerSide, Steps, with_challenge

MAX_COMMAND = 512  # RFC 5321 section 4.5.3.1.4: octets of a command line, CRLF included
SUCCESS = b"235 2.7.0 "  # some printers quit after any other success text


class SmtpServer(ServerSide):
    """From the greeting to the last line of AUTH."""

    def _open(self) -> Steps[None]:
        code, lines = yield from self._reply()
        if code != b"220":
            raise Broken(f"the mail server refuses connections: {_words(lines)}")
        if self._terms.starttls:
            offered = yield from self._greet()
            if "STARTTLS" not in map(str.upper, offered):
                raise Broken(
                    "the mail server does not offer STARTTLS on this port: check server_starttls and server_port"
                )
            self._send(b"STARTTLS\r\n")
            code, lines = yield from self._reply()
            if code != b"220":
                raise Broken(f"the mail server refuses STARTTLS: {_words(lines)}")
            yield from self._start_tls()
        yield from self._ask_capabilities()

    def _ask_capabilities(self) -> Steps[None]:
        self._learn((yield from self._greet()))

    def _greet(self) -> Steps[ev.Capabilities]:
        """EHLO; the extensions as RFC 5321 section 4.1.1.1 lists them, a line each."""
        self._send(b"EHLO " + self._terms.ehlo_name.encode("ascii", "replace") + b"\r\n")
        code, lines = yield from self._reply()
        if code != b"250":
            raise Broken(f"the mail server refuses EHLO: {_words(lines)}")
        return tuple(line[4:].strip().decode("ascii", "replace") for line in lines[1:])

    def _reply(self) -> Steps[tuple[bytes, list[bytes]]]:
        """A whole reply: its code and its lines, the code still in front (RFC 5321 section 4.2.1)."""
        lines = [(yield from self._server_line())]
        while lines[-1][3:4] == b"-":
            lines.append((yield from self._server_line()))
        code = lines[-1][:3]
        if not code.isdigit() or any(line[:3] != code for line in lines):
            raise Broken("the mail server's reply is not SMTP")
        return code, lines

    def _mechanism(self) -> str | None:
        lines = [re.split("[ =]", line.upper()) for line in self._capabilities or ()]
        return sasl.pick_mechanism(name for first, *names in lines if first == "AUTH" for name in names)

    def _exchange(self, mechanism: str, credential: ev.Credential) -> Steps[Accepted | Rejected]:
        """RFC 4954 section 4; an initial response that makes the line too long waits for 334."""
        response = sasl.initial_response(mechanism, credential, self._terms.host, self._terms.port)
        command = b"AUTH " + mechanism.encode()
        answers = [sasl.failure_answer(mechanism)]
        inline = command + b" " + response + b"\r\n"
        if len(inline) <= MAX_COMMAND:
            self._send(inline)
        else:
            self._send(command + b"\r\n")
            answers.insert(0, response)
        challenge = ""
        code, lines = yield from self._reply()
        while code == b"334":
            if not answers:
                raise Broken("the mail server does not end the SASL exchange")
            if len(answers) == 1:
                challenge = sasl.failure_text(lines[-1][4:].strip())
            self._send(answers.pop(0) + b"\r\n")
            code, lines = yield from self._reply()
        return self._judge(code, lines, challenge)

    def _judge(self, code: bytes, lines: list[bytes], challenge: str) -> Accepted | Rejected:
        words = _words(lines)
        if code == b"235":
            reply = b"\r\n".join(lines) + b"\r\n"
            return Accepted(reply if reply.startswith(SUCCESS) else fit(SUCCESS, "Authentication successful"))
        if code.startswith(b"4"):
            left = code == b"421"  # RFC 5321 section 3.8: it closes behind that
            raise Broken(f"the mail server is not available: {words}", left=left)
        return Rejected(with_challenge(words, challenge))


def _words(lines: list[bytes]) -> str:
    """What a server says, its code once in front."""
    texts = [lines[0][:3], *(line[4:] for line in lines)]
    return one_line(b" ".join(texts).decode("utf-8", "replace"))
