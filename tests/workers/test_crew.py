"""All workers together, where there is none at the moment, or one that cannot do what it is asked."""

from __future__ import annotations

import logging
from http import HTTPStatus
from pathlib import Path

import pytest

from emailproxy.admin.routes import FromElsewhere
from emailproxy.config.model import Config, Settings
from emailproxy.errors import ServiceError, StateError
from emailproxy.net.activation import Activated
from emailproxy.service import Reloaded
from emailproxy.workers.channel import Facts, Message
from emailproxy.workers.crew import Crew
from emailproxy.workers.routes import CrewRoutes
from tests.workers.pair import Silent, channels


@pytest.fixture
def faults() -> list[ServiceError]:
    return []


@pytest.fixture
async def crew(tmp_path: Path, faults: list[ServiceError]) -> Crew:
    """None of its workers is started."""
    settings = Settings(state_dir=tmp_path, log_file=tmp_path / "log", workers=2)
    config = Config(path=tmp_path / "emailproxy.ini", settings=settings, servers=(), sections={})
    return Crew(config, None, Activated({}), written=print, on_fault=faults.append)  # type: ignore[arg-type]


async def never(_elsewhere: FromElsewhere | None) -> Reloaded:
    raise AssertionError


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/status"), ("GET", "/accounts/passwords"), ("POST", "/accounts/passwords"), ("POST", "/accounts/forget")],
)
async def test_without_a_worker_requests_are_refused(crew: Crew, method: str, path: str) -> None:
    answer = await CrewRoutes(crew, never).answer(method, path, {}, b'{"account": "a@x"}')
    assert answer.status == HTTPStatus.CONFLICT
    assert "no worker runs at the moment" in str(answer.facts["error"])


class Exposed(Silent):
    async def asked(self, message: Message) -> Facts:
        raise StateError("the state folder is open to others")


async def test_who_cannot_look_for_consents_that_wait_still_replaces_the_one_before(
    crew: Crew, caplog: pytest.LogCaptureFixture
) -> None:
    (first, _) = crew._members
    async with channels(first, Exposed()) as (channel, _):
        first._channel = channel
        with caplog.at_level(logging.WARNING, "emailproxy"):
            await crew._resume(first)
    assert crew._redirecting is first
    assert "the state folder is open to others" in caplog.text
