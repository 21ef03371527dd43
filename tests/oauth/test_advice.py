"""The table of errors: every text that is known finds its row, whole as it came; no other does, and none takes long."""

from __future__ import annotations

import base64
import random
import time

import pytest

from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.oauth.advice import MAX_TEXT, NOT_THE_PROVIDER, PROVIDER_DOWN, advise, no_refresh_token, readable, table
from emailproxy.oauth.advice.row import duration
from tests.oauth.texts import ALL

MAX_ADVICE = 300  # characters: with as much of a server's own words as helps, it fits into 512 octets


@pytest.mark.parametrize("name", ALL)
def test_a_known_error_is_explained(name: str) -> None:
    known = ALL[name]
    advice = advise(known.text)
    assert advice is not None
    assert known.piece in advice.action
    assert advice.temporary == known.passes
    assert len(str(advice)) <= MAX_ADVICE
    assert str(advice).isprintable()
    assert "{" not in str(advice)


@pytest.mark.parametrize("name", ALL)
def test_line_ends_and_what_stands_around_an_error_do_not_hide_it(name: str) -> None:
    text = ALL[name].text
    assert advise(f"the provider at login.example refused: {text}\r\n and more") == advise(text)


def test_every_row_is_the_first_that_some_text_finds() -> None:
    texts = [readable(known.text) for known in ALL.values()]
    found = {next(row for row in table() if row.pattern.search(text)) for text in texts}
    assert [row for row in table() if row not in found] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OK",
        "NO [AUTHENTICATIONFAILED] Authentication failed.",
        "-ERR [AUTH] Authentication failed.",
        "535 5.7.8 Error: authentication failed:",
        "invalid_target: unknown resource",
        "AADSTS500110: something that nobody has seen yet",
        "AADSTS5001: a code that others begin with",
        "eyJub3QganNvbg==",
        "the mail server offers neither XOAUTH2 nor OAUTHBEARER",
        "the mail server does not offer STARTTLS on this port: check server_starttls and server_port",
        "NO LOGIN failed",
        "-ERR Login failed.",
        "NO Login failed.",
        "NO AUTHENTICATE failed",
        "421 4.7.0 mx.example Too many errors, try again later",
        "454 4.7.0 Too many login attempts; try again later",
        "421 4.3.2 Server busy",
        "invalid_target: the redirect_uri of the other client has another resource",
    ],
)
def test_of_an_unknown_error_nothing_is_said(text: str) -> None:
    assert advise(text) is None


def test_a_challenge_is_told_in_words() -> None:
    advice = advise(ALL["mail challenge"].text)
    assert advice is not None
    assert "(status 401)" in advice.meaning
    assert "the scope https://mail.example/imap" in advice.meaning


def test_a_server_cannot_put_words_of_its_own_form_into_the_advice() -> None:
    hostile = b'{"status":"401","scope":"{0}{wait}{status.__class__}' + b"x" * 300 + b'"}'
    advice = advise(base64.b64encode(hostile).decode())
    assert advice is not None
    assert "{0}{wait}{status.__class__}xxx" in advice.meaning
    assert len(str(advice)) <= MAX_ADVICE


HOSTILE = {
    "one letter": "A" * 65_536,
    "blanks": " " * 65_536,
    "base64": "eyJ" + "A" * 65_536,
    "pieces of base64": "eyJhAAAAAAA " * 6_000,
    "codes": "AADSTS" * 11_000,
    "beginnings": "status a scope ( Request is throttled 5.7.139 SmtpClientAuthentication STOREDRV " * 900,
    "4.7.0": "4.7.0 try again " * 4_100,
    "noise": "".join(random.Random(3).choices("AADST5.7139 staus(){}\"'=\n", k=65_536)),  # noqa: S311 - no secret
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_costs_milliseconds(name: str) -> None:
    advise("warm")
    took_s = []
    for _ in range(3):
        started_s = time.process_time()
        advise(HOSTILE[name])
        took_s.append(time.process_time() - started_s)
    assert min(took_s) < 0.05


def test_what_lies_far_behind_is_not_looked_at() -> None:
    assert advise("x" * MAX_TEXT + " AADSTS50057") is None


@pytest.mark.parametrize("row", table(), ids=lambda row: row.pattern.pattern[:40])
def test_no_row_blames_the_internet_connection(row: object) -> None:
    words = f"{row.meaning} {row.action}".casefold()  # type: ignore[attr-defined]
    assert "connection" not in words or "connections" in words
    assert "internet" not in words
    assert not words.endswith(".")


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "1 s"), (89.117, "90 s"), (119.9, "120 s"), (299.91, "5 min")])
def test_waits_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def account(token_url: str, provider: ProviderName = ProviderName.GENERIC) -> Account:
    return Account(
        name="ada@example.org", section="x", flow=FlowName.AUTHORIZATION_CODE, provider=provider, token_url=token_url
    )


@pytest.mark.parametrize(
    ("configured", "piece"),
    [
        (
            account("https://login.microsoftonline.com/c/oauth2/v2.0/token", ProviderName.MICROSOFT),
            "add offline_access",
        ),
        (account("https://oauth2.googleapis.com/token"), "myaccount.google.com/connections"),
        (account("https://oauth2.example/token"), "if the provider knows it"),
    ],
)
def test_a_missing_refresh_token_is_explained_by_provider(configured: Account, piece: str) -> None:
    advice = no_refresh_token(configured)
    assert piece in advice.action
    assert "ada@example.org" in advice.meaning


def test_a_provider_that_is_down_is_waited_for() -> None:
    assert PROVIDER_DOWN.temporary
    assert NOT_THE_PROVIDER.temporary
