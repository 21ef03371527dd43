"""Token files of mutt_oauth2, oama and sasl-xoauth2, as their authors document them."""

from __future__ import annotations

import json

import pytest

from emailproxy.config import importing
from tests.config.importing.samples import CANARY, MICROSOFTS, MUTT, OAMA_CONFIG, OAMA_RECORD, built, js, only, tokens


class TestMutt:
    def test_a_token_file(self) -> None:
        found = importing.read(js(**MUTT), "ada.tokens")
        account = only(found)
        assert tokens(account) == (f"{CANARY}-access", f"{CANARY}-refresh", 1767268800)
        ours = built(account)
        assert (ours.flow, ours.token_url, ours.client_id) == ("authorization_code", f"{MICROSOFTS}/token", "client")
        assert ours.client_secret is None
        assert found.unread == ()

    @pytest.mark.parametrize(
        ("change", "flow", "page", "words"),
        [
            ({"authflow": "devicecode"}, "device", f"{MICROSOFTS}/devicecode", None),
            (
                {"registration": "google", "authflow": "devicecode"},
                "authorization_code",
                "https://accounts.google.com/o/oauth2/auth",
                "a browser is used",
            ),
        ],
    )
    def test_the_way_of_signing_in(self, change: dict[str, str], flow: str, page: str, words: str | None) -> None:
        found = importing.read(js(**{**MUTT, **change}), "x")
        assert (built(only(found)).flow, built(only(found)).permission_url) == (flow, page)
        assert (words is None and not found.unread) or (words and words in found.unread[0])

    def test_the_packaged_script_has_the_endpoints_with_it(self) -> None:
        registration = {
            "authorize_endpoint": "https://login.example.com/authorize",
            "token_endpoint": "https://login.example.com/token",
            "scope": "mail",
        }
        values = {**MUTT, "registration": registration, "access_token_expiration": 1767268800.5}
        account = only(importing.read(js(**values), "x"))
        assert (built(account).token_url, built(account).scope) == ("https://login.example.com/token", "mail")
        assert account.expires_at_s == 1767268800

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"client_id": ""}, "client_id is not in the file; fill it in before emailproxy serve (the script itself"),
            ({"registration": "else"}, "its registration is 'else'"),
            ({"email": ""}, "has no email"),
            ({"email": "a@b]\n[IMAP-1"}, "cannot be an account's name"),
            ({"email": "ada"}, "'ada' cannot be an account's name"),
            ({"refresh_token": ""}, "signs in anew"),
        ],
    )
    def test_what_it_lacks_is_told(self, change: dict[str, str], words: str) -> None:
        assert any(words in line for line in importing.read(js(**{**MUTT, **change}), "x").unread)

    @pytest.mark.parametrize("ends", ["", "soon", None, 1e99, float("-inf"), True, []])
    def test_an_end_that_is_none(self, ends: object) -> None:
        assert only(importing.read(js(**{**MUTT, "access_token_expiration": ends}), "x")).expires_at_s in (None, 1)


class TestOama:
    def test_configuration_and_records_belong_together(self) -> None:
        names = ("microsoft", "google", "yahoo")
        records = [
            (js(**{**OAMA_RECORD, "service": name, "email": {"unEmailAddress": f"{name}@example.com"}}), name)
            for name in names
        ]
        found = importing.read_all([*records, (OAMA_CONFIG, "config.yaml")])
        microsoft, google, yahoo = (built(account) for account in found.accounts)
        assert [account.name for account in (microsoft, google, yahoo)] == [f"{name}@example.com" for name in names]
        assert (microsoft.client_id, microsoft.flow) == ("client", "device")
        assert microsoft.permission_url == "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/devicecode"
        assert microsoft.scope == "https://outlook.office.com/IMAP.AccessAsUser.All offline_access"
        assert json.loads(found.accounts[1].settings["client_secret_command"])[2] == "pass email/my-app | head -1"
        assert (google.token_url, google.flow) == ("https://oauth2.googleapis.com/token", "authorization_code")
        assert (yahoo.scope, yahoo.redirect_uri) == ("mail-w", "http://127.0.0.1:8801/done/")
        assert tokens(found.accounts[0]) == (f"{CANARY}-access", f"{CANARY}-refresh", 1767268800)
        assert [line.partition(": ")[2] for line in found.unread if "yahoo" in line] == [
            "yahoo: auth_http_method have no counterpart: requests are made as RFC 6749 has them"
        ]
        assert any("gpg --decrypt" in line for line in found.unread)

    def test_a_record_alone_lacks_its_client(self) -> None:
        found = importing.read(js(**OAMA_RECORD), "x")
        assert built(only(found)).token_url == f"{MICROSOFTS}/token"
        assert any("client_id is not in the file" in line and "config.yaml" in line for line in found.unread)

    def test_a_keyrings_tokens_are_fetched_by_a_command(self) -> None:
        found = importing.read(OAMA_CONFIG.replace(b"GPG", b"KEYRING"), "config.yaml")
        assert found.accounts == ()
        assert "secret-tool lookup oama ACCOUNT" in found.unread[0]

    @pytest.mark.parametrize(
        "octets", [b"services: [", b"services: x\n", b"services:\n  - &a [*a]\n", b"encryption: !!python/x y\n"]
    )
    def test_what_is_no_configuration_is_told(self, octets: bytes) -> None:
        found = importing.read(octets, "config.yaml")
        assert found.accounts == ()
        assert found.unread


class TestSaslXoauth2:
    def test_token_files_take_the_client_of_the_configuration(self) -> None:
        conf = js(client_id="client", client_secret=CANARY, token_endpoint=f"{MICROSOFTS}/token", proxy="http://p:1")
        first = js(refresh_token="r", access_token="a", expiry="1767268800")
        second = js(refresh_token="q", expiry=0, user="bob@example.com", client_id="bob's")
        files = [(conf, "/etc/sasl-xoauth2.conf"), (first, "/etc/tokens/ada@example.com"), (second, "tokens.json")]
        found = importing.read_all(files)
        ada, bob = found.accounts
        assert (ada.name, bob.name) == ("ada@example.com", "bob@example.com")
        assert (tokens(ada), tokens(bob)) == (("a", "r", 1767268800), (None, "q", None))
        assert (built(ada).client_id, built(bob).client_id) == ("client", "bob's")
        assert built(ada).permission_url == f"{MICROSOFTS}/authorize"
        assert found.unread == ("sasl-xoauth2.conf: proxy: set upstream_proxy in [emailproxy]",)

    def test_where_no_endpoint_is_named_it_is_googles(self) -> None:
        account = only(importing.read(js(refresh_token="r", client_id="c"), "ada@example.com.json"))
        assert account.name == "ada@example.com"
        assert built(account).token_url == "https://oauth2.googleapis.com/token"

    def test_an_application_needs_no_tokens(self) -> None:
        tenant = "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token"
        values = js(
            user="ada@example.com", client_id="c", client_secret="s", use_client_credentials="yes",
            token_endpoint=tenant, scope="https://outlook.office365.com/.default",
        )  # fmt: skip
        found = importing.read(values, "x")
        ours = built(only(found))
        assert (ours.flow, ours.token_url, ours.permission_url) == ("client_credentials", tenant, None)
        assert found.unread == ()

    @pytest.mark.parametrize("reference", ["env:AWS_SECRET_ACCESS_KEY", "keyring:bank/pin"])
    def test_no_secret_of_ours_goes_where_the_file_says(self, reference: str) -> None:
        evil = js(
            user="ada@example.com", client_id="c", client_secret=reference, token_endpoint="https://evil.example/"
        )
        found = importing.read(evil, "x")
        assert "client_secret" not in only(found).settings
        assert "client_secret begins as a reference does" in found.unread[0]

    @pytest.mark.parametrize(
        ("values", "name", "words"),
        [
            ({"refresh_token": "r"}, "tokens", "names no account"),
            ({"refresh_token": "r"}, "ada@example.com", "client_id is not in the file"),
            ({"refresh_token": "r", "token_endpoint": "https://login.example.com/t"}, "a@b", "permission_url is not"),
            ({"refresh_token": "r", "manage_token_externally": "true"}, "a@b", "by token_command"),
        ],
    )
    def test_what_it_lacks_is_told(self, values: dict[str, str], name: str, words: str) -> None:
        assert any(words in line for line in importing.read(js(**values), name).unread)
