"""Where secrets come from, which programs and URLs are told of what happens, and what the file itself gives away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emailproxy.config import catchall, edit, ini
from emailproxy.config.sources import (
    FromCommand,
    FromEnvironment,
    FromFile,
    FromKeyring,
    Hook,
    HookCommand,
    HookUrl,
    SecretSource,
)
from emailproxy.secret import Secret
from tests.config.samples import GOOD, PATH, SECRET, config, faults

FOLDER = PATH.parent

SOURCES: list[tuple[str, SecretSource]] = [
    ("{} = hush", Secret("hush")),
    ("{} = 'hush'", Secret("hush")),
    ("{} = environment:x", Secret("environment:x")),
    ("{} = env:MAIL_SECRET_1", FromEnvironment("MAIL_SECRET_1")),
    ("{} = keyring:mail/anna@example.com", FromKeyring("mail", "anna@example.com")),
    ("{} = keyring:https://a.example/b/anna", FromKeyring("https://a.example/b", "anna")),
    ("{}_file = /run/secrets/x", FromFile(Path("/run/secrets/x"))),
    ("{}_file = secrets/x", FromFile(FOLDER / "secrets/x")),
    ('{}_command = ["pass", "show", "<mail> ***"]', FromCommand(("pass", "show", "<mail> ***"))),
    ('{}_command = ["bin/x",\n  "a b",\n  "\\u00e9\\n"]', FromCommand((str(FOLDER / "bin/x"), "a b", "é\n"))),
    ('{}_command = ["/bin/x"]', FromCommand(("/bin/x",))),
]


@pytest.mark.parametrize(("line", "expected"), SOURCES)
def test_a_secret_comes_from_where_its_key_says(tmp_path: Path, line: str, expected: SecretSource) -> None:
    certificate = f"jwt_certificate_path = {__file__}\n"
    account = catchall.resolve(config(f"{GOOD}{line.format('client_secret')}\n"), "anna@example.com")
    signed = catchall.resolve(config(f"{GOOD}{certificate}{line.format('jwt_key_passphrase')}\n"), "anna@example.com")
    settings = config(f"[emailproxy]\n{line.format('hook_secret')}\n{GOOD}").settings
    assert (account.client_secret, signed.key_passphrase, settings.hook_secret) == (expected, expected, expected)
    assert "hush" not in repr(account) + repr(signed) + repr(settings)


WRONG = [
    ("{} = env:", "names no environment variable"),
    ("{} = env:1X", "names no environment variable"),
    ("{} = env:A B", "write env:NAME"),
    ("{} = keyring:mail", "write keyring:SERVICE/NAME"),
    ("{} = keyring:/x", "write keyring:SERVICE/NAME"),
    ("{} = keyring:x/", "write keyring:SERVICE/NAME"),
    ("{} = a\n  b", "several lines"),
    ("{}_file = a\n  b", "several lines"),
    ("{}_file = ~nobody-here/x", "home folder"),
    ("{}_command = pass show mail", '["/usr/bin/pass", "show", "mail"]'),
    ("{}_command = []", "names no program"),
    ('{}_command = [" "]', "names no program"),
    ('{}_command = ["x", 1]', "not a list of texts"),
    ('{}_command = {{"x": "y"}}', "not a list of texts"),
    ('{}_command = ["x", "a\\u0000b"]', "NUL"),
    ('{}_command = ["x", "\\ud800"]', "surrogate"),
    ("{}_command = " + "[" * 15_000, "write a list in JSON"),
    ("{} = x\n{}_file = y", "is there beside"),
    ('{}_command = ["x"]\n{}_file = y', "keep one of the two"),
]


@pytest.mark.parametrize(("lines", "words"), WRONG)
def test_what_leads_to_no_secret_is_one_fault(lines: str, words: str) -> None:
    for key, section in (("client_secret", "anna@example.com"), ("hook_secret", "emailproxy")):
        text = lines.replace("{}", key).replace("{{", "{").replace("}}", "}")
        header = "[emailproxy]\n" if key == "hook_secret" else ""
        (fault,) = faults(f"{GOOD}{header}{text}\n")
        assert fault.section == section
        assert fault.key is not None
        assert fault.key.startswith(key)
        assert words in str(fault)


HOOKS: list[tuple[str, Hook]] = [
    ('["notify", "--mail", "<x>"]', HookCommand(("notify", "--mail", "<x>"))),
    ('["./notify"]', HookCommand((str(FOLDER / "notify"),))),
    ("https://hooks.example.com/a?b=c", HookUrl("https://hooks.example.com/a?b=c")),
    ("http://127.0.0.1:8080/", HookUrl("http://127.0.0.1:8080/")),
    ("http://[::1]:8080/x", HookUrl("http://[::1]:8080/x")),
]


@pytest.mark.parametrize(("text", "hook"), HOOKS)
@pytest.mark.parametrize("key", ["on_consent_required", "on_sign_in_needed", "on_token_refreshed", "on_login_failed"])
def test_a_hook_is_a_program_or_a_url(key: str, text: str, hook: Hook) -> None:
    assert getattr(config(f"[emailproxy]\n{key} = {text}\n{GOOD}").settings, key) == hook


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("notify --mail", "neither a list"),
        ("ftp://hooks.example.com/", "neither a list"),
        ("http://hooks.example.com/", "write https://"),
        ("https://anna:hush@hooks.example.com/", "user name"),
        ("https:///x", "not a URL"),
        ('["x"', "write a list in JSON"),
    ],
)
def test_what_is_no_hook_is_one_fault(text: str, words: str) -> None:
    (fault,) = faults(f"{GOOD}[emailproxy]\non_login_failed = {text}\n")
    assert (fault.line, fault.section, fault.key) == (10, "emailproxy", "on_login_failed")
    assert words in str(fault)
    assert "hush" not in str(fault)


def test_the_variables_that_hold_secrets_are_known() -> None:
    assert config(GOOD).variables == frozenset()
    text = (
        f"{GOOD}client_secret = env:ONE\njwt_key_passphrase = env:TWO\n"
        "[@]\nclient_secret = env:THREE\n"  # not used, and a secret all the same
        "[emailproxy]\nhook_secret = env:FOUR\n"
    )
    assert config(text).variables == {"ONE", "TWO", "THREE", "FOUR"}


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("client_secret = x", True),
        ("jwt_key_passphrase = x", True),
        ("[emailproxy]\nhook_secret = x", True),
        ("oauth2_flow = service_account\npermission_url =\nclient_id = key\nclient_secret = {}", True),
        ("oauth2_flow = service_account\npermission_url =\nclient_id = file\nclient_secret = x", False),
        ("client_secret = env:X", False),
        ("client_secret_file = x", False),
        ("client_secret = CLIENT_SECRET", False),
        ("[emailproxy]\nhook_secret = keyring:a/b", False),
        ('[emailproxy]\nhook_secret_command = ["x"]', False),
    ],
)
def test_a_file_that_others_can_read_is_told_of_the_secrets_in_it(tmp_path: Path, lines: str, told: bool) -> None:
    keys = {line.partition(" ")[0] for line in lines.splitlines()}
    good = "".join(line for line in GOOD.splitlines(keepends=True) if line.partition(" ")[0] not in keys)
    file = tmp_path / "emailproxy.ini"
    file.write_text(f"{good}{lines}\n")
    file.chmod(0o644)
    notices = ini.load(file, allow_placeholders=True).notices
    assert any("chmod 600" in notice for notice in notices) is told


def test_only_secrets_are_masked_not_where_they_are() -> None:
    text = (
        f"[a@b]\nclient_secret = {SECRET}\njwt_key_passphrase = {SECRET}\n"
        f"[emailproxy]\nhook_secret = {SECRET}\n[c@d]\nclient_secret = env:NAME\njwt_key_passphrase = keyring:a/b\n"
    )
    masked = edit.masked(text)
    assert SECRET not in masked
    assert masked.count(edit.MASK) == 3
    assert "env:NAME" in masked
    assert "keyring:a/b" in masked
