"""Tokens that somebody else's program prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest

from emailproxy.config.model import Account, FlowName
from emailproxy.errors import ProviderUnavailable
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.tokencommand import TokenCommand, tokens_in
from emailproxy.secret import Secret
from tests.oauth.world import ADA, World

NOW = 1_800_000_000


class Odd(ProviderUnavailable):
    """What `complain` makes here."""


def taken(printed: object) -> TokenSet:
    raw = printed if isinstance(printed, bytes) else json.dumps(printed).encode()
    return tokens_in(raw, NOW, Odd)


def account_of(*arguments: str, **changes: Any) -> Account:
    return Account(name=ADA, section=ADA, flow=FlowName.TOKEN_COMMAND, token_command=arguments, **changes)


@pytest.mark.parametrize("printed", [b"ya29.token", b"ya29.token\n", b"\r\n ya29.token \r\n"])
def test_a_bare_token_is_taken(printed: bytes) -> None:
    tokens = taken(printed)
    assert tokens.access_token == Secret("ya29.token")
    assert tokens.expires_at_s is None


@pytest.mark.parametrize(
    ("end", "expires_at_s"),
    [
        ({}, None),
        ({"expires_in": 3599}, NOW + 3599),
        ({"expires_in": "3599"}, NOW + 3599),
        ({"expires_in": None}, None),
        ({"expires_on": NOW + 60}, NOW + 60),
        ({"expires_on": str(NOW + 60)}, NOW + 60),
        ({"expires_at": NOW + 60.5}, NOW + 60),
        ({"expiry": "2027-01-15T08:01:00Z"}, NOW + 60),
        ({"expiry": "2027-01-15T10:01:00.123456789+02:00"}, NOW + 60),
        ({"expiresOn": "2027-01-15 08:01:00z"}, NOW + 60),
        ({"expires_on": NOW + 60, "expiresOn": "2027-01-15 09:01:00.000000"}, NOW + 60),
        ({"expires_in": 30, "expires_at": NOW + 60}, NOW + 30),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["access_token", "accessToken", "token"])
def test_json_with_a_token_and_its_end_is_taken(name: str, end: dict[str, Any], expires_at_s: int | None) -> None:
    more = {"refresh_token": "rt", "tokenType": "Bearer", "tenant": "x", "scope": "a b"}
    tokens = taken({name: "at", **end, **more})
    assert tokens == TokenSet(Secret("at"), expires_at_s)


def test_who_a_token_is_of_is_read() -> None:
    token = jwt.encode({"upn": ADA}, "k" * 32, algorithm="HS256")
    assert taken(token.encode()).identities == (ADA,)


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b" \r\n",
        b"two words",
        b"line\nline",
        "tökén".encode(),
        b"\xff\xfe",
        b"a" * 16_385,
        b"{",
        b'{"a":' * 20_000,
        b'["token"]',
        b'"token"',
        b"<html>",
        b"Error: not signed in",
        {},
        {"access_token": ""},
        {"access_token": None},
        {"access_token": 7},
        {"access_token": "a\r\nb"},
        {"AccessToken": "at"},
        {"access_token": "at", "expires_in": "x"},
        {"access_token": "at", "expires_in": -1},
        {"access_token": "at", "expires_in": 0},
        {"access_token": "at", "expires_in": 1e99},
        {"access_token": "at", "expires_in": True},
        {"access_token": "at", "expires_on": "soon"},
        {"access_token": "at", "expires_on": True},
        {"access_token": "at", "expires_on": NOW},
        {"access_token": "at", "expires_on": NOW - 1},
        {"access_token": "at", "expires_on": NOW * 1000},
        {"access_token": "at", "expires_on": 1e400},
        {"access_token": "at", "expires_on": float("nan")},
        {"access_token": "at", "expiry": "2027-01-15T08:01:00"},
        {"access_token": "at", "expiry": "2027-13-45T08:01:00Z"},
        {"access_token": "at", "expiry": "0001-01-01T00:00:00+23:59"},
        {"access_token": "at", "expiry": {"year": 2027}},
    ],
    ids=lambda printed: repr(printed)[:50],
)
def test_anything_else_is_none(printed: object) -> None:
    with pytest.raises(Odd) as caught:
        taken(printed)
    assert "signed" not in str(caught.value)


async def test_it_is_run_anew_for_every_token(world: World, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    program = f'echo x >>{counter}; printf \'{{"access_token": "at-%s", "expires_in": 60}}\' $(wc -l <{counter})'
    flow = TokenCommand(Commands(), world.turned.clock)
    account = account_of("sh", "-c", program)
    first = await flow.acquire(account)
    second = await flow.refresh(account, first)
    assert (first.access_token, second.access_token) == (Secret("at-1"), Secret("at-2"))
    assert second.expires_at_s == world.turned.wall + 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("false",), "failed (exit code 1)"),
        (("true",), "printed nothing; let it print a token"),
        (("echo", "canary is not a token"), "neither a token nor a JSON object"),
        (("echo", '{"access_token": "canary", "expires_in": "x"}'), "an expires_in that is no number"),
        (("echo", '{"canary": 1}'), "JSON without access_token"),
        (("echo", "{canary"), "neither a token nor a JSON object"),
        (("yes", "canary"), "more than 64 KiB"),
        (("/nowhere/oama", "canary"), "cannot be run: /nowhere/oama: No such file"),
        ((sys.executable, "-c", "import time; time.sleep(100)"), "did not end within 0.1 s"),
    ],
    ids=repr,
)
async def test_a_program_that_brings_no_token_is_temporary_and_named(
    world: World, arguments: tuple[str, ...], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    account = account_of(*arguments, token_command_timeout=0.1 if "-c" in arguments else 30)
    with pytest.raises(ProviderUnavailable) as caught:
        await TokenCommand(Commands(), world.turned.clock).acquire(account)
    assert str(caught.value).startswith(f"the token_command of {ADA}")
    assert said in str(caught.value)
    assert "canary" not in str(caught.value) + caplog.text
