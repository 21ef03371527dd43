"""Client secrets that need not stay in the configuration: sealed at the first login, or the login's own password."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.e2e.harness.proxy import Proxy, serve
from tests.e2e.harness.tenant import DELEGATED, Tenant, tenant
from tests.e2e.harness.world import CLIENT_SECRET, USER

LINE = f"client_secret = {CLIENT_SECRET}\n"


async def take_the_secret_out(folder: Path, proxy: Proxy) -> None:
    """Of the configuration, while the server runs."""
    config = folder / "emailproxy.ini"
    assert LINE in config.read_text()
    config.write_text(config.read_text().replace(LINE, ""))
    start = len(proxy.output)
    proxy.process.send_signal(signal.SIGHUP)
    await proxy.printed("is in force now", start=start)


def state_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (folder / "state").rglob("*") if path.is_file()}


async def refreshed(ours: Tenant) -> None:
    """A login whose token the mail server does not take any more, so that a fresh one is asked for."""
    ours.provider.revoke_access_tokens()
    await ours.log_in("IMAP")
    last = ours.provider.requests[-1]
    assert (last.grant, last.status, last.form["client_secret"]) == ("refresh_token", 200, CLIENT_SECRET)


async def test_a_sealed_secret_may_leave_the_configuration(tmp_path: Path) -> None:
    settings = {"encrypt_client_secret_on_first_use": True}
    async with tenant(tmp_path, scope=DELEGATED, settings=settings) as ours:
        await ours.sign_in()
        await ours.proxy.printed(f"the client_secret of {USER} is sealed in the state folder now")
        assert LINE in (tmp_path / "emailproxy.ini").read_text(), "the file is its owner's"
        await take_the_secret_out(tmp_path, ours.proxy)
        await refreshed(ours)
        await ours.proxy.stop()
        config = tmp_path / "emailproxy.ini"
        async with serve("--config", config, log_file=tmp_path / "log", home=tmp_path) as again:
            await refreshed(ours)
        assert [request.grant for request in ours.provider.requests].count("authorization_code") == 1
        places = (ours.proxy.output, again.output, again.log, *map(str, state_of(tmp_path).values()))
        assert not any(CLIENT_SECRET in place for place in places)


async def test_the_logins_password_is_the_secret_and_a_wrong_one_deletes_nothing(tmp_path: Path) -> None:
    settings = {
        "use_login_password_as_client_credentials_secret": True,
        "delete_account_token_on_password_error": True,
    }
    async with tenant(tmp_path, settings=settings) as ours:
        await ours.proxy.printed("nothing is ever deleted for it")
        await take_the_secret_out(tmp_path, ours.proxy)
        assert "[AUTHENTICATIONFAILED]" in await ours.refusal("IMAP", password="a guess at the secret")
        assert kept(tmp_path) == b""
        (await asyncio.to_thread(ours.log_in_imap, USER, CLIENT_SECRET)).logout()
        await ours.proxy.printed(f"account {USER} is set up")
        (await asyncio.to_thread(ours.log_in_imap, USER, CLIENT_SECRET)).logout()
        async with asyncio.timeout(10):
            while b"last_used_s" not in kept(tmp_path):
                await asyncio.sleep(0.02)
        before = kept(tmp_path)
        for protocol, code in (("IMAP", "[AUTHENTICATIONFAILED]"), ("SMTP", "535")):
            assert code in await ours.refusal(protocol, password="another guess at the secret")
        assert kept(tmp_path) == before
        await asyncio.to_thread(lambda: ours.log_in_smtp(USER, CLIENT_SECRET).quit())
        asked = [(request.form["client_secret"], request.status) for request in ours.provider.requests]
        assert asked.count((CLIENT_SECRET, 200)) == 1
        assert {status for secret, status in asked if secret != CLIENT_SECRET} == {401}
        assert CLIENT_SECRET not in ours.proxy.log


def kept(folder: Path) -> bytes:
    """What the state folder holds of the account; empty where there is nothing."""
    return b"".join(path.read_bytes() for path in sorted((folder / "state" / "accounts").glob("*.ini")))
