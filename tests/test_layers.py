"""The layers of the package (its docstring draws them), as its imports have them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import emailproxy

PACKAGE = Path(emailproxy.__file__).parent

BASE = {"errors", "names", "secret"}
ABOVE_SERVICE = {"check", "admin", "workers", "demo"}
MAY_IMPORT = {
    "errors": set(),
    "names": set(),
    "secret": set(),
    "certificates": set(),
    "config": BASE,
    "wire": BASE,
    "store": BASE,
    "oauth": {*BASE, "config", "wire", "store"},
    "net": {*BASE, "config", "wire", "store"},
    "service": {*BASE, "config", "wire", "store", "oauth", "net"},
    "check": {*BASE, "config", "wire", "store", "oauth", "net", "service"},
    "admin": {*BASE, "config", "wire", "store", "oauth", "net", "service"},
    "demo": {*BASE, "certificates", "config", "wire", "store", "oauth", "net", "service"},
    "workers": {*BASE, "config", "wire", "store", "oauth", "net", "service", "admin"},
    "cli": {*BASE, "certificates", "config", "wire", "store", "oauth", "net", "service", *ABOVE_SERVICE},
    "__main__": {"cli"},
    "__init__": set(),
}
"""What each layer may import besides itself; a layer is a module or a package right under `emailproxy`."""

IO = {"asyncio", "socket", "ssl", "time", "logging", "selectors", "threading", "subprocess", "uvloop", "aiohttp"}
"""What a dialogue, fed with bytes and yielding effects, has no use for."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, wherever in it."""
    here = ("emailproxy", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module, names, level):
                start = ".".join(here[: len(here) - level + 1]) + "." if level else ""
                base = (start + (module or "")).rstrip(".")
                yield from (f"{base}.{name.name}" for name in names)


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_go_one_way(path: Path) -> None:
    layer = layer_of(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("emailproxy.")}
    public = {"__version__"}
    assert ours - MAY_IMPORT[layer] - {layer} - public == set()


@pytest.mark.parametrize("path", [path for path in MODULES if layer_of(path) == "wire"], ids=named)
def test_the_protocols_do_no_io(path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path)} & IO == set()


@pytest.mark.parametrize("path", [path for path in MODULES if layer_of(path) != "cli"], ids=named)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    printing = [call.lineno for call in calls if ast.unparse(call) in {"print", "click.echo", "sys.stdout.write"}]
    assert printing == []
