"""SASL: what clients send, what servers want, and what their refusals mean."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator

import pytest

from emailproxy.errors import Kind, LoginRefused, ProtocolError
from emailproxy.secret import Secret
from emailproxy.wire import sasl
from emailproxy.wire.events import Credential, Login
from emailproxy.wire.lines import MAX_SASL_RESPONSE, LineTooLong


def b64(message: bytes) -> bytes:
    return base64.b64encode(message)


def login(user: str, password: str) -> Login:
    return Login(user, Secret(password))


def read(arguments: bytes, *responses: bytes) -> tuple[Login, list[bytes]]:
    """What an AUTH command comes to with these responses, and the prompts."""
    prompts: list[bytes] = []
    waiting = iter(responses)

    def ask(prompt: bytes) -> Generator[None, None, bytes]:
        prompts.append(prompt)
        yield
        return next(waiting)

    steps = sasl.read_login(arguments, ask)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            assert next(waiting, None) is None
            return done.value, prompts


P = b64(b"\0u\0p")
U, W = b64(b"u"), b64(b"p")
NAME, WORD = b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"

UNDERSTOOD = [
    pytest.param(b"PLAIN " + P, (), login("u", "p"), [], id="PLAIN inline"),
    pytest.param(b"plain " + P, (), login("u", "p"), [], id="in lower case"),
    pytest.param(b" PLAIN   " + P + b" ", (), login("u", "p"), [], id="spaces"),
    pytest.param(b"PLAIN", (P,), login("u", "p"), [b""], id="PLAIN prompted"),
    pytest.param(b"PLAIN =", (P,), login("u", "p"), [b""], id="an empty initial response"),
    pytest.param(b"PLAIN " + b64(b"u\0u\0p"), (), login("u", "p"), [], id="authzid is the user"),
    pytest.param(b"PLAIN " + b64(b"\0u\0"), (), login("u", ""), [], id="no password"),
    pytest.param(b"PLAIN " + b64("\0ü@x\0€".encode()), (), login("ü@x", "€"), [], id="UTF-8"),
    pytest.param(b"PLAIN " + b64(b"\0u\0\xfc"), (), login("u", "ü"), [], id="Latin-1"),
    pytest.param(b"PLAIN " + b64(b"\0D\\U\0a b\r\n"), (), login("D\\U", "a b\r\n"), [], id="odd characters"),
    pytest.param(b"PLAIN " + b64(b"\0" + b"u" * 254 + b"\0p"), (), login("u" * 254, "p"), [], id="the longest name"),
    pytest.param(b"LOGIN", (U, W), login("u", "p"), [NAME, WORD], id="LOGIN prompted"),
    pytest.param(b"login", (U, W), login("u", "p"), [NAME, WORD], id="login in lower case"),
    pytest.param(b"LOGIN " + U, (W,), login("u", "p"), [WORD], id="LOGIN with the user"),
    pytest.param(b"LOGIN =", (U, W), login("u", "p"), [NAME, WORD], id="LOGIN with nothing"),
    pytest.param(b"LOGIN " + U, (b"",), login("u", ""), [WORD], id="LOGIN without a password"),
]
ODD = [
    pytest.param(b"PLAIN ====", (), sasl.BadResponse, id="bad input 9, padding alone"),
    pytest.param(b"PLAIN \xff\xfe", (), sasl.BadResponse, id="not base64"),
    pytest.param(b"PLAIN AHUAcA", (), sasl.BadResponse, id="base64 without padding"),
    pytest.param(b"PLAIN AHUA cA==", (), sasl.BadResponse, id="base64 with a space"),
    pytest.param(b"PLAIN " + P + P, (), sasl.BadResponse, id="octets behind padding"),
    pytest.param(b"PLAIN", (b"*",), sasl.BadResponse, id="cancelled"),
    pytest.param(b"PLAIN", (b"",), sasl.BadResponse, id="an empty response"),
    pytest.param(b"PLAIN *", (), sasl.BadResponse, id="cancelled at once"),
    pytest.param(b"PLAIN " + b64(b"u\0p"), (), sasl.BadResponse, id="one NUL"),
    pytest.param(b"PLAIN " + b64(b"\0u\0p\0"), (), sasl.BadResponse, id="three NULs"),
    pytest.param(b"LOGIN", (b"*",), sasl.BadResponse, id="LOGIN cancelled at the user"),
    pytest.param(b"LOGIN", (U, b"*"), sasl.BadResponse, id="LOGIN cancelled at the password"),
    pytest.param(b"LOGIN dQ==", (b"\xff\xfe",), sasl.BadResponse, id="bad input 22"),
    pytest.param(b"PLAIN " + b64(b"\0u\x01auth=Bearer e\x01\x01\0p"), (), sasl.BadName, id="bad input 11"),
    pytest.param(b"PLAIN " + b64(b"\0u\x7f\0p"), (), sasl.BadName, id="DEL in the name"),
    pytest.param(b"PLAIN " + b64(b"\0a@b]\n[SMTP-25\0p"), (), sasl.BadName, id="bad input 39, a forged section"),
    pytest.param(b"PLAIN " + b64(b"\0\0p"), (), sasl.BadName, id="no name"),
    pytest.param(b"PLAIN " + b64(b"\0" + b"u" * 255 + b"\0p"), (), sasl.BadName, id="a name too long"),
    pytest.param(b"PLAIN " + b64(b"\0" + "ü".encode() * 128 + b"\0p"), (), sasl.BadName, id="octets are counted"),
    pytest.param(b"PLAIN " + b64(b"other\0u\0p"), (), sasl.BadName, id="for somebody else"),
    pytest.param(b"LOGIN", (b"", W), sasl.BadName, id="LOGIN without a name"),
    pytest.param(b"CRAM-MD5", (), sasl.NotOffered, id="CRAM-MD5"),
    pytest.param(b"XOAUTH2 x", (), sasl.NotOffered, id="XOAUTH2 from a client"),
    pytest.param(b"", (), sasl.NotOffered, id="no mechanism"),
    pytest.param(b"PLAIN " + b"A" * (MAX_SASL_RESPONSE + 1), (), LineTooLong, id="bad input 23, inline"),
]


@pytest.mark.parametrize(("arguments", "responses", "expected", "prompts"), UNDERSTOOD)
def test_a_login_is_read(arguments: bytes, responses: tuple[bytes], expected: Login, prompts: list[bytes]) -> None:
    assert read(arguments, *responses) == (expected, prompts)


@pytest.mark.parametrize(("arguments", "responses", "error"), ODD)
def test_a_login_that_cannot_be_read_is_refused(
    arguments: bytes, responses: tuple[bytes], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        read(arguments, *responses)
    assert type(caught.value) is error


def test_a_response_of_the_longest_length_is_read() -> None:
    password = "p" * (MAX_SASL_RESPONSE // 4 * 3 - 3)
    assert read(b"PLAIN " + b64(b"\0u\0" + password.encode())) == (login("u", password), [])


def test_a_bad_name_is_an_unknown_account_and_a_bad_response_is_not() -> None:
    assert issubclass(sasl.BadName, LoginRefused)
    assert sasl.BadName.kind is Kind.WRONG_LOGIN
    assert issubclass(sasl.BadResponse, ProtocolError)


@pytest.mark.parametrize(
    ("offered", "picked"),
    [
        (["PLAIN", "OAUTHBEARER", "XOAUTH2"], "XOAUTH2"),
        (["xoauth2"], "XOAUTH2"),
        (["PLAIN", "OAUTHBEARER"], "OAUTHBEARER"),
        (["PLAIN", "LOGIN", "XOAUTH"], None),
        ([], None),
    ],
)
def test_xoauth2_is_preferred_and_oauthbearer_taken(offered: list[str], picked: str | None) -> None:
    assert sasl.pick_mechanism(offered) == picked


def test_the_initial_responses_are_those_of_the_specifications() -> None:
    """The first is the example of Google's documentation, the second that of RFC 7628 section 4.1."""
    token = Secret("vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==")
    google = sasl.initial_response("XOAUTH2", Credential("someuser@example.com", Secret("ya29.vF9dft4")), "x", 1)
    assert base64.b64decode(google) == b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4\x01\x01"
    rfc = sasl.initial_response("OAUTHBEARER", Credential("user@example.com", token), "server.example.com", 143)
    assert rfc == (
        b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52"
        b"YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )


def test_a_name_cannot_end_its_field_of_the_header() -> None:
    response = sasl.initial_response("OAUTHBEARER", Credential("a,b=c@x", Secret("t")), "h", 1)
    assert base64.b64decode(response).startswith(b"n,a=a=2Cb=3Dc@x,\x01host=h\x01")


@pytest.mark.parametrize(("mechanism", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"AQ==")])
def test_a_failure_challenge_is_answered_as_its_mechanism_wants(mechanism: str, answer: bytes) -> None:
    assert sasl.failure_answer(mechanism) == answer


CHALLENGES = [
    pytest.param(b"eyJzdGF0dXMiOiI0MDEifQ==", "status 401", id="bad input 5"),
    pytest.param(
        b64(b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'),
        "status 400, schemes Bearer, scope https://mail.google.com/",
        id="Google's",
    ),
    pytest.param(b64(b'{"status":401,"x":null,"y":"","z":{"a":1},"w":[1]}'), "status 401", id="what is no text"),
    pytest.param(b64(b'{"a":"b\\r\\nc\\u0000d"}'), "a b c d", id="control characters"),
    pytest.param(b64(b'{"a":"\\ud800"}'), "a", id="half a surrogate pair"),
    pytest.param(b64(b'["no"]'), '["no"]', id="no object"),
    pytest.param(b64(b"go away\r\nnow"), "go away now", id="no JSON"),
    pytest.param(b64(b"\xff\xfe"), "\ufffd\ufffd", id="no text"),
    pytest.param(b"error, \xff", "error, \ufffd", id="no base64"),
    pytest.param(b"", "", id="nothing"),
]


@pytest.mark.parametrize(("challenge", "words"), CHALLENGES)
def test_a_failure_challenge_is_put_into_words(challenge: bytes, words: str) -> None:
    assert sasl.failure_text(challenge) == words


@pytest.mark.parametrize("message", [b"[" * 40_000, b'{"a":' + b"1" * 40_000 + b"}", b'{"a":1e999}'])
def test_no_json_is_too_odd(message: bytes) -> None:
    sasl.failure_text(b64(message))


def test_a_long_challenge_is_cut() -> None:
    assert len(sasl.failure_text(b64(json.dumps({"a": "b" * 10_000}).encode()))) == 300


def test_neither_password_nor_token_shows() -> None:
    assert "canary" not in repr(login("u", "canary"))
    assert "canary" not in repr(Credential("u", Secret("canary")))
