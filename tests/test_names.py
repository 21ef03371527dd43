from __future__ import annotations

import pytest

from emailproxy.names import MAX_NAME, is_a_name


@pytest.mark.parametrize(
    "name",
    [
        "ada@example.org",
        "DOMAIN\\ada",
        "ada@example.org\\shared box",
        "Jörg@bücher.example",
        "字@例え.jp",
        "a" * MAX_NAME,
        "@",
    ],
)
def test_what_may_be_a_name(name: str) -> None:
    assert is_a_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * (MAX_NAME + 1),
        "é" * (MAX_NAME // 2 + 1),
        *(f"a{chr(code)}b" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0xFEFF)),
        "a\udcffb",
    ],
)
def test_what_forges_lines_is_no_name(name: str) -> None:
    assert not is_a_name(name)
