"""What root does to the files of a service that runs as another user: they stay the service's, and it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from emailproxy.cli.main import cli
from tests.cli.records import messages
from tests.cli.site import (
    ADA,
    BOB,
    PASSWORD,
    ROBOT,
    ROOT_ONLY,
    SERVICE,
    Site,
    another_user,
    approve,
    ended,
    reply,
    under_a_manager,
)
from tests.e2e.harness.proxy import COMMAND
from tests.e2e.harness.world import write_config

pytestmark = ROOT_ONLY

CAROL = "carol@example.org"
KEY = ADA.casefold()


@pytest.fixture
async def services_site(reachable: Path) -> AsyncIterator[Site]:
    """All that is there is the configuration, in the service's own folder; its group may read it."""
    async with Site.at(reachable) as site:
        site.sections["emailproxy"] = {"state_dir": site.state, "log_file": site.log_file, "consent_wait": 0}
        site.configure().chmod(0o640)
        for path in (reachable, site.config):
            os.chown(path, SERVICE, SERVICE)
        yield site


def modes(site: Site) -> dict[str, tuple[int, int, str]]:
    """Owner, group and mode of all that there is."""
    found = {}
    for path in [site.folder, *site.folder.rglob("*")]:
        info = path.lstat()
        found[str(path.relative_to(site.folder))] = (info.st_uid, info.st_gid, oct(stat.S_IMODE(info.st_mode)))
    return found


async def authorize(site: Site) -> None:
    given = f"{PASSWORD}\n".encode()
    async with site.running("authorize", ADA, "--password-file", "-", stdin=given) as program:
        found = await program.printed(r"Please visit the following URL to authenticate account (\S+): (\S+)\n")
        assert "succeeded" in await approve(found[2])
        assert await program.end(20) == 0, program.output


async def take_over(site: Site) -> None:
    """Another proxy's account, and another program's tokens."""
    with tempfile.TemporaryDirectory() as name:
        accounts = write_config(Path(name) / "emailproxy.config", {CAROL: site.application})
        tokens = Path(name) / "tokens"
        tokens.write_text(json.dumps({"user": BOB, "refresh_token": "canary", "access_token": "x", "expiry": "0"}))
        await run(site, "import", accounts, "--json")
        await run(site, "import", tokens, "--password-file", "-", given=PASSWORD)


async def run(site: Site, *arguments: str | Path, given: str = "") -> str:
    """One of root's commands; what it printed."""
    command = [*map(str, arguments), "--config", str(site.config)]
    done = await asyncio.to_thread(CliRunner().invoke, cli, command, input=given)
    assert done.exit_code == 0, done.output
    return done.stdout


async def test_whatever_root_does_before_and_beside_it_the_service_goes_on(services_site: Site) -> None:
    site = services_site
    first = await site.run("authorize", ROBOT, "--password-file", "-", stdin=PASSWORD.encode())  # it has never run yet
    assert first.code == 0, first
    await run(site, "certificate", "--hosts", "localhost")
    command = another_user(SERVICE, "serve", "--config", site.config)
    async with under_a_manager(site, *command, user=SERVICE) as program:
        assert b"[UNAVAILABLE]" in await reply(site.imap, ROBOT, PASSWORD)
        before = modes(site)
        added = await run(site, "accounts", "add-password", ROBOT, "--name", "scanner")
        beside = await run(site, "accounts", "add-password", ROBOT, "--name", "x", "--unlock-file", "-", given=PASSWORD)
        await authorize(site)
        assert messages(await run(site, "logs", "-n", "1"))
        await run(site, "accounts", "remove-password", ROBOT, "scanner")
        await take_over(site)
        await run(site, "certificate")
        reloaded = await ended(*COMMAND, "reload", "--state", site.state, cwd=site.folder)  # it reads the file itself
        assert reloaded.code == 0, reloaded
        after = modes(site)
        assert {name: facts for name, facts in after.items() if name in before} == before
        assert {owner for owner, *_ in after.values()} == {SERVICE}
        assert {f"state/accounts/{name}.ini" for name in (KEY, BOB)} <= after.keys() - before.keys()

        assert b"[AUTHENTICATIONFAILED]" in await reply(site.imap, ROBOT, added.strip())
        for user, password in ((ROBOT, beside.strip()), (ADA, PASSWORD), (CAROL, PASSWORD)):
            assert b"[UNAVAILABLE]" in await reply(site.imap, user, password), user
        await run(site, "accounts", "remove", ADA, "--yes")
        # the service makes all of it anew: record, lock and pending consent
        assert b"[AUTHENTICATIONFAILED]" not in await reply(site.imap, ADA, "another")
        assert await program.stop() == 0
    made = modes(site)
    assert {owner for owner, *_ in made.values()} == {SERVICE}
    assert [name for name in made if name.startswith("state/pending/") and name.endswith(".ini")]
    assert messages(site.log)[-1] == "stopped"
