"""Canaries: what must reach neither the log nor a file."""

from __future__ import annotations

import logging

import pytest

from emailproxy.errors import ConsentRequired, ProviderRefused, ProviderUnavailable, WrongPassword
from tests.fakes.provider import refusal, unavailable
from tests.oauth.world import ADA, CLIENT_SECRET, PASSWORD, WRONG, World, browse


async def test_no_secret_reaches_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world.account()
    process = await world.process(wait_s=0)
    await world.signed_in(process)
    seen = {await process.login(), PASSWORD.reveal(), CLIENT_SECRET, WRONG.reveal()}
    with pytest.raises(WrongPassword):
        await process.login(password=WRONG)
    for faults in ([unavailable()] * 4, [refusal("invalid_client", CLIENT_SECRET)], [refusal("invalid_grant")]):
        world.turned.turn(3600)
        world.provider.next(*faults)
        with pytest.raises((ProviderUnavailable, ProviderRefused, ConsentRequired)):
            await process.login()
    for request in world.provider.requests:
        seen |= {request.form[name] for name in ("code", "code_verifier", "refresh_token") if name in request.form}
    assert len(seen) == 6  # the code and its verifier among them
    for secret in seen:
        assert secret not in caplog.text


async def test_neither_files_nor_log_hold_what_must_not_be_there(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.account()
    process = await world.process(wait_s=0)
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert waiting.state.reveal() not in repr(waiting.state)
    for data in world.files().values():
        assert waiting.state.reveal().encode() not in data
    await browse(waiting.url)
    (request,) = world.provider.requests
    token = await process.login()
    for secret in (request.form["code"], request.form["code_verifier"], token, PASSWORD.reveal()):
        assert secret not in caplog.text
        for data in world.files().values():
            assert secret.encode() not in data
