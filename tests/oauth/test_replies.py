"""Every kind of reply of a token endpoint, and what it means."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from emailproxy.errors import AuthorizationPending, ProviderRefused, ProviderUnavailable
from emailproxy.oauth.advice import advise
from emailproxy.oauth.replies import (
    MAX_RETRY_AFTER_S,
    Reply,
    Unreadable,
    refused,
    retry_after_s,
    tokens_of,
    without,
)
from emailproxy.secret import Secret

NOW = 1_800_000_000
GOOD = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt", "scope": "a b"}


def reply(body: object = None, *, status: int = 200, retry_after: str | None = None) -> Reply:
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return Reply("login.example", status, retry_after, raw)


def test_a_grant_is_read() -> None:
    tokens = tokens_of(reply(GOOD), now_s=NOW)
    assert tokens.access_token == Secret("at")
    assert tokens.refresh_token == Secret("rt")
    assert tokens.expires_at_s == NOW + 3600
    assert tokens.scope == "a b"


@pytest.mark.parametrize(
    ("changes", "expires_at_s"),
    [
        ({"expires_in": "3599"}, NOW + 3599),
        ({"expires_in": 3599.0}, NOW + 3599),
        ({"expires_in": None}, None),
        ({"ext_expires_in": "x", "refresh_token_expires_in": -1, "not_before": []}, NOW + 3600),
        ({"scope": ["a", "b"]}, NOW + 3600),
        ({"token_type": "bEARER"}, NOW + 3600),
        ({"token_type": None}, NOW + 3600),
        ({"refresh_token": None}, NOW + 3600),
        ({"refresh_token": ""}, NOW + 3600),
        ({"scope": None}, NOW + 3600),
        ({"expires_at": "soon", "id_token": "x.y.z"}, NOW + 3600),
    ],
)
def test_what_providers_vary_is_taken(changes: dict[str, Any], expires_at_s: int | None) -> None:
    assert tokens_of(reply({**GOOD, **changes}), now_s=NOW).expires_at_s == expires_at_s


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_in": "x"},
        {"expires_in": -1},
        {"expires_in": 1e99},
        {"expires_in": True},
        {"expires_in": [3600]},
        {"access_token": 12345},
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "a\r\nA2 LOGOUT"},
        {"access_token": "tökén"},
        {"access_token": "a" * 16_385},
        {"access_token": ["a"]},
        {"refresh_token": "a\r\nb"},
        {"refresh_token": 7},
        {"token_type": "mac"},
        {"token_type": 3},
        {"scope": 7},
        {"error": {"code": 1}},
        {"error": ""},
        {"error": 'quote"'},
    ],
)
def test_an_odd_grant_is_a_temporary_failure(changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match=r"login\.example"):
        tokens_of(reply({**GOOD, **changes}), now_s=NOW)


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"[]",
        b'"text"',
        b"<html>Sign in to this network</html>",
        b'{"access_token": \xff',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"access_token": "a',
        b"access_token=a&token_type=bearer",
        b"{}",
    ],
    ids=lambda body: repr(body)[:30],
)
@pytest.mark.parametrize("status", [200, 302, 400, 404])
def test_no_reply_of_oauth_is_a_temporary_failure(body: bytes | None, status: int) -> None:
    with pytest.raises(Unreadable):
        tokens_of(reply(body, status=status), now_s=NOW)


def test_a_grant_under_another_status_is_none() -> None:
    with pytest.raises(Unreadable):
        tokens_of(reply(GOOD, status=302), now_s=NOW)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_a_busy_provider_is_one_to_come_back_to(status: int) -> None:
    body = {"error": "invalid_grant"}  # the status says more than the body
    with pytest.raises(ProviderUnavailable) as caught:
        tokens_of(reply(body, status=status, retry_after="17"), now_s=NOW)
    assert caught.value.retry_after_s == 17
    assert not isinstance(caught.value, Unreadable)


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error"])
def test_some_error_codes_mean_busy(code: str) -> None:
    with pytest.raises(ProviderUnavailable, match=code):
        tokens_of(reply({"error": code}, status=400), now_s=NOW)


@pytest.mark.parametrize("status", [400, 401, 403, 200])
@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "interaction_required"])
def test_a_refusal_has_its_code_and_words(code: str, status: int) -> None:
    body = {"error": code, "error_description": "AADSTS70043:\r\n sign\x00 in again\x1b[31m"}
    with pytest.raises(ProviderRefused) as caught:
        tokens_of(reply(body, status=status), now_s=NOW)
    assert caught.value.code == code
    advice, _, said = str(caught.value).partition(" (the provider at login.example says: ")
    assert advice == str(advise(f"{code}: AADSTS70043: sign in again"))
    assert said == f"{code}: AADSTS70043: sign in again [31m)"


def test_an_unknown_refusal_is_in_the_providers_own_words() -> None:
    with pytest.raises(ProviderRefused) as caught:
        tokens_of(reply({"error": "odd_error", "error_description": "so it is"}, status=400), now_s=NOW)
    assert str(caught.value) == "the provider at login.example refused (odd_error): so it is"


def test_a_refusal_that_passes_by_itself_is_temporary() -> None:
    error = refused("login.example", "invalid_grant", "AADSTS90033: A transient error has occurred", [])
    assert isinstance(error, ProviderUnavailable)
    assert "AADSTS90033" in str(error)


@pytest.mark.parametrize(("code", "slow_down"), [("authorization_pending", False), ("slow_down", True)])
def test_a_device_that_nobody_approved_yet_is_pending(code: str, slow_down: bool) -> None:
    with pytest.raises(AuthorizationPending) as caught:
        tokens_of(reply({"error": code}, status=400), now_s=NOW)
    assert caught.value.slow_down is slow_down


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("expired_token", "in time"),
        ("access_denied", "declined"),
        ("authorization_declined", "declined"),
    ],
)
def test_the_end_of_a_devices_sign_in_is_told_clearly(code: str, said: str) -> None:
    with pytest.raises(ProviderRefused, match=said) as caught:
        tokens_of(reply({"error": code}, status=400), now_s=NOW)
    assert caught.value.code == code
    assert str(caught.value).endswith(f"(the provider at login.example says: {code})")


def test_who_signed_in_is_read_from_either_token() -> None:
    def signed(**claims: str) -> str:
        return jwt.encode(claims, "k" * 32, algorithm="HS256")

    body = {**GOOD, "access_token": signed(upn="ada@example.org"), "id_token": signed(email="Ada@example.org")}
    assert tokens_of(reply(body), now_s=NOW).identities == ("Ada@example.org", "ada@example.org")
    assert tokens_of(reply({**GOOD, "id_token": {"a": 1}}), now_s=NOW).identities == ()


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (404, b" <!doctype html>"), (302, None), (307, b"{}")])
def test_a_web_page_is_told_for_what_it_is(status: int, body: bytes | None) -> None:
    with pytest.raises(Unreadable, match=r"sign in to the network.*tokens are kept"):
        tokens_of(reply(body, status=status), now_s=NOW)


def test_a_reply_without_end_is_told_for_what_it_is() -> None:
    with pytest.raises(Unreadable, match="more than 64 KiB"):
        tokens_of(reply(None), now_s=NOW)


def test_a_refusal_never_repeats_what_was_sent() -> None:
    body = {"error": "invalid_grant", "error_description": "token s3cr3t-refresh is revoked"}
    with pytest.raises(ProviderRefused) as caught:
        tokens_of(reply(body, status=400), now_s=NOW, sent=[Secret("s3cr3t-refresh")])
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("description", ["x" * 10_000, ["list"], {"a": 1}, None, 7])
def test_a_refusal_is_short_whatever_the_provider_writes(description: object) -> None:
    body = {"error": "invalid_client", "error_description": description}
    with pytest.raises(ProviderRefused) as caught:
        tokens_of(reply(body, status=401), now_s=NOW)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("60", 60),
        (" 7 ", 7),
        ("0", None),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("²", None),
        ("9" * 400, None),
        ("999999", MAX_RETRY_AFTER_S),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Fri, 15 Jan 2027 08:01:00", 60),
        ("Fri, 15 Jan 2027 07:00:00 GMT", None),
        ("Fri, 15 Jan 99999 07:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW) == wait_s


def test_what_we_sent_is_not_quoted() -> None:
    assert without([Secret("abcd"), Secret("e")], "abcd is not the e of abcde") == "*** is not the e of ***e"


def test_a_refusal_is_one_short_line() -> None:
    with pytest.raises(ProviderRefused) as caught:
        tokens_of(
            reply({"error": "invalid_grant", "error_description": "a\r\nb\x00c\u2028d\u202ee" + "x" * 1000}), now_s=NOW
        )
    assert ": a b c d ex" in str(caught.value)
    assert len(str(caught.value)) < 600
