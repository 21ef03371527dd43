"""Shared mailboxes on one person's consent, other names for an account, and providers that allow few sessions."""

from __future__ import annotations

import asyncio
import smtplib
from pathlib import Path

import pytest

from tests.e2e.harness.browser import visit
from tests.e2e.harness.exchange import MOST_SUBMISSIONS
from tests.e2e.harness.tenant import DELEGATED, tenant
from tests.e2e.harness.world import PASSWORD, USER

SHARED = [f"{name}@example.com" for name in ("sales", "support", "billing")]


async def test_one_consent_serves_many_mailboxes(tmp_path: Path) -> None:
    mailboxes = {name: {"token_owner": USER} for name in SHARED}
    async with tenant(tmp_path, scope=DELEGATED, accounts=mailboxes) as ours:
        ours.server.delegates[USER] = set(SHARED)
        await ours.sign_in()

        def use_mail() -> None:
            for name in SHARED:
                ours.log_in_imap(name).logout()
                ours.log_in_smtp(name).quit()

        await asyncio.to_thread(use_mail)
        assert "[AUTHENTICATIONFAILED]" in await ours.refusal("IMAP", SHARED[0], "another password")
        accepted = [(attempt.protocol, attempt.user) for attempt in ours.server.attempts if attempt.accepted]
        assert accepted == [("IMAP", USER), *[(kind, name) for name in SHARED for kind in ("IMAP", "SMTP")]]
        assert [request.grant for request in ours.provider.requests] == ["authorization_code"]
        assert len(ours.provider.authorizations) == 1


async def test_a_shared_mailboxs_first_login_asks_its_owner(tmp_path: Path) -> None:
    async with tenant(tmp_path, scope=DELEGATED, accounts={SHARED[0]: {"token_owner": USER}}) as ours:
        ours.server.delegates[USER] = set(SHARED)
        login = asyncio.create_task(asyncio.to_thread(ours.log_in_imap, SHARED[0]))
        url = await ours.proxy.consent_url(USER)
        await visit(url, ours.authority)
        (await login).logout()
        assert ours.provider.authorizations[0]["login_hint"] == USER
        await ours.log_in("IMAP")
        assert len(ours.provider.requests) == 1


async def test_the_user_upstream_may_be_another(tmp_path: Path) -> None:
    names = {"auth_as": SHARED[1], "smtp_auth_as": USER, "token_owner": USER}
    async with tenant(tmp_path, scope=DELEGATED, accounts={SHARED[0]: names}) as ours:
        ours.server.delegates[USER] = set(SHARED)
        await ours.sign_in()
        await asyncio.to_thread(lambda: (ours.log_in_imap(SHARED[0]).logout(), ours.log_in_smtp(SHARED[0]).quit()))
        assert [(attempt.protocol, attempt.user) for attempt in ours.server.attempts[1:]] == [
            ("IMAP", SHARED[1]),
            ("SMTP", USER),
        ]


async def test_an_account_has_other_names(tmp_path: Path) -> None:
    names = ["EXAMPLE\\ann", "ann", "ann@example.com\\sales"]
    async with tenant(tmp_path, scope=DELEGATED, accounts={USER: {"aliases": ", ".join(names)}}) as ours:
        await ours.sign_in()
        for name in [*names, USER.upper()]:
            await asyncio.to_thread(lambda name=name: ours.log_in_imap(name).logout())
        assert [attempt.user for attempt in ours.server.attempts] == [USER] * 5
        assert len(ours.provider.requests) == 1


async def test_submissions_above_the_providers_limit_wait_for_their_turn(tmp_path: Path) -> None:
    limits = {"max_connections_per_account": MOST_SUBMISSIONS, "login_queue": "20 s"}
    async with tenant(tmp_path, settings=limits) as ours:
        standing = [await asyncio.to_thread(ours.log_in_smtp) for _ in range(MOST_SUBMISSIONS)]
        waiting = [asyncio.create_task(asyncio.to_thread(ours.log_in_smtp)) for _ in range(2)]
        await ours.log_in("IMAP")  # another protocol has a limit of its own
        assert not any(task.done() for task in waiting)
        for client in standing:
            await asyncio.to_thread(client.quit)
        for client in await asyncio.gather(*waiting):
            await asyncio.to_thread(client.quit)
        assert len([attempt for attempt in ours.server.attempts if attempt.protocol == "SMTP"]) == 5
        assert ours.server.turned_away == []


async def test_a_login_that_waits_in_vain_is_told_to_come_back(tmp_path: Path) -> None:
    limits = {"max_connections_per_account": 1, "login_queue": "1 s"}
    async with tenant(tmp_path, settings=limits) as ours:
        first = await asyncio.to_thread(ours.log_in_smtp)
        second = smtplib.SMTP("127.0.0.1", ours.smtp)
        second.ehlo()
        second.user, second.password = USER, PASSWORD
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            await asyncio.to_thread(second.auth, "PLAIN", second.auth_plain)
        assert (refused.value.smtp_code, b"4.7.0" in bytes(refused.value.smtp_error)) == (454, True)
        await asyncio.to_thread(first.quit)
        await asyncio.to_thread(second.auth, "PLAIN", second.auth_plain)  # on the same connection
        await asyncio.to_thread(second.quit)
