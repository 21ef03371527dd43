"""README.md against the program: whatever command, option, key or error it quotes is there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from emailproxy.cli.main import COMMANDS, cli
from emailproxy.config import keys
from tests.e2e.harness.proxy import CHECKOUT
from tests.endure.__main__ import arguments as endure

TEXT = (CHECKOUT / "README.md").read_text()
FENCES = re.compile(r"(?ms)^ *```(\w*)\n(.*?)^ *```$")
PROSE = FENCES.sub("", TEXT)
INLINE = re.findall(r"`([^`\n]+)`", PROSE)
FOREIGN = {"--now"}  # systemctl's
SHORTEST = 8  # characters of an error that tell it from others


def blocks(kind: str) -> list[str]:
    return [text for found, text in FENCES.findall(TEXT) if found == kind]


def quoted() -> Iterator[str]:
    """The command lines."""
    for block in blocks(""):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|[ (;])emailproxy (?!\()", line)
            if found and not line.lstrip().startswith("Please"):
                yield line[found.start() :].lstrip(" (;")
    yield from (text for text in INLINE if text.startswith("emailproxy "))


COMMAND_LINES = sorted(set(quoted()))


def options(command: click.Command) -> set[str]:
    with click.Context(command) as context:
        return {name for option in command.get_params(context) for name in option.opts}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def every_command(command: click.Command = cli) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from every_command(found)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_line_names_a_command_and_its_options(line: str) -> None:
    words = [word for word in shlex.split(re.split(r" [>|]", line)[0], comments=True) if word not in ("[-f]", "[-n")]
    command: click.Command = cli
    for word in words[1:]:
        if word.startswith("-"):
            assert word.partition("=")[0] in options(command), word
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if command is not cli or not words[1].startswith("-"):
                assert found is not None, word
            command = found or command


def test_every_option_that_it_names_is_some_commands() -> None:
    known = set().union(*map(options, every_command())) | FOREIGN | named_in(endure().format_help())
    named = {word for text in INLINE for word in named_in(text)}
    assert {"--unlock-file", "--ask", "--password-file", "--consent"} <= named
    assert named <= known, named - known


def test_its_table_has_every_command() -> None:
    table = set(re.findall(r"(?m)^\| `emailproxy (\w+)", TEXT))
    assert table == set(COMMANDS)


def every_key() -> dict[str, set[str]]:
    """By the kind of section."""
    here = Path()
    servers = {protocol.name: set(found) for protocol, found in keys.server_keys(here).items()}
    return {"emailproxy": set(keys.settings_keys(here)), **servers, "account": set(keys.account_keys(here))}


def test_every_key_that_it_shows_belongs_where_it_stands() -> None:
    known = every_key()
    for block in blocks("ini"):
        if "[Socket]" in block:
            continue
        allowed = set().union(*known.values())
        for line in block.splitlines():
            section, key = re.fullmatch(r" *\[(.+)\]", line), re.match(r" *(\w+) = ", line)
            if section:
                allowed = known.get(section[1].partition("-")[0], known["account"])
            assert key is None or key[1] in allowed, line


def test_every_setting_in_its_text_is_a_key() -> None:
    known = set().union(*every_key().values())
    named = {found[1] for text in INLINE if (found := re.match(r"([a-z]+_[a-z_]+|tenant|aliases)(?: = .*)?$", text))}
    programs = {"mutt_oauth2", "all_proxy", "http_proxy", "https_proxy"}  # and the environment's
    values = {"authorization_code", "client_credentials", "service_account", "redirect_uri_mismatch", "invalid_grant"}
    assert len(named & known) > 30
    assert named - known <= programs | values, named - known - programs - values


def test_the_order_of_configuration_files_is_the_one_of_the_help() -> None:
    places = ["`./emailproxy.ini`", "`./emailproxy.config`", "the user's", "`/etc/emailproxy/emailproxy.ini`"]
    prose = TEXT.replace("\n", " ")
    said = prose[prose.index("The configuration is looked for in `--config`") :]
    assert [said.index(place) for place in places] == sorted(said.index(place) for place in places)
    serve = cli.get_command(click.Context(cli), "serve")
    assert serve is not None
    [help_text] = [
        option.help for option in serve.params if isinstance(option, click.Option) and "--config" in option.opts
    ]
    assert help_text is not None
    bare = [place.strip("`") for place in places]
    assert [help_text.index(place) for place in bare] == sorted(help_text.index(place) for place in bare)


def spoken() -> set[str]:
    """Every text of the program, the variable parts of f-strings left out."""
    found: set[str] = set()
    for path in (CHECKOUT / "emailproxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                found.add(node.value if isinstance(node.value, str) else node.value.decode("latin-1"))
    return found


def test_every_error_that_it_quotes_is_said() -> None:
    table = TEXT[TEXT.index("| what you see |") : TEXT.index("Almost a hundred errors")]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    errors = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(errors) > 10
    texts = spoken()
    for error in errors:
        for part in re.split(r"[A-Z]{3,} ?(?![a-z])|\.\.\.|: ", error):
            part = part.strip()
            if len(part) >= SHORTEST:
                assert any(part in text for text in texts), part
