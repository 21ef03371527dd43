"""Whole configurations of other programs, and what is nobody's."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emailproxy.config import importing
from emailproxy.config.importing import FORMATS
from tests.config.importing.samples import CANARY, MUTT, OAMA_CONFIG, OAMA_RECORD, built, js, only

PIZAUTH = rb"""
auth_notify_cmd = "notify-send \"$PIZAUTH_ACCOUNT\"";  // a comment
http_listen = none;
account "office" {
    auth_uri = "https://login.microsoftonline.com/common/oauth2/v2.0/authorize";
    token_uri = "https://login.microsoftonline.com/common/oauth2/v2.0/token";
    client_id = "client"; // with "quotes"
    client_secret = "can\\ary\"";
    scopes = [
      "https://outlook.office365.com/IMAP.AccessAsUser.All",
      "offline_access",
    ];
    refresh_at_least = 90m;
    auth_uri_fields = { "login_hint": "ada@example.com", "prompt": "login", "domain_hint": "x y", "state": "z" };
}
account "officesmtp" {
    auth_uri = "https://login.microsoftonline.com/common/oauth2/v2.0/authorize";
    token_uri = "https://login.microsoftonline.com/common/oauth2/v2.0/token";
    client_id = "client";
    client_secret = "can\\ary\"";
    scopes = ["https://outlook.office365.com/SMTP.Send", "offline_access"];
    login_hint = "ada@example.com";
}
account "bob@example.com" { auth_uri = "https://login.example.com/a"; token_uri = "https://login.example.com/t";
    client_id = "b"; scopes = ["mail"]; redirect_uri = "http://localhost:1234/back"; }
"""


class TestPizauth:
    def test_a_configuration(self) -> None:
        found = importing.read(PIZAUTH, "pizauth.conf")
        ada, bob = (built(account) for account in found.accounts)
        assert (ada.name, bob.name) == ("ada@example.com", "bob@example.com")
        assert found.accounts[0].settings["client_secret"] == 'can\\ary"'
        assert ada.scope.split() == [
            "https://outlook.office365.com/IMAP.AccessAsUser.All",
            "offline_access",
            "https://outlook.office365.com/SMTP.Send",
        ]
        assert (ada.prompt, ada.authorize_params) == ("login", (("domain_hint", "x y"),))
        assert (ada.redirect_uri, bob.redirect_uri) == ("http://localhost:8801/", "http://localhost:8801/back/")
        told = "\n".join(found.unread)
        assert "auth_notify_cmd: set on_consent_required" in told
        assert "auth_uri_fields has state, which emailproxy sets itself" in told
        assert told.count("signs in anew") == 2

    @pytest.mark.parametrize(
        ("octets", "words"),
        [
            (b'account "office" { client_id = "x"; }\n', "account office names no mail address"),
            (b'account "a@b" {\n  client_id = "x"\n}\n', "line 3 is not in pizauth's grammar"),
            (b'account "a@b" {\n  client_id = "x;\n', "line 2 is not"),
            (b'account "a@b" {\n  scopes = ["x" "y"];\n}', "line 2 is not"),
            (b'account "a@b" { ', "line 1 is not"),
            (b'account "a@b" {}\naccount "c" { client_id = "y"; login_hint = "a@b"; }', "with another client"),
        ],
    )
    def test_what_cannot_be_read_is_told(self, octets: bytes, words: str) -> None:
        assert any(words in line for line in importing.read(octets, "pizauth.conf").unread)


THEIRS = f"""\
[Server setup]
documentation = Servers.
[IMAP-1993]
server_address = imap.example.com
server_port = 993
[Some notes]
x = y
[ada@example.com]
token_url = https://login.example.com/token
permission_url = https://login.example.com/authorize
oauth2_scope = mail
   offline_access
client_id = client
client_secret = {CANARY}
[your.email@example.com]
client_id = *** your client id here ***
[emailproxy]
allow_catch_all_accounts = True
""".encode()
STORE = b"""\
[ada@example.com]
token_salt = MDEyMzQ1Njc4OWFiY2RlZg==
refresh_token = gAAAAA
[bob@example.com]
token_salt = x
"""


class TestAnotherProxys:
    def test_accounts_servers_and_settings(self) -> None:
        found = importing.read(THEIRS, "emailproxy.config")
        account = only(found)
        assert built(account).scope == "mail offline_access"
        assert found.sections == {
            "IMAP-1993": {"server_address": "imap.example.com", "server_port": "993"},
            "emailproxy": {"allow_catch_all_accounts": "True"},
        }
        assert found.unread == (
            "emailproxy.config: [Some notes] is neither an account nor a server",
            "emailproxy.config: [your.email@example.com] client_id still holds a placeholder: it is no account yet",
        )

    def test_its_cache_store_joins_its_configuration(self) -> None:
        ada, bob = importing.read_all([(THEIRS, "emailproxy.config"), (STORE, "store")]).accounts
        assert (ada.settings["client_id"], ada.settings["refresh_token"]) == ("client", "gAAAAA")
        assert (bob.name, dict(bob.settings)) == ("bob@example.com", {"token_salt": "x"})

    def test_faults_of_the_file_are_told(self) -> None:
        found = importing.read(THEIRS + b"[ada@example.com]\nclient_id = other\nstray\n", "x")
        assert only(found).settings["client_id"] == "client"
        assert any("line 19" in line and "twice" in line for line in found.unread)
        assert any("line 21" in line for line in found.unread)


ARMOURED = b"-----BEGIN PGP MESSAGE-----\n\nx\n"


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (ARMOURED, "(umask 077; gpg --decrypt '/a b/c' > c.plain), and import c.plain"),
        (b"\x85\x01\x0c\x03\xff", "encrypted with GnuPG"),
        (b"\xc1\xc0\xff", "encrypted with GnuPG"),
        (b"age-encryption.org/v1\n-> X25519 x\n", "age --decrypt --identity KEYFILE"),
        (b"\xff\xfe\x00", "is no text"),
        (b"hello", "in none of the formats"),
        (b"{}", "in none of the formats"),
        (b"[]", "in none of the formats"),
        (b"", "in none of the formats"),
        (b" " * ((16 << 20) + 1), "is larger than"),
    ],
)
def test_what_is_nobodys_or_locked_is_told(octets: bytes, words: str) -> None:
    found = importing.read(octets, "/a b/c")
    assert (found.accounts, found.sections) == ((), {})
    [line] = found.unread
    assert line.startswith("c: ")
    assert words in line


@pytest.mark.parametrize("kind", FORMATS)
def test_the_format_may_be_said(kind: str) -> None:
    found = importing.read(
        js(refresh_token="r", email="ada@example.com", client_id="c"), "bob@example.com", format=kind
    )
    names = {"mutt_oauth2": "ada@example.com", "oama": "ada@example.com", "sasl-xoauth2": "bob@example.com"}
    assert [account.name for account in found.accounts] == ([names[kind]] if kind in names else [])


def test_no_secret_is_shown() -> None:
    files = [js(**MUTT), js(**OAMA_RECORD), THEIRS, js(refresh_token=CANARY, client_secret=CANARY, user="a@b"), PIZAUTH]
    for octets in files:
        found = importing.read(octets, "x")
        assert found.accounts
        assert "canary" not in repr(found)


PIECES = (
    "account",
    '"',
    "{",
    "}",
    "=",
    ";",
    "[",
    "]",
    ",",
    ":",
    "\n",
    "a@b",
    "services:",
    "  ",
    "email",
    "scopes",
    "\\",
)
SEEDS = (js(**MUTT), js(**OAMA_RECORD), OAMA_CONFIG, PIZAUTH, THEIRS, STORE)


TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map(lambda parts: "".join(parts).encode())
CUTS = st.tuples(st.sampled_from(SEEDS), st.integers(0, 900), st.binary(max_size=3)).map(
    lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + 2 :]
)


@settings(max_examples=200, deadline=None)
@given(TEXTS | CUTS | st.binary(max_size=60), st.sampled_from([None, *FORMATS]))
@example(b"[" * 20_000, None)
@example(b'{"a":' * 20_000, None)
@example(b"services: " + b"[" * 20_000, None)
@example(b'account "' + b"\\" * 20_001, "pizauth")
def test_any_octets_are_taken_apart(octets: bytes, kind: str | None) -> None:
    found = importing.read(octets, "file", format=kind)
    assert found.accounts or found.sections or found.unread
