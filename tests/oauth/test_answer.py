"""What a person may paste in place of the redirect: the whole address, as much of it as was copied, or the code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.answer import MAX_PASTED, Declined, NotAnAnswer, pasted
from emailproxy.secret import Secret

STATE = "S" * 43
ASKED = "https://login.example/authorize?state=" + STATE
ACCOUNT = Account(
    name="ada@example.org",
    section="ada@example.org",
    flow=FlowName.AUTHORIZATION_CODE,
    redirect_uri="http://localhost:8801/",
)


def read(text: str, account: Account = ACCOUNT) -> Secret | Declined:
    return pasted(text, account, Secret(STATE), ASKED)


QUERY = f"code=4%2F0A-b_c.d&state={STATE}"
CODES = [
    f"http://localhost:8801/?{QUERY}",
    f"  http://localhost:8801/?{QUERY}&session_state=x#frag \r\n",
    f"<http://localhost:8801/?{QUERY}>",
    f"'http://LOCALHOST:8801/?{QUERY}'",
    f"http://localhost:8801?{QUERY}",
    f"localhost:8801/?{QUERY}",
    f"/?{QUERY}",
    f"?{QUERY}",
    QUERY,
    f"http://localhost:8801/?{QUERY}&iss=https%3A%2F%2Flogin.example%2Ftenant",
    "4/0A-b_c.d",
    "4%2F0A-b_c.d",
    '"4/0A-b_c.d"',
]


@pytest.mark.parametrize("text", CODES)
def test_the_code_is_found(text: str) -> None:
    assert read(text) == Secret("4/0A-b_c.d")


@pytest.mark.parametrize(
    ("redirect_uri", "text"),
    [
        ("http://localhost/", "http://localhost:80/?code=x&state={}"),
        ("http://localhost/", "http://localhost/?code=x&state={}"),
        ("http://localhost/", "localhost/?code=x&state={}"),
        ("http://[::1]:8801/cb/", "http://[::1]:8801/cb?code=x&state={}"),
        ("https://vault.example/oauth", "https://vault.example:443/oauth/?code=x&state={}"),
    ],
)
def test_the_address_is_compared_as_addresses_are(redirect_uri: str, text: str) -> None:
    account = replace(ACCOUNT, redirect_uri=redirect_uri)
    assert read(text.format(STATE), account) == Secret("x")


WRONG = [
    ("", "neither an address nor a code|no code"),
    ("http://localhost:8801/", "no code|state"),
    (f"http://localhost:8801/?state={STATE}", "no code"),
    (f"http://localhost:8801/?state={STATE}&code=", "no code"),
    (f"http://localhost:8801/?state={STATE}&code=a&code=b", "more than one code"),
    (f"http://localhost:8801/?state={STATE}&state={STATE}&code=a", "more than one state"),
    (f"http://localhost:8801/?state={STATE}&code=%0d%0aX", "no code"),
    (f"http://localhost:8801/?state={'T' * 43}&code=a", "belongs to another sign-in"),
    ("http://localhost:8801/?code=a", "belongs to another sign-in"),
    ("?code=a", "belongs to another sign-in"),
    ("code=a&state=", "belongs to another sign-in"),
    (f"?error=access_denied&state={'T' * 43}", "belongs to another sign-in"),
    (f"http://localhost:8801/?{QUERY}&iss=https%3A%2F%2Fevil.example", "another provider"),
    (f"http://localhost:8801/?{QUERY}&iss=%5B", "another provider"),
    (f"http://evil.example/?{QUERY}", "address of another page"),
    (f"http://localhost:8802/?{QUERY}", "address of another page"),
    (f"http://localhost:8801/other?{QUERY}", "address of another page"),
    (f"http://[/?{QUERY}", "address of another page"),
    (f"http://localhost:x/?{QUERY}", "address of another page"),
    (ASKED + "&client_id=x", "address of another page"),
    ("what is an address", "neither an address nor a code"),
    ("hello", "neither an address nor a code"),
    ("abcdef\x00ghi", "no code"),
    ("x" * (MAX_PASTED + 1), f"more than {MAX_PASTED} characters"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_anything_else_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(NotAnAnswer, match=words) as caught:
        read(text)
    assert STATE not in str(caught.value)


def test_the_providers_error_is_told_in_its_words() -> None:
    answer = read(f"?error=access_denied&error_description=no%0d%0away&state={STATE}")
    assert isinstance(answer, Declined)
    assert answer.words == "access_denied (no way)"


def test_what_is_known_of_the_error_comes_first() -> None:
    said = "AADSTS65001: The user or administrator has not consented to use the application"
    answer = read(f"?error=consent_required&error_description={said.replace(' ', '+')}&state={STATE}")
    assert isinstance(answer, Declined)
    assert answer.advice is not None
    assert "administrator" in answer.advice.action
    assert str(answer) == f"{answer.advice} (it says: consent_required ({said}))"
