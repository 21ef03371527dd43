"""The documented example, which must not fall behind the reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emailproxy.config import ini, keys
from emailproxy.config.model import Account, Settings
from emailproxy.config.values import boolean

EXAMPLE = Path(__file__).parents[2] / "emailproxy.example.ini"
TEXT = EXAMPLE.read_text()
DOCUMENTED = dict(re.findall(r"(?m)^#?([a-z0-9_]+) = (.*)$", TEXT))


def test_it_loads_once_its_placeholders_are_filled_in() -> None:
    draft = ini.load(EXAMPLE, allow_placeholders=True)
    assert draft.notices == ()
    assert [(fault.section, fault.key) for fault in ini.placeholders(draft)] == [
        ("@", "token_url"),
        ("@", "permission_url"),
        ("@", "client_id"),
        ("@", "client_secret"),
    ]


def test_every_key_that_the_reader_knows_is_documented() -> None:
    base = Path("/")
    known = {*keys.settings_keys(base), *keys.ACCOUNT_KEYS}
    known.update(*keys.server_keys(base).values())
    assert known == DOCUMENTED.keys()
    for key in (*keys.CACHED, *keys.UNSUPPORTED, *keys.IGNORED, "use_pkce", "starttls"):
        assert re.search(rf"\b{key}\b", TEXT), key


@pytest.mark.parametrize("name", [name for name, info in Settings.model_fields.items() if info.default is not None])
def test_the_documented_default_is_the_default(name: str) -> None:
    default = Settings.model_fields[name].default
    if name == "allow_catch_all_accounts" or not isinstance(default, bool | int | float):
        return
    documented = DOCUMENTED[name]
    assert (boolean(documented) if isinstance(default, bool) else float(documented)) == default


def test_the_documented_redirect_uri_is_the_default() -> None:
    assert DOCUMENTED["redirect_uri"] == Account.model_fields["redirect_uri"].default
