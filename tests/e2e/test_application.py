"""An application's token opens any mailbox; what logins cost upstream; a token that the server stops taking."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.e2e.harness.tenant import DELEGATED, tenant

USERS = ("ann@example.com", "bob@example.com", "shared-mailbox@example.com")


async def test_an_applications_token_opens_any_mailbox_of_the_domain(tmp_path: Path) -> None:
    async with tenant(tmp_path) as ours:

        def use_mail() -> None:
            for user in USERS:
                with ours.log_in_imap(user) as imap:
                    assert imap.select() == ("OK", [b"0"])
                with ours.log_in_smtp(user) as smtp:
                    assert smtp.mail(user)[0] == 250

        await asyncio.to_thread(use_mail)
        assert {request.grant for request in ours.provider.requests} == {"client_credentials"}
        accepted = {(attempt.protocol, attempt.user) for attempt in ours.server.attempts if attempt.accepted}
    assert accepted == {(protocol, user) for protocol in ("IMAP", "SMTP") for user in USERS}


async def test_a_user_of_another_domain_is_refused_before_anything_is_asked_for(tmp_path: Path) -> None:
    async with tenant(tmp_path) as ours:
        assert "[AUTHENTICATIONFAILED]" in await ours.refusal("IMAP", "eve@elsewhere.example")
        assert (ours.provider.requests, ours.server.attempts) == ([], [])


# After the greeting. SMTP: EHLO, STARTTLS, EHLO, then AUTH and, the token being too long for one line, its response.
@pytest.mark.parametrize(
    ("greeting", "protocol", "round_trips"),
    [
        (True, "IMAP", [1, 1]),
        (False, "IMAP", [2, 1]),  # the capabilities are asked for once
        (False, "SMTP", [5, 5]),
    ],
)
async def test_a_login_costs_no_more_round_trips_than_the_protocol_needs(
    tmp_path: Path, greeting: bool, protocol: str, round_trips: list[int]
) -> None:
    async with tenant(tmp_path, greeting_names_capabilities=greeting) as ours:
        for _ in round_trips:
            await ours.log_in(protocol)
        assert [attempt.round_trips for attempt in ours.server.attempts] == round_trips


async def test_a_client_that_says_nothing_costs_the_server_nothing(tmp_path: Path) -> None:
    async with tenant(tmp_path) as ours:
        await ours.log_in("IMAP")
        before = ours.server.connections
        reader, writer = await asyncio.open_connection("127.0.0.1", ours.imap)
        assert (await reader.readline()).startswith(b"* OK")
        await ours.log_in("IMAP")
        assert ours.server.connections == before + 1
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("protocol", ["IMAP", "SMTP"])
async def test_a_refused_token_is_replaced_in_the_same_session(tmp_path: Path, protocol: str) -> None:
    async with tenant(tmp_path) as ours:
        await ours.log_in(protocol)
        ours.provider.revoke_access_tokens()
        await ours.log_in(protocol)
        assert [attempt.accepted for attempt in ours.server.attempts] == [True, False, True]
        assert ours.server.connections == 2
        assert len(ours.provider.requests) == 2


@pytest.mark.parametrize("protocol", ["IMAP", "SMTP"])
async def test_a_refused_token_of_a_person_is_refreshed(tmp_path: Path, protocol: str) -> None:
    async with tenant(tmp_path, scope=DELEGATED) as ours:
        await ours.sign_in()
        ours.provider.revoke_access_tokens()
        await ours.log_in(protocol)
        grants = [request.grant for request in ours.provider.requests]
        assert grants == ["authorization_code", "refresh_token"]
        assert len(ours.provider.authorizations) == 1


@pytest.mark.parametrize(("protocol", "code"), [("IMAP", "[AUTHORIZATIONFAILED]"), ("SMTP", "535")])
async def test_a_token_that_is_refused_twice_is_explained(tmp_path: Path, protocol: str, code: str) -> None:
    async with tenant(tmp_path, application_claims={"roles": []}) as ours:
        answer = await ours.refusal(protocol)
        assert code in answer
        assert [attempt.accepted for attempt in ours.server.attempts] == [False, False]
        await ours.proxy.printed("401")  # the challenge is decoded for the log
        assert code in await ours.refusal(protocol)
        assert len(ours.provider.requests) == 2, "at most one forced refresh a minute"
