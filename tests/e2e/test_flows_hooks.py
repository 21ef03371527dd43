"""What happens to accounts is told to programs and URLs, by the running server."""

from __future__ import annotations

import hashlib
import hmac
import imaplib
import json
from dataclasses import fields
from pathlib import Path

import pytest

from emailproxy.config.model import Settings as Known
from tests.e2e.harness.realm import Settings, realm
from tests.e2e.harness.world import USER
from tests.fakes.provider import altered
from tests.oauth.receiver import Receiver, Told

pytestmark = pytest.mark.system("dovecot")

HOOKS = sorted(one.name for one in fields(Known) if one.name.startswith("on_"))
SECRET = "canary of the hook's"
SEVERAL = 9


def is_signed(told: Told) -> bool:
    wanted = "sha256=" + hmac.new(SECRET.encode(), told.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(told.headers.get("X-Emailproxy-Signature", ""), wanted)


@pytest.mark.parametrize("by", ["command", "POST"])
async def test_whoever_is_named_is_told_from_the_first_login_to_the_next_sign_in(tmp_path: Path, by: str) -> None:
    async with Receiver.open() as receiver, realm(tmp_path) as ours:
        ours.canaries.add(SECRET)
        place = json.dumps(receiver.program) if by == "command" else receiver.url
        ours.provider.next(*[altered(expires_in=1)] * SEVERAL)
        hooks: Settings = dict.fromkeys(HOOKS, place)
        async with ours.proxy(ours.person, also=None, hook_secret=SECRET, **hooks):
            await ours.sign_in()
            await ours.log_in_until(lambda: ours.provider.arrived > 1)
            ours.provider.revoke_refresh_tokens()
            with pytest.raises(imaplib.IMAP4.error, match="UNAVAILABLE"):
                await ours.log_in_until(lambda: False)
            told = await receiver.wait_for(5)
            while told[-1].fields["event"] == "token_refreshed":
                await receiver.wait_for(len(told) + 1)
        ours.said += [one.body.decode() for one in told]

        asked, failed, renewed, *_ = (one.fields for one in told)
        assert [one.fields["event"] for one in told if one.fields["event"] != "token_refreshed"] == [
            "consent_required",
            "login_failed",
            "sign_in_needed",
            "consent_required",
        ]
        assert {one.fields["account"] for one in told} == {USER}
        assert asked["link"].startswith(f"{ours.redirect_uri}c/")
        assert asked["url"].startswith(ours.provider.permission_url)
        assert (failed["protocol"], failed["address"]) == ("IMAP", "127.0.0.1")
        assert asked["link"] in failed["reason"]
        assert renewed["event"] == "token_refreshed"
        assert renewed["expires"] > renewed["time"]
        assert [is_signed(one) for one in told] == [by == "POST"] * len(told)


async def test_a_login_waits_for_no_hook(tmp_path: Path) -> None:
    async with Receiver.open() as receiver, realm(tmp_path) as ours:
        receiver.gate.clear()
        async with ours.proxy(ours.person, on_consent_required=receiver.url) as proxy:
            await ours.sign_in()
            assert len(await receiver.wait_for(1)) == 1
            receiver.gate.set()
        assert "the hook on_" not in proxy.output
