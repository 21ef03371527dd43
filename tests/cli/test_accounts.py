"""`emailproxy accounts`: who has tokens, in which state, and forgetting them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from emailproxy.config import ini
from emailproxy.oauth.advice import advise
from emailproxy.secret import Secret
from emailproxy.service import Authority
from emailproxy.store.ini import IniStore
from emailproxy.store.pending import IniPendingStore
from tests.cli.site import ADA, BOB, PASSWORD, ROBOT, ROOT_ONLY, SERVICE, Site, another_user, approve, ended
from tests.e2e.harness.proxy import COMMAND
from tests.fakes.provider import refusal
from tests.store.samples import pending, record

CLEO = "cleo@example.org"
LIST = ("accounts", "list", "--json")
DISTANT = 4_000_000_000  # seconds since the epoch: in 2096


async def listed(folder: Path) -> list[dict[str, Any]]:
    shown = await ended(*COMMAND, "accounts", "list", "--json", "--state", folder / "state", cwd=folder)
    assert (shown.code, shown.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(shown.out)
    return found


async def keep(state: Path, *records: Any) -> None:
    """Puts records and consents into a state folder."""
    store, consents = IniStore(state), IniPendingStore(state)
    for one in records:
        if hasattr(one, "state_hash"):
            await consents.put(one)
        else:
            async with store.locked(one.account):
                await store.save(one)
    store.close()
    consents.close()


async def test_each_account_has_its_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await keep(
        state,
        replace(record("ada@example.org"), expires_at_s=DISTANT),
        replace(record("bob@example.org"), needs_sign_in=True, last_error="the refresh token was revoked"),
        replace(record("dan@example.org"), expires_at_s=None),
        record("eve@example.org"),
        record("fay@example.org"),
        pending("one", CLEO, created_s=DISTANT),
        pending("two", "dan@example.org", created_s=DISTANT),
        pending("three", "gil@example.org", created_s=1, lives_s=1),
    )
    damaged, exposed = (state / "accounts" / f"{name}@example.org.ini" for name in ("eve", "fay"))
    damaged.write_text("[account]\nversion = 1\n")
    exposed.chmod(0o644)
    found = {line["account"]: line for line in await listed(tmp_path)}
    last_errors = {name: line["last_error"] for name, line in found.items()}
    shown = ("state", "token_expires", "passwords")
    assert {name: {key: line[key] for key in shown} for name, line in found.items()} == {
        "ada@example.org": {"state": "live", "token_expires": "2096-10-02T07:06:40Z", "passwords": 1},
        "bob@example.org": {"state": "needs sign-in", "token_expires": "2023-11-14T23:13:20Z", "passwords": 1},
        CLEO: {"state": "consent pending", "token_expires": None, "passwords": 0},
        "dan@example.org": {"state": "consent pending", "token_expires": None, "passwords": 1},
        "eve@example.org": {"state": "unusable", "token_expires": None, "passwords": 0},
        "fay@example.org": {"state": "unusable", "token_expires": None, "passwords": 0},
    }
    assert last_errors["bob@example.org"] == "the refresh token was revoked"
    assert f"{damaged} is damaged" in last_errors["eve@example.org"]
    assert f"chmod 600 {exposed}" in last_errors["fay@example.org"]
    assert {last_errors[name] for name in ("ada@example.org", CLEO, "dan@example.org")} == {""}
    assert found["ada@example.org"]["token_obtained"] == "2023-11-14T22:13:20Z"
    assert found[CLEO]["consent_since"] == "2096-10-02T07:06:40Z"
    assert found[CLEO]["consent_expires"] == "2096-10-03T07:06:40Z"
    assert {line["consent_expires"] for line in found.values() if line["state"] != "consent pending"} == {None}


async def test_the_table_shows_the_same(tmp_path: Path) -> None:
    ends = datetime.now(UTC) + timedelta(days=400)
    await keep(
        tmp_path / "state",
        replace(record("ada@example.org"), expires_at_s=int(ends.timestamp())),
        replace(record("bob@example.org"), needs_sign_in=True, last_error="[bold]looks like markup[/] to some"),
        record("dan@example.org"),
        pending("one", CLEO, created_s=DISTANT),
    )
    command = (*COMMAND, "accounts", "list", "--state", tmp_path / "state")
    shown = await ended(*command, cwd=tmp_path, env={"TZ": "UTC"})  # not cut to a terminal's width
    assert (shown.code, shown.err) == (0, "")
    [ada] = [line for line in shown.out.splitlines() if "ada@example.org" in line]
    [bob, why] = [line for line in shown.out.splitlines() if "bob@example.org" in line]
    assert re.search(rf" live .* {ends:%Y-%m-%d %H:%M} .* 1 ", ada)
    [cleo] = [line for line in shown.out.splitlines() if CLEO in line]
    [dan] = [line for line in shown.out.splitlines() if "dan@example.org" in line]
    assert re.search(r" needs sign-in .* 2023-11-14 23:13 [^(]* 1 ", bob)
    assert re.search(r" live .* 2023-11-14 23:13 \(refreshed at the next login\) .* 1 ", dan)
    assert re.search(r" consent pending until 2096-10-03 07:06 .* 0 ", cleo)
    assert why == "bob@example.org: [bold]looks like markup[/] to some"


async def test_an_unbelievable_time_is_shown_all_the_same(tmp_path: Path) -> None:
    await keep(tmp_path / "state", replace(record(), expires_at_s=2**53))
    [line] = await listed(tmp_path)
    assert line["token_expires"].startswith("9999-12-")
    shown = await ended(*COMMAND, "accounts", "list", "--state", tmp_path / "state", cwd=tmp_path)
    assert shown.code == 0


async def test_an_account_goes_from_pending_to_live_to_needing_a_sign_in(site: Site) -> None:
    async def states() -> dict[str, str]:
        shown = await site.run("accounts", "list", "--json")
        assert shown.code == 0
        return {line["account"]: line["state"] for line in json.loads(shown.out)}

    everybody_absent = dict.fromkeys((ADA.casefold(), BOB, ROBOT), "absent")
    async with Authority(ini.load(site.config)) as authority:
        assert await states() == everybody_absent
        waiting = await authority.broker.sign_in(ADA, Secret(PASSWORD))
        assert waiting is not None
        assert await states() == {**everybody_absent, ADA.casefold(): "consent pending"}
        await approve(waiting.url)
        assert await waiting.wait(10)
    assert await states() == {**everybody_absent, ADA.casefold(): "live"}
    await site.sign_in(ROBOT)
    assert await states() == {BOB: "absent", ADA.casefold(): "live", ROBOT: "live"}

    text = (site.state / "accounts" / f"{ADA.casefold()}.ini").read_text()
    expired = re.sub(r"(?m)^expires_at_s = \d+$", "expires_at_s = 1", text)
    assert expired != text
    (site.state / "accounts" / f"{ADA.casefold()}.ini").write_text(expired)
    site.provider.next(refusal("invalid_grant"))
    assert not await site.log_in(ADA)
    await site.run("accounts", "remove", ADA)  # asked, not answered
    assert (await states())[ADA.casefold()] in ("needs sign-in", "consent pending")


async def test_the_last_error_comes_with_its_advice(tmp_path: Path) -> None:
    said = "invalid_grant: Invalid JWT Signature."
    await keep(
        tmp_path / "state",
        replace(record("ada@example.org"), last_error=said),
        replace(record("bob@example.org"), last_error="a meteor"),
    )
    ada, bob = await listed(tmp_path)
    assert ada["last_error"] == said
    assert "make a new key" in ada["advice"]["action"]
    assert ada["advice"]["temporary"] is False
    assert bob["advice"] is None
    command = (*COMMAND, "accounts", "list", "--state", tmp_path / "state")
    shown = await ended(*command, cwd=tmp_path, env={"COLUMNS": "60"})
    [_, line] = [line for line in shown.out.splitlines() if "ada@example.org" in line]
    assert line == f"ada@example.org: {said}; {ada['advice']['meaning']}; {ada['advice']['action']}"


async def test_advice_that_the_error_gives_itself_is_not_repeated(tmp_path: Path) -> None:
    told = str(advise("invalid_grant: Invalid JWT Signature."))
    await keep(tmp_path / "state", replace(record(), last_error=f"{told} (Google says: Invalid JWT Signature.)"))
    command = (*COMMAND, "accounts", "list", "--state", tmp_path / "state")
    shown = await ended(*command, cwd=tmp_path, env={"COLUMNS": "600"})
    assert shown.out.count(told) == 1
    assert shown.out.count("make a new key") == 1


@pytest.mark.parametrize(
    ("ends_in_s", "state"), [(-60, "refreshing"), (60, "refreshing"), (1500, "live")], ids=["over", "due", "fresh"]
)
async def test_an_account_is_refreshing_while_somebody_is_at_it(site: Site, ends_in_s: int, state: str) -> None:
    """Somebody in another process: this one holds the lock, the command looks."""
    now_s = int(datetime.now(UTC).timestamp())
    await keep(site.state, replace(record(BOB), expires_at_s=now_s + ends_in_s, obtained_at_s=now_s + ends_in_s - 3600))
    store = IniStore(site.state)
    async with store.locked(BOB):
        held = {line["account"]: line["state"] for line in json.loads((await site.run(*LIST)).out)}
    free = {line["account"]: line["state"] for line in json.loads((await site.run(*LIST)).out)}
    store.close()
    assert held[BOB] == state
    assert free[BOB] == "live"


async def test_the_configured_margin_counts(site: Site) -> None:
    site.sections["emailproxy"] = {"state_dir": site.state, "log_file": site.log_file, "refresh_margin": "30m"}
    site.configure()
    now_s = int(datetime.now(UTC).timestamp())
    await keep(site.state, replace(record(BOB), expires_at_s=now_s + 1500, obtained_at_s=now_s - 2500))
    store = IniStore(site.state)
    async with store.locked(BOB):
        held = {line["account"]: line["state"] for line in json.loads((await site.run(*LIST)).out)}
    store.close()
    assert held[BOB] == "refreshing"


async def test_another_state_folder_is_not_the_configuration_s(site: Site) -> None:
    await keep(site.folder / "elsewhere", record())
    shown = await site.run(*LIST, "--state", site.folder / "elsewhere")
    assert [line["account"] for line in json.loads(shown.out)] == ["ada@example.org"]


async def test_nobody_yet_is_said_with_the_next_step(tmp_path: Path) -> None:
    shown = await ended(*COMMAND, "accounts", "list", "--state", tmp_path / "state", cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "emailproxy authorize ACCOUNT" in shown.out
    assert await listed(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_a_state_folder_open_to_others_is_one_clear_line(tmp_path: Path) -> None:
    await keep(tmp_path / "state", record())
    (tmp_path / "state").chmod(0o755)
    shown = await ended(*COMMAND, "accounts", "list", "--state", tmp_path / "state", cwd=tmp_path)
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.complaints
    assert f"chmod 700 {tmp_path}/state" in line


async def test_a_wrong_configuration_keeps_nobody_from_the_accounts(site: Site) -> None:
    await keep(site.state, record())
    site.config.write_text(site.config.read_text() + "[IMAP-0]\n")
    shown = await site.run("accounts", "list", "--json")
    assert [line["account"] for line in json.loads(shown.out)] == ["ada@example.org"]


# ---- forgetting


async def test_an_account_is_forgotten_whatever_its_spelling(site: Site) -> None:
    await site.sign_in(ADA)
    await site.sign_in(BOB)
    await keep(site.state, pending("state", ADA, created_s=DISTANT))
    shown = await site.run("accounts", "remove", "aDA@EXAMPLE.org", "--yes")
    assert (shown.code, shown.err) == (0, "")
    assert "is forgotten" in shown.out
    assert list(site.files()) == [f"accounts/{BOB}.ini"]
    assert not await site.log_in(ADA)  # it must sign in again
    assert await site.log_in(BOB)


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1), (b"", 1)])
async def test_it_asks_first(tmp_path: Path, answer: bytes, code: int) -> None:
    await keep(tmp_path / "state", record())
    command = (*COMMAND, "accounts", "remove", "ada@example.org", "--state", tmp_path / "state")
    shown = await ended(*command, stdin=answer, cwd=tmp_path)
    assert shown.code == code
    assert "ada@example.org? It must sign in again" in shown.out
    assert len(await listed(tmp_path)) == code


@pytest.mark.parametrize("there", [True, False])
async def test_nothing_to_forget_is_a_failure(tmp_path: Path, there: bool) -> None:
    state = tmp_path / "state"
    if there:
        await keep(state, record())
    shown = await ended(*COMMAND, "accounts", "remove", BOB, "--yes", "--state", state, cwd=tmp_path)
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.complaints
    assert f"{BOB} has no tokens and no pending consent in {state}" in line
    assert state.exists() == there


async def test_a_damaged_account_can_be_forgotten(tmp_path: Path) -> None:
    await keep(tmp_path / "state", record())
    (tmp_path / "state" / "accounts" / "ada@example.org.ini").write_bytes(b"\xff")
    command = (*COMMAND, "accounts", "remove", "ada@example.org", "--yes", "--state", tmp_path / "state")
    assert (await ended(*command, cwd=tmp_path)).code == 0
    assert await listed(tmp_path) == []


@ROOT_ONLY
async def test_root_looks_at_the_services_state_and_leaves_it_the_services(reachable: Path) -> None:
    state = reachable / "state"
    state.mkdir(0o700)
    os.chown(state, SERVICE, SERVICE)
    await keep(state, record(), record(BOB))
    command = (*COMMAND, "accounts", "remove", BOB, "--yes", "--state", state)
    assert (await ended(*command, cwd=reachable)).code == 0
    assert {path.stat().st_uid for path in [state, *state.rglob("*")]} == {SERVICE}
    as_the_service = await ended(*another_user(SERVICE, "accounts", "list", "--json", "--state", state), cwd=reachable)
    assert [line["account"] for line in json.loads(as_the_service.out)] == ["ada@example.org"]
