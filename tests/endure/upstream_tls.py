"""Mail servers that cannot prove who they are, or that are spoken for before TLS stands: none gets a credential."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from emailproxy.demo.certificates import Authority
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import judge
from tests.endure.servers import READ, Misbehaving, Told, heard_to_its_end, misbehaving, started
from tests.endure.upstream import judge_refusals
from tests.endure.watch import seconds_until
from tests.net.stubs import GREETING

BEFORE_TLS = (b"EHLO ", b"STARTTLS", b"QUIT", b"CAPA", b"STLS")
"""What may be said to a server that nobody has proved yet, besides IMAP's tag before it."""
SOON_S = 5.0
LOGGED_S = 5.0
"""Lines reach the log a moment after what they tell of."""
OFFERS = b"250-localhost\r\n250 STARTTLS\r\n"


def expired(authority: Authority) -> ssl.SSLContext:
    return authority.issue("localhost", expired=True).server_context()


def wrong_name(authority: Authority) -> ssl.SSLContext:
    return authority.issue("elsewhere.example").server_context()


def self_signed(authority: Authority) -> ssl.SSLContext:
    return authority.issue("localhost", self_signed=True).server_context()


def of_a_stranger(authority: Authority) -> ssl.SSLContext:
    """Of an authority with the same name: only the signature tells the two apart."""
    folder = authority.certificate_file.parent / "stranger"
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").unlink(missing_ok=True)
    for left in folder.glob("server-*"):
        left.unlink()
    return Authority.create(folder).issue("localhost").server_context()


def tls_1_0(authority: Authority) -> ssl.SSLContext:
    """A good certificate, and nothing newer than TLS 1.0; OpenSSL 3 speaks that at security level 0 only."""
    certificate = authority.issue("localhost")
    context = old_tls(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate_file, certificate.key_file)
    return context


def old_tls(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


class Unproved(NamedTuple):
    name: str
    makes: Callable[[Authority], ssl.SSLContext]
    reason: str
    """What the log has to say, as a regular expression."""


UNPROVED = (
    Unproved("expired", expired, r"refused.*expired"),
    Unproved("another name", wrong_name, r"refused.*(not valid for|for another|mismatch)"),
    Unproved("self-signed", self_signed, r"refused.*self.signed"),
    Unproved("of a stranger", of_a_stranger, r"refused.*certificate"),
    Unproved("TLS 1.0", tls_1_0, r"refused.*no TLS of version 1\.2"),
)


@dataclass
class Ear:
    """A server, and all that it hears."""

    context: ssl.SSLContext
    secured: int = 0
    """Handshakes that came to their end."""
    heard: list[bytes] = field(default_factory=list)

    async def imap(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._secure(reader, writer)

    async def smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 localhost\r\n")
        await self._until(reader, writer, b"STARTTLS", OFFERS)
        writer.write(b"220 go ahead\r\n")
        await self._secure(reader, writer)

    async def _secure(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A handshake that is not to come to its end, and what is said where it does. It sends the alert that says why
        it failed, as servers do; asyncio's own closes without."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)
        stands = over = False
        while not over and (data := await reader.read(READ)):
            incoming.write(data)
            try:
                if not stands:
                    tls.do_handshake()
                    stands = True
                    self.secured += 1
                    tls.write(GREETING)
                while said := tls.read(READ):
                    self.heard.append(said)
                over = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                over = True
            writer.write(outgoing.read())

    async def _until(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: bytes, answer: bytes
    ) -> None:
        """Answers each command so, until this one comes."""
        while command not in (line := await reader.readline()).upper():
            self.heard.append(line)
            if not line:
                return
            writer.write(answer)
        self.heard.append(line)

    @property
    def too_much(self) -> int:
        """Octets that it should not have heard."""
        lines = b"".join(self.heard).splitlines(keepends=True)
        return sum(len(line) for line in lines if not any(word in line.upper() for word in BEFORE_TLS))


@scenario(
    "certificates",
    group="upstream",
    what="Mail servers with expired, foreign and self-signed certificates, for another name, and of TLS 1.0 only.",
)
async def certificates(stage: Stage) -> None:
    rounds = stage.effort(50, 10)
    async with misbehaving(stage) as servers:
        ears: dict[tuple[Unproved, str], Ear] = {}
        for one in UNPROVED:
            for protocol in ("IMAP", "SMTP"):
                ears[one, protocol] = ear = Ear(one.makes(servers.ground.authority))
                await _add(servers, ear, one, protocol)
        async with started(servers) as here:
            stage.figure("a client that allows TLS 1.0 gets it", await _speaks_tls_1_0(servers), exactly=1)
            secured = {key: ear.secured for key, ear in ears.items()}
            async with here.others.beating() as during:
                told = [(one, protocol, await servers.told(name_of(one, protocol), protocol))
                        for _ in range(rounds) for one, protocol in ears]  # fmt: skip
            for protocol in ("IMAP", "SMTP"):
                judge_refusals(stage, [one for _, kind, one in told if kind == protocol], protocol, within_s=SOON_S)
            completed = sum(ear.secured - secured[key] for key, ear in ears.items())
            stage.figure("TLS handshakes that came to their end", completed, exactly=0)
            stage.figure("octets said but for greetings", sum(ear.too_much for ear in ears.values()), exactly=0)
            logged = 0
            for one in UNPROVED:
                with suppress(AssertionError):
                    await here.proxy.printed(one.reason, timeout=LOGGED_S)
                    logged += 1
            stage.figure("reasons that the log tells", logged, exactly=len(UNPROVED))
            judge(stage, here.before, during)
            here.watch.judge_log(stage)


def name_of(one: Unproved, protocol: str) -> str:
    return f"{one.name}, {protocol}"


async def _add(servers: Misbehaving, ear: Ear, one: Unproved, protocol: str) -> None:
    name = name_of(one, protocol)
    if protocol == "IMAP":
        await servers.add(name, ear.imap)
    else:
        await servers.add(name, ear.smtp, protocol="SMTP", starttls=True)


async def _speaks_tls_1_0(servers: Misbehaving) -> int:
    """The server is not just broken: 1, where a client that is willing gets TLS 1.0."""
    context = old_tls(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(servers.ground.authority.certificate_file)
    port = servers.upstream_ports[name_of(UNPROVED[-1], "IMAP")]
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    version = writer.get_extra_info("ssl_object").version()
    writer.close()
    return int(version == "TLSv1")


# ---- before TLS stands


@dataclass
class Injecting(Ear):
    """Its go-ahead for TLS has more behind it, in the same segment: whoever is in between put it there."""

    async def imap(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n")
        tag = await self._tag(reader, writer)
        writer.write(tag + b" OK go ahead\r\n* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] injected\r\n")
        self.heard.append(await heard_to_its_end(reader))

    async def pop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK ready\r\n")
        await self._until(reader, writer, b"STLS", b"+OK\r\nSTLS\r\n.\r\n")
        writer.write(b"+OK go ahead\r\n+OK injected\r\n")
        self.heard.append(await heard_to_its_end(reader))

    async def smtp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 localhost\r\n")
        await self._until(reader, writer, b"STARTTLS", OFFERS)
        writer.write(b"220 go ahead\r\n250 injected\r\n")
        self.heard.append(await heard_to_its_end(reader))

    async def _tag(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        while b"STARTTLS" not in (line := await reader.readline()):
            self.heard.append(line)
            if not line:
                break
            writer.write(b"* CAPABILITY IMAP4rev1 STARTTLS\r\n" + line.split()[0] + b" OK\r\n")
        return line.partition(b" ")[0]


PROTOCOLS = ("IMAP", "POP", "SMTP")
REASON = "sent octets behind its STARTTLS reply"


@scenario("injection", group="upstream", what="The mail server's answer to STARTTLS has octets behind it.")
async def injection(stage: Stage) -> None:
    async with misbehaving(stage) as servers:
        ears = {protocol: Injecting(servers.good()) for protocol in PROTOCOLS}
        for protocol, ear in ears.items():
            handler = {"IMAP": ear.imap, "POP": ear.pop, "SMTP": ear.smtp}[protocol]
            await servers.add(protocol, handler, protocol=protocol, starttls=True)
        async with started(servers) as here:
            told: Sequence[tuple[str, Told]] = [
                (protocol, await servers.told(protocol, protocol))
                for _ in range(stage.effort(100, 5)) for protocol in PROTOCOLS
            ]  # fmt: skip
            odd = [f"{protocol}: {one.text}" for protocol, one in told if REASON not in one.text]
            for text in odd[:3]:
                stage.say(f"told: {text}")
            stage.figure("clients of such servers", len(told))
            stage.figure("of these were not told why the connection ends", len(odd), exactly=0)
            stage.figure("octets said behind STARTTLS", sum(ear.too_much for ear in ears.values()), exactly=0)
            await seconds_until(lambda: here.proxy.output.count(REASON) >= len(told), LOGGED_S)
            stage.figure("lines in the log that tell why", here.proxy.output.count(REASON), at_least=len(told))
            here.watch.judge_log(stage)
