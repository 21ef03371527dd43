"""Names that cannot be looked up, for a while or for ever: the proxy asks a name server of ours, by resolv.conf(5)."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import cast

from tests.endure import namespace
from tests.endure.frame import Stage, scenario
from tests.endure.pulse import Pulse, judge
from tests.endure.servers import Misbehaving, Started, Told, misbehaving, started
from tests.endure.upstream import judge_refusals
from tests.net.stubs import GREETING

NAME_SERVER = ("127.53.0.1", 53)
FAILING, UNKNOWN = "failing.endure.test", "unknown.endure.test"
OTHER = "other.endure.test"
DEAD = tuple(f"dead-{number}.endure.test" for number in range(1, 7))
"""More of them than the proxy has threads for look-ups."""
RESOLVER = "nameserver {}\noptions timeout:15 attempts:2\n"
"""A look-up that nobody answers takes half a minute: what ends it earlier is the proxy."""
MOUNTS = (
    "mount --bind '{folder}/resolv.conf' /etc/resolv.conf\nmount --bind '{folder}/nsswitch.conf' /etc/nsswitch.conf"
)
FAILS_S = 10.5
"""A dial with its look-up has ten seconds."""
AT_ONCE_S = 2.0
"""A look-up that is answered with a failure fails at once, and one that is answered again works at once."""
HARDLY = 1.1
"""How much slower others may be."""
LOOK_S, EVERY_S = 0.1, 1.0


class Answer(IntEnum):
    """RCODE (RFC 1035 section 4.1.1), or silence."""

    ADDRESS = 0
    FAILURE = 2
    NO_SUCH_NAME = 3
    SILENCE = -1


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """All its names are 127.0.0.1."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked += 1
        labels, rest = [], data[12:]
        while rest[0]:
            labels.append(rest[1 : 1 + rest[0]])
            rest = rest[1 + rest[0] :]
        (kind,) = struct.unpack(">H", rest[1:3])
        question = data[12 : len(data) - len(rest) + 5]
        answer = self.answers.get(b".".join(labels).decode().lower(), Answer.NO_SUCH_NAME)
        if answer is Answer.SILENCE:
            return
        found = b""
        if answer is Answer.ADDRESS and kind == 1:  # A; there is no AAAA
            found = struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton("127.0.0.1")
        header = data[:2] + struct.pack(">HHHHH", 0x8180 | answer, 1, bool(found), 0, 0)
        self._transport.sendto(header + question + found, address)


@asynccontextmanager
async def name_server(stage: Stage) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    try:
        transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=NAME_SERVER)
    except OSError as error:
        stage.cannot(f"no name server can be run on {NAME_SERVER[0]} port {NAME_SERVER[1]}: {error}")
    try:
        yield server
    finally:
        transport.close()


async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An IMAP server that agrees to everything."""
    writer.write(GREETING)
    while line := await reader.readline():
        writer.write(line.split()[0] + b" OK done\r\n")
        if line.endswith(b" LOGOUT\r\n"):
            return


@scenario(
    "dns", group="upstream", what="Names of mail servers cannot be looked up; the name server fails, or is silent."
)
async def dns(stage: Stage) -> None:
    (stage.folder / "resolv.conf").write_text(RESOLVER.format(NAME_SERVER[0]))
    (stage.folder / "nsswitch.conf").write_text("hosts: files dns\n")
    mounts = MOUNTS.format(folder=stage.folder)
    namespace.check(stage, mounts)
    async with name_server(stage) as names, misbehaving(stage) as servers:
        context = servers.ground.authority.issue(FAILING, UNKNOWN, OTHER, *DEAD).server_context()
        for host in (FAILING, UNKNOWN, OTHER, *DEAD):
            await servers.add(host, attend, context=context, host=host)
        names.answers = dict.fromkeys(DEAD, Answer.SILENCE) | {
            OTHER: Answer.ADDRESS, FAILING: Answer.FAILURE, UNKNOWN: Answer.NO_SUCH_NAME,
        }  # fmt: skip
        async with started(servers, namespace.with_mounts(mounts)) as here:
            others = Pulse(servers.ports[OTHER], source="127.0.2.4")
            for host in (FAILING, UNKNOWN):
                await _fails_and_heals(stage, servers, names, host)
            before = await others.before()
            for dead, words in ((DEAD[:1], "one name"), (DEAD, f"{len(DEAD)} names")):
                stage.say(f"the name server is silent about {words}:")
                async with others.beating() as during:
                    told = await _silence(servers, dead, stage.effort(60.0, 3.0))
                judge_refusals(stage, told, "IMAP", within_s=FAILS_S)
                judge(stage, before, during, slower=HARDLY)
            await _judge_old_hands(stage, here)


async def _fails_and_heals(stage: Stage, servers: Misbehaving, names: NameServer, host: str) -> None:
    told = await servers.told(host)
    stage.say(f"told: {told.text.strip()}")
    judge_refusals(stage, [told], "IMAP", within_s=AT_ONCE_S)
    names.answers[host] = Answer.ADDRESS
    began_s = time.monotonic()
    while "OK" not in (await servers.told(host)).text:
        if time.monotonic() - began_s > 10 * AT_ONCE_S:
            stage.figure("healed after", math.inf, "s", at_most=AT_ONCE_S)
            return
        await asyncio.sleep(LOOK_S)
    stage.figure("healed after", time.monotonic() - began_s, "s", at_most=AT_ONCE_S)


async def _silence(servers: Misbehaving, dead: tuple[str, ...], seconds: float) -> list[Told]:
    """Logins at each of these, for so long."""
    ends_s = time.monotonic() + seconds

    async def again(host: str) -> list[Told]:
        told = []
        while not told or time.monotonic() < ends_s:
            told.append(await servers.told(host))
            await asyncio.sleep(EVERY_S)
        return told

    return [one for told in await asyncio.gather(*(again(host) for host in dead)) for one in told]


async def _judge_old_hands(stage: Stage, here: Started) -> None:
    """Those whose server is found without a name server, by hosts(5)."""
    beats = await here.others.before()
    stage.figure("afterwards: logins that failed", len(beats.failures), exactly=0)
    here.watch.judge_log(stage)
