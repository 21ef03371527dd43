"""What a person's browser shows when a sign-in fails: what it means, what to do, then the provider's own words."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.fakes.provider import refusal
from tests.oauth.world import ADA, PASSWORD, World, browse

NOT_CONSENTED = "AADSTS65001: The user or administrator has not consented to use the application with ID 'x' named 'y'."
SECRET_ENDED = "AADSTS7000222: The provided client secret keys for app 'x' are expired."


def position(text: str, words: str) -> int:
    assert words in text
    return text.index(words)


@pytest.mark.parametrize(
    ("error", "description", "advised"),
    [
        ("consent_required", NOT_CONSENTED, "administrator"),
        ("access_denied", "", ""),
        ("<b>odd</b>", "<i>very</i>\r\nodd", ""),
    ],
)
async def test_the_providers_error_is_explained_and_quoted(
    world: World, error: str, description: str, advised: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.account()
    process = await world.process()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    query = urlencode({"state": waiting.state.reveal(), "error": error, "error_description": description})
    seen = await browse(f"http://127.0.0.1:{world.port}/?{query}")
    assert seen.status == 400
    quoted = position(seen.text, "It says: ")
    if advised:
        assert position(seen.text, advised) < quoted
        assert "AADSTS65001" in seen.text[quoted:]
    assert "<b>" not in seen.text
    assert "<i>" not in seen.text
    assert "\n" not in caplog.messages[-1]
    assert caplog.messages[-1].startswith(f"the provider did not sign {ADA} in: ")
    assert advised in caplog.messages[-1]
    assert "succeeded" in (await browse(waiting.url)).text  # the same link can be tried again


async def test_a_refused_exchange_is_explained_and_quoted(world: World) -> None:
    world.account()
    process = await world.process()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    world.provider.next(refusal("invalid_client", SECRET_ENDED))
    seen = await browse(waiting.url)
    assert seen.status == 400
    assert position(seen.text, "client_secret") < position(seen.text, "AADSTS7000222")
