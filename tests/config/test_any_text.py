"""Whatever a file holds, it is read or refused, and taken apart as `configparser` does it."""

from __future__ import annotations

import configparser
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emailproxy.config import catchall, ini, keys
from emailproxy.config.model import Config
from emailproxy.config.scan import Report, scan
from emailproxy.errors import AccountUnusable, ConfigError
from tests.config.samples import DOCUMENTED, GOOD, read

LINES = st.sampled_from(
    [
        *GOOD.splitlines(),
        *DOCUMENTED.splitlines(),
        "",
        " ",
        "\t",
        "  x",
        "# c",
        ";",
        "[",
        "]",
        "[]",
        "=",
        ":",
        "[@]",
        "[DEFAULT]",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES | st.text(max_size=30)).map("\n".join), st.booleans())
@example("[a@b]\ntoken_url = http://[::1", False)
@example("[emailproxy]\nca_file = \x01", False)
def test_any_text_is_read_or_refused(text: str, draft: bool) -> None:
    found = read(text, draft=draft)
    if isinstance(found, tuple):
        assert found
        assert all(fault.what and fault.mend for fault in found)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(keys.account_keys(Path()))), st.text(max_size=60))
def test_any_value_is_read_or_refused(key: str, value: str) -> None:
    found = read(re.sub(f"(?m)^{key} = .*\n", "", GOOD) + f"{key} = {value}\n")
    if isinstance(found, Config):
        assert catchall.accounts(found)
    else:
        assert found


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(keys.account_keys(Path()))), st.text(max_size=8), st.text(max_size=8))
@example("token_command", '["', '"]')
@example("token_url", "http://[", "")
@example("oauth2_flow", "", "")
def test_a_placeholder_anywhere_keeps_a_draft_readable(key: str, before: str, after: str) -> None:
    found = read(re.sub(f"(?m)^{key} = .*\n", "", GOOD) + f"{key} = {before}<x>{after}\n", draft=True)
    if isinstance(found, Config):
        with suppress(AccountUnusable):
            assert catchall.accounts(found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.ini"
    file.write_bytes(octets)
    with pytest.raises(ConfigError):
        ini.load(file)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES | st.text("a =:[]#;\t\n@", max_size=12)).map("\n".join))
def test_the_scan_agrees_with_configparser(text: str) -> None:
    report = Report("x")
    sections = scan(text, report)
    if report.faults or any(section.name == "DEFAULT" for section in sections):
        return
    parser = configparser.RawConfigParser(default_section="\0")
    parser.read_string(text)
    assert {s.name: {key: entry.value for key, entry in s.entries.items()} for s in sections} == {
        name: {key: value.strip() for key, value in parser[name].items()} for name in parser.sections()
    }
