"""`emailproxy status` and `emailproxy reload`: a running server, seen and steered from the command line."""

from __future__ import annotations

import json
import stat

import pytest

from emailproxy.admin.paths import socket_name
from tests.cli.site import ADA, ROBOT, ROOT_ONLY, SERVICE, Site, another_user, ended


async def test_without_a_server_it_says_so_and_how_to_start_one(site: Site) -> None:
    for command in ("status", "reload"):
        shown = await site.run(command)
        assert (shown.code, shown.out) == (1, "")
        [line] = shown.complaints
        assert line == (
            f"emailproxy: no emailproxy server runs for the state folder {site.state}; start it with emailproxy serve, "
            "or name the configuration of the one that runs with --config"
        )


async def test_it_shows_listeners_and_accounts_and_reloads(site: Site) -> None:
    await site.sign_in(ROBOT)
    async with site.serving() as proxy:
        place = site.state / socket_name(site.state)  # there is no runtime folder here
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        facts = json.loads((await site.run("status", "--json")).out)
        assert (facts["pid"], facts["config"]["path"]) == (proxy.pid, str(site.config))
        assert facts["uptime_s"] >= 0
        shown = await site.run("status")
        assert (shown.code, shown.err) == (0, "")
        [listener] = [line for line in shown.out.splitlines() if f"IMAP-{site.imap}" in line]
        assert listener.split() == [
            *(f"IMAP-{site.imap}", f"127.0.0.1:{site.imap}", "unsecured", "localhost:1", "(SSL/TLS)", "0", "0")
        ]
        [robot] = [line for line in shown.out.splitlines() if ROBOT in line]
        assert "live, locked" in robot
        assert "refused since the start: none" in shown.out

        site.config.write_text(site.config.read_text().replace(f"[{ADA}]", "[eve@example.org]"))
        again = await site.run("reload")
        # with --config, as every command of a `Site`, the text comes from the command
        assert (again.code, again.out) == (0, f"The configuration is in force.\nunchanged: IMAP-{site.imap}\n")
        accounts = json.loads((await site.run("status", "--json")).out)["accounts"]
        assert "eve@example.org" in [account["account"] for account in accounts]

        site.config.write_text(site.config.read_text().replace("[emailproxy]", "[emailproxy]\nlog_files = -1\nx = 1"))
        wrong = await site.run("reload", "--state", site.state)
        assert (wrong.code, wrong.out) == (78, "")
        assert [line for line in wrong.complaints if "log_files" in line]
        assert wrong.complaints[0].startswith(f"emailproxy: {site.config}:")
        assert "the configuration before stays in force" in wrong.complaints[-1]
    assert not place.exists()


async def test_a_server_without_a_control_socket_serves_all_the_same(site: Site) -> None:
    """Its path would be too long; the log says what to do."""
    site.sections["emailproxy"] = {
        "state_dir": site.state,
        "log_file": site.log_file,
        "runtime_dir": site.folder / ("x" * 100),
    }
    site.configure()
    async with site.serving():
        pass
    assert "WARNING there is no control socket" in site.log
    assert "set runtime_dir" in site.log


@ROOT_ONLY
@pytest.mark.parametrize("where", ["state", "run"])
async def test_other_users_are_told_whose_it_is(reachable: str, where: str) -> None:
    async with Site.at(reachable) as site:  # type: ignore[arg-type]
        site.sections["emailproxy"] = {
            "state_dir": site.state,
            "log_file": site.log_file,
            **({"runtime_dir": site.folder / "run"} if where == "run" else {}),
        }
        site.configure().chmod(0o644)
        async with site.serving():
            asked = await ended(*another_user(SERVICE, "status", "--config", site.config), cwd=site.folder)
    assert asked.code == 1
    [line] = asked.complaints
    assert "run this as that user or as root" in line
