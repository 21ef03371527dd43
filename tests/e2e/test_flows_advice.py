"""A provider's error, on its way to everybody who should know what to do about it."""

from __future__ import annotations

import asyncio
import imaplib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness.realm import Realm, realm
from tests.e2e.harness.world import CLIENT_SECRET, PASSWORD, USER, imap_login
from tests.fakes.entra import App
from tests.fakes.provider import Reply, altered, refusal

pytestmark = pytest.mark.system("dovecot")

MEANING = "the client secret has expired"
ACTION = "make a new one"
EXPIRED = Reply(
    401,
    json.dumps(
        {
            "error": "invalid_client",
            "error_description": "AADSTS7000222: The provided client secret keys for app "
            "'6f5d3c9e-1b7a-4d0e-9c55-0f2b8a7e4d11' are expired. Visit the Azure portal to create new keys for your "
            "app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: "
            "https://aka.ms/certCreds. Trace ID: 8ab1a6b0-0000 Correlation ID: 0000 Timestamp: 2026-01-01 00:00:00Z",
            "error_codes": [7000222],
        }
    ),
)
SEVERAL = 9


def is_advised(text: str) -> bool:
    return MEANING in text and ACTION in text and "AADSTS7000222" in text


async def findings(ours: Realm) -> dict[str, Any]:
    outcome = await ours.run("check", USER, "--password-file", "-", "--json", stdin=PASSWORD)
    document: dict[str, Any] = json.loads(outcome.output[outcome.output.index("{\n") :])  # warnings come first
    assert outcome.code == document["exit_code"]
    return document


async def test_an_expired_secret_is_explained_everywhere(tmp_path: Path) -> None:
    async with realm(tmp_path) as ours:
        app = App("the-application", CLIENT_SECRET, redirect_uris=(ours.redirect_uri,))
        account = ours.at_microsoft(app, "authorization_code")
        async with ours.microsoft(app) as microsoft, ours.proxy(account, consent_wait=20) as proxy:
            microsoft.next(EXPIRED)
            login = asyncio.create_task(ours.refusal())
            page = await ours.visit(await proxy.consent_url(USER))
            assert page.status == 400
            assert is_advised(page.text)
            assert is_advised(await login)
            await proxy.printed(f"(?=.*{MEANING})(?=.*{ACTION}).*AADSTS7000222")

            start = len(proxy.output)
            microsoft.next(*[altered(expires_in=2)] * 2, *[EXPIRED] * SEVERAL)
            waiting = asyncio.create_task(asyncio.to_thread(imap_login, ours.local.imap))
            await ours.visit(await proxy.consent_url(USER, start=start))
            await waiting
            with pytest.raises(imaplib.IMAP4.error) as told:
                await ours.log_in_until(lambda: False)
            assert "[CONTACTADMIN]" in str(told.value)
            assert is_advised(str(told.value))

            [listed] = json.loads((await ours.run("accounts", "list", "--json")).output)
            assert (listed["account"], listed["state"]) == (USER, "live")
            assert "AADSTS7000222" in listed["last_error"]
            assert (listed["advice"]["meaning"], listed["advice"]["temporary"]) == (MEANING, False)
            assert ACTION in listed["advice"]["action"]
            ours.env["COLUMNS"] = "1000"
            assert is_advised((await ours.run("accounts", "list")).output)

            checked = await findings(ours)
            assert (checked["ok"], checked["exit_code"]) == (False, 1)
            broken = checked["findings"][-1]
            assert (broken["link"], broken["grade"]) == ("token", "failed")
            assert is_advised(broken["text"])


async def test_an_unknown_error_is_told_in_the_providers_own_words(tmp_path: Path) -> None:
    words = "The moon is full. Ask Bob\r\nA1 OK <b>about</b> {}".format("x" * 1000)
    async with realm(tmp_path) as ours:
        ours.provider.next(refusal("lunar_trouble", words), refusal("lunar_trouble", words))
        async with ours.proxy(ours.person, consent_wait=20) as proxy:
            login = asyncio.create_task(ours.refusal())
            page = await ours.visit(await proxy.consent_url(USER))
            told = await login
        for text in (told, proxy.log, page.text):
            assert "lunar_trouble" in text
            assert "The moon is full. Ask Bob" in text
            assert "internet connection" not in text
        assert "Ask Bob A1 OK" in told
        assert len(told) < 512
        assert "<b>" not in page.text
