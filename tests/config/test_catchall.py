"""Which settings a login gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emailproxy.config import catchall, ini
from emailproxy.config.model import Account, FlowName
from emailproxy.errors import AccountUnusable, UnknownAccount
from emailproxy.secret import Secret
from tests.config.samples import ACCOUNT, ACCOUNT_KEYS, GOOD, PATH, SERVER, config

CATCH_ALL = f"""\
[emailproxy]
allow_catch_all_accounts = True
{SERVER}
[@]
{ACCOUNT_KEYS}
client_secret = all
[@example.com]
client_id = example
[Anna@Example.com]
client_id = anna
client_secret =
[bob@other.org]
oauth2_scope = bob
"""


@pytest.mark.parametrize(
    ("user", "name", "section", "client_id"),
    [
        ("anna@example.com", "Anna@Example.com", "Anna@Example.com", "anna"),
        ("ANNA@EXAMPLE.COM", "Anna@Example.com", "Anna@Example.com", "anna"),
        ("carol@example.com", "carol@example.com", "@example.com", "example"),
        ("Carol@EXAMPLE.com", "Carol@EXAMPLE.com", "@example.com", "example"),
        ("carol@sub.example.com", "carol@sub.example.com", "@", "abc"),
        ("bob@other.org", "bob@other.org", "bob@other.org", "abc"),
        ("bob", "bob", "@", "abc"),
        ("DOMAIN\\bob", "DOMAIN\\bob", "@", "abc"),
        ("anna@example.com\\shared", "anna@example.com\\shared", "@example.com", "example"),
        ("odd@x@example.com", "odd@x@example.com", "@example.com", "example"),
        ("a]b[@example.com", "a]b[@example.com", "@example.com", "example"),
        ("x" * 242 + "@example.com", "x" * 242 + "@example.com", "@example.com", "example"),
    ],
)
def test_the_most_specific_section_wins(user: str, name: str, section: str, client_id: str) -> None:
    account = catchall.resolve(config(CATCH_ALL), user)
    assert (account.name, account.section, account.client_id) == (name, section, client_id)
    assert account.key == name.casefold()


def test_settings_are_inherited_and_an_empty_value_unsets_them() -> None:
    found = config(CATCH_ALL)
    anna, bob = catchall.resolve(found, "anna@example.com"), catchall.resolve(found, "bob@other.org")
    assert anna.client_secret is None
    assert (bob.scope, anna.scope) == ("bob", "mail offline_access")
    assert bob.client_secret == Secret("all")


@pytest.mark.parametrize(
    "user",
    [
        "",
        "@",
        "@example.com",
        "a@b]\n[SMTP-25",  # bad input 39
        "a\0@example.com",
        "a\x7f@example.com",
        "x" * 243 + "@example.com",
        "é" * 122 + "@example.com",
        "\ud800@example.com",
    ],
)
def test_what_is_no_name_matches_nothing(user: str) -> None:
    with pytest.raises(UnknownAccount) as caught:
        catchall.resolve(config(CATCH_ALL), user)
    assert str(caught.value).isprintable()


def test_without_the_setting_catch_alls_serve_nobody_and_are_not_inherited() -> None:
    text = CATCH_ALL.replace("= True", "= False").replace("[bob@other.org]\noauth2_scope = bob\n", "")
    found = config(text.replace("client_id = anna", f"{ACCOUNT_KEYS}"))
    assert [account.name for account in catchall.accounts(found)] == ["Anna@Example.com"]
    assert catchall.resolve(found, "anna@example.com").client_secret is None
    for user in ("carol@example.com", "bob"):
        with pytest.raises(UnknownAccount, match=r"emailproxy register"):
            catchall.resolve(found, user)


def test_an_account_that_could_inherit_is_told_how() -> None:
    text = CATCH_ALL.replace("= True", "= False")
    with pytest.raises(Exception, match=r"bob@other.org\] token_url: .*allow_catch_all_accounts = True .*from \[@\]"):
        config(text)


def test_a_base_for_others_may_be_incomplete_and_then_serves_nobody_itself() -> None:
    base = ACCOUNT_KEYS.replace("client_id = abc\n", "")
    text = f"[emailproxy]\nallow_catch_all_accounts = 1\n{SERVER}[@]\n{base}[anna@example.com]\nclient_id = x\n"
    found = config(text)
    assert catchall.resolve(found, "anna@example.com").client_id == "x"
    with pytest.raises(AccountUnusable, match=r"\[@\] client_id is missing"):
        catchall.resolve(found, "bob@example.com")


def test_a_catch_all_without_others_must_be_complete() -> None:
    base = ACCOUNT_KEYS.replace("client_id = abc\n", "")
    with pytest.raises(Exception, match=r"\[@\] client_id: is missing"):
        config(f"[emailproxy]\nallow_catch_all_accounts = 1\n{SERVER}[@]\n{base}")


FLOWS = [
    (None, True, "mail", FlowName.AUTHORIZATION_CODE, False),
    ("authorization_code", True, "mail", FlowName.AUTHORIZATION_CODE, False),
    ("client_credentials", False, "mail", FlowName.CLIENT_CREDENTIALS, False),
    ("client_credentials", True, "https://outlook.office365.com/.default", FlowName.CLIENT_CREDENTIALS, False),
    ("client_credentials", True, "mail offline_access", FlowName.AUTHORIZATION_CODE, True),
    ("client_credentials", True, "https://x.example/.default offline_access", FlowName.AUTHORIZATION_CODE, True),
    ("password", True, "mail", FlowName.AUTHORIZATION_CODE, True),
]


@pytest.mark.parametrize(("flow", "permission_url", "scope", "expected", "told"), FLOWS)
def test_the_flow_follows_from_the_whole_account(
    flow: str | None, permission_url: bool, scope: str, expected: FlowName, told: bool
) -> None:
    text = GOOD.replace("mail offline_access", scope) + "client_secret = x\n"
    if not permission_url:
        text = text.replace("permission_url = https://login.example.com/authorize\n", "")
    if flow:
        text += f"oauth2_flow = {flow}\n"
    found = config(text)
    assert catchall.resolve(found, "anna@example.com").flow is expected
    assert bool(found.notices) is told


@pytest.mark.parametrize(
    ("redirect_uri", "listen", "expected"),
    [
        (None, None, "localhost:8801"),
        ("http://localhost/", None, "localhost:80"),
        ("http://127.0.0.1:9999/x", None, "127.0.0.1:9999"),
        ("http://[::1]:9999/", None, "[::1]:9999"),
        ("https://localhost/", None, "127.0.0.1:8801"),
        ("http://vault.example.com/x/", None, "127.0.0.1:8801"),
        ("https://mail.example.com/", "http://0.0.0.0:8080/", "0.0.0.0:8080"),
        ("https://mail.example.com/", "[::1]:8080", "[::1]:8080"),
        (None, "http://localhost", "localhost:80"),
    ],
)
def test_where_the_redirect_listener_listens(redirect_uri: str | None, listen: str | None, expected: str) -> None:
    text = GOOD + (f"redirect_uri = {redirect_uri}\n" if redirect_uri else "")
    account = catchall.resolve(
        config(text + (f"redirect_listen_address = {listen}\n" if listen else "")), "anna@example.com"
    )
    assert account.listen_address == expected
    as_written: Account = replace(account, redirect_listen_address=listen)
    assert as_written.listen_address == expected


def test_resolving_again_is_a_lookup_and_strangers_do_not_fill_the_memory() -> None:
    found = config(CATCH_ALL)
    assert catchall.resolve(found, "carol@example.com") is catchall.resolve(found, "carol@example.com")
    bound = catchall.MAX_RESOLVED + len(found.sections)
    for number in range(bound + 10):
        catchall.resolve(found, f"{number}@example.com")
    assert len(found._resolved) <= bound


def test_as_many_accounts_as_there_are_stay_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchall, "MAX_RESOLVED", 2)
    found = config(GOOD + "".join(f"[{number}@example.com]\n{ACCOUNT_KEYS}" for number in range(5)))
    first = catchall.accounts(found)
    assert all(one is other for one, other in zip(first, catchall.accounts(found), strict=True))


def test_a_draft_lists_its_accounts() -> None:
    draft = ini.loads(f"{ACCOUNT}client_secret = CLIENT_SECRET\n", PATH, allow_placeholders=True)
    assert [account.name for account in catchall.accounts(draft)] == ["anna@example.com"]
    assert draft.path == Path(PATH)


def test_the_keys_are_those_of_the_accounts() -> None:
    """Whoever owns them: with or without a section, by an alias, or anybody."""
    mailboxes = "".join(
        f"[{name}@example.com]\n{ACCOUNT_KEYS}token_owner = {owner}\n"
        for name, owner in (("b", "ANNA@example.com"), ("c", "Carl@other.example"), ("d", "*"), ("E", "nickname"))
    )
    found = config(f"{SERVER}{ACCOUNT}aliases = Nickname\n{mailboxes}[@]\n{ACCOUNT_KEYS}")
    assert catchall.keys(found) == {account.key for account in catchall.accounts(found)}
    assert catchall.keys(found) == {"anna@example.com", "carl@other.example", "d@example.com"}
