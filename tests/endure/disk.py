"""The state folder fails under a running server: full, read-only, or with an account's file replaced or damaged."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emailproxy.config.model import KIB, MIB
from emailproxy.store import codec
from tests.e2e.harness.proxy import Proxy, emailproxy
from tests.e2e.harness.world import USER
from tests.endure import namespace
from tests.endure.frame import Stage, scenario
from tests.endure.ground import Ground, ground
from tests.endure.pulse import Beats, judge

ROOM_KIB = 512
"""Of the file system that is filled: a state folder of some accounts has a tenth of that."""
DEGRADED_S, HEALED_S = 1.0, 31.0
"""What is promised: *degraded* in `status` within a second; saved with the next try, every 30 s, and its write."""
LOOK_S = 0.05
STALE_S = 1
"""What the provider says of the life of a token that the next login has to renew."""
RENEWS = "renews@example.com"
DAMAGED = "damaged@example.com"

MOUNT = "mount -t tmpfs -o size={size}k,mode=0700 endure '{folder}'"


# ---- a file system that takes nothing


@dataclass(frozen=True)
class Fault:
    """How the file system of the state folder comes to refuse what is written, and how it is mended."""

    name: str
    breaks: Callable[[int, Path], None]
    mends: Callable[[int, Path], None]


def fill(pid: int, folder: Path) -> None:
    """Until not one more octet fits."""
    filler = namespace.seen_by(pid, folder) / "filler"
    for octets in (4 * KIB, 1):
        try:
            with filler.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(octets))
        except OSError:
            continue
    assert filler.stat().st_size


def empty(pid: int, folder: Path) -> None:
    (namespace.seen_by(pid, folder) / "filler").unlink()


def make_read_only(pid: int, folder: Path) -> None:
    namespace.within(pid, "mount", "-o", "remount,ro", folder)


def make_writable(pid: int, folder: Path) -> None:
    namespace.within(pid, "mount", "-o", "remount,rw", folder)


FAULTS = (Fault("full", fill, empty), Fault("read-only", make_read_only, make_writable))


@scenario(
    "unwritable",
    group="disk",
    what="The state folder's disk is full, and at another server read-only, while a token has to be renewed.",
)
async def unwritable(stage: Stage) -> None:
    namespace.check(stage, MOUNT.format(size=ROOM_KIB, folder=stage.folder))
    stage.say("the state folder is a tmpfs of the server's own")
    await asyncio.gather(*(_unwritable(stage, fault) for fault in FAULTS))


async def _unwritable(stage: Stage, fault: Fault) -> None:
    folder = stage.folder / fault.name
    folder.mkdir(mode=0o711)
    async with ground(folder) as here:
        here.add_account(RENEWS)
        here.provider.told_life_s[RENEWS] = STALE_S
        state = here.world.state
        state.mkdir(mode=0o700)
        mounted = namespace.with_mounts(MOUNT.format(size=ROOM_KIB, folder=state))
        async with here.serve(mounted) as proxy:
            await here.sign_in_all(proxy, (USER, RENEWS))
            await asyncio.sleep(STALE_S)  # the token is dead now: the next login needs another one
            await asyncio.to_thread(fault.breaks, proxy.pid, state)
            await _bears_it(stage, fault, here, proxy)
            await _heals(stage, fault, here, proxy)


async def _bears_it(stage: Stage, fault: Fault, here: Ground, proxy: Proxy) -> None:
    kept = contents(proxy.pid, here)
    asked = here.provider.arrived
    del here.provider.told_life_s[RENEWS]
    during = Beats()
    await here.pulse(RENEWS).beat(during)
    degraded_s = await until_status(here, lambda facts: facts["degraded"] == [RENEWS], 10 * DEGRADED_S)
    stage.figure(f"{fault.name}: degraded in status after", degraded_s, "s", at_most=DEGRADED_S)
    for number in range(stage.effort(300, 30)):
        await here.pulse((RENEWS, USER)[number % 2]).beat(during)
    for failure in during.failures[:3]:
        stage.say(f"{fault.name}: a login failed: {failure}")
    stage.figure(f"{fault.name}: logins served from memory", len(during.took_ms))
    stage.figure(f"{fault.name}: logins that failed", len(during.failures), exactly=0)
    stage.figure(f"{fault.name}: token requests for them", here.provider.arrived - asked, exactly=1)
    changed = sum(contents(proxy.pid, here).get(name) != data for name, data in kept.items())
    stage.figure(f"{fault.name}: state files that changed by an octet", changed, exactly=0)
    said = await emailproxy("status", "--config", here.world.folder / "emailproxy.ini", home=here.world.folder)
    stage.figure(f"{fault.name}: status says so to a person", int("degraded" in said.output), exactly=1)


async def _heals(stage: Stage, fault: Fault, here: Ground, proxy: Proxy) -> None:
    before = codec.parse_record(contents(proxy.pid, here)[f"{RENEWS}.ini"])
    await asyncio.to_thread(fault.mends, proxy.pid, here.world.state)
    healed_s = await until_status(here, lambda facts: facts["degraded"] == [], 2 * HEALED_S)
    stage.figure(f"{fault.name}: healed, after there was room again, after", healed_s, "s", at_most=HEALED_S)
    after = codec.parse_record(contents(proxy.pid, here)[f"{RENEWS}.ini"])
    stage.figure(f"{fault.name}: the new tokens are in the file", after.generation - before.generation, exactly=1)
    await here.pulse(RENEWS).beat(beats := Beats())
    stage.figure(f"{fault.name}: logins that failed afterwards", len(beats.failures), exactly=0)


def contents(pid: int, here: Ground) -> Mapping[str, bytes]:
    """The accounts' files as the server sees them."""
    folder = namespace.seen_by(pid, here.accounts_folder)
    return {path.name: path.read_bytes() for path in folder.glob("*.ini")}


async def until_status(here: Ground, true: Callable[[Mapping[str, object]], bool], within_s: float) -> float:
    """Seconds until `status` says so; infinity, where it has not in time."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < within_s:
        if true(await asyncio.to_thread(here.status)):
            return time.monotonic() - began_s
        await asyncio.sleep(LOOK_S)
    return math.inf


# ---- files that somebody meddles with


@dataclass(frozen=True)
class Damage:
    """What becomes of an account's file."""

    name: str
    done: Callable[[bytes, bytes], bytes | None]
    """Makes the new content of the old one, and of another account's; None: the file is removed."""
    said: str
    """What the client has to be told, among others."""


DAMAGES = (
    Damage("random octets", lambda mine, _: os.urandom(len(mine)), "is damaged"),
    Damage("the first half", lambda mine, _: mine[: len(mine) // 2], "is damaged"),
    Damage("no octet", lambda _mine, _other: b"", "is damaged"),
    Damage("another account's", lambda _mine, other: other, "it is another account's"),
    Damage("2 MiB of zeros", lambda _mine, _other: bytes(2 * MIB), "is damaged"),
    Damage("one octet changed in a token", lambda mine, _: altered(mine), "does not open"),
    Damage("removed", lambda _mine, _other: None, "must be signed in"),
)


def altered(record: bytes) -> bytes:
    """The file with another character in the sealed access token."""
    start = record.index(b"access_token = ") + len(b"access_token = ") + 40
    return record[:start] + (b"A" if record[start : start + 1] != b"A" else b"B") + record[start + 1 :]


@scenario("damaged", group="disk", what="An account's file is damaged, replaced or removed under a running server.")
async def damaged(stage: Stage) -> None:
    async with ground(stage.folder) as here:
        here.settings["consent_wait"] = 0.5  # nobody signs in: who removed the file puts it back
        here.add_account(DAMAGED)
        here.provider.told_life_s[DAMAGED] = STALE_S
        async with here.serve() as proxy:
            await here.sign_in_all(proxy, (USER, DAMAGED))
            other = here.pulse(USER, source="127.0.2.2")
            before = await other.before()
            async with other.beating() as during:
                told = [await _damaged(here, damage, replaced) for damage in DAMAGES for replaced in (False, True)]
                kept = await _replaced(here)
            wrong = [text for text in told if text]
            for text in wrong[:3]:
                stage.say(text)
            stage.figure("ways to damage a file", len(told))
            stage.figure("after which the login was not refused, or not with the reason", len(wrong), exactly=0)
            stage.figure("logins that failed after an older file came back", len(kept), exactly=0)
            stage.figure("authorizations that the provider revoked", here.provider.revoked_families, exactly=0)
            judge(stage, before, during)


async def _damaged(here: Ground, damage: Damage, replaced: bool) -> str:
    """What is wrong with how the server took it; empty, where nothing is. The file is as before, afterwards."""
    path, other = (here.accounts_folder / f"{name}.ini" for name in (DAMAGED, USER))
    whole = path.read_bytes()
    put(path, damage.done(whole, other.read_bytes()), replaced=replaced)
    await here.pulse(DAMAGED).beat(beats := Beats())
    put(path, whole, replaced=replaced)
    await here.pulse(DAMAGED).beat(again := Beats())
    if not beats.failures or damage.said not in beats.failures[0]:
        return f"{damage.name}: the client was told {beats.failures or 'OK'}"
    if again.failures:
        return f"{damage.name}: the file is back, and the client was told {again.failures}"
    return ""


def put(path: Path, content: bytes | None, *, replaced: bool) -> None:
    """Puts it there, as another file or over the one that is there."""
    if content is None:
        path.unlink()
        return
    target = path.with_name(".put") if replaced or not path.exists() else path
    target.touch(0o600)
    target.write_bytes(content)
    if target != path:
        target.replace(path)


async def _replaced(here: Ground) -> list[str]:
    """An older file comes back, as from a backup: its refresh token is void. What is in memory is newer, and counts."""
    path = here.accounts_folder / f"{DAMAGED}.ini"
    backup, beats = path.read_bytes(), Beats()
    for _ in range(3):
        await asyncio.sleep(STALE_S)
        await here.pulse(DAMAGED).beat(beats)  # renews the token
        put(path, backup, replaced=True)
    return beats.failures
