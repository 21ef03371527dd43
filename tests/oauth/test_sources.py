"""Secrets from files, commands, the environment and the keyring: read anew at every use, clear where they fail."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from emailproxy.config.sources import FromCommand, FromEnvironment, FromFile, FromKeyring, SecretSource
from emailproxy.errors import AccountUnusable
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret

ADA = "ada@example.org"


async def read(source: SecretSource) -> str:
    return (await Secrets(Commands()).read(source, owner=ADA, key="client_secret")).reveal()


async def complaint(source: SecretSource) -> str:
    with pytest.raises(AccountUnusable) as caught:
        await read(source)
    assert ADA in str(caught.value)
    assert "client_secret" in str(caught.value)
    assert "canary" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "the-secret"


async def test_an_inline_secret_is_itself() -> None:
    assert await read(Secret("inline")) == "inline"


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b" s3cret \n", " s3cret "),
        (b"\xef\xbb\xbfs\xc3\xa9cret\n", "sécret"),
        (b'{\n"key": 1\n}\n', '{\n"key": 1\n}'),
    ],
)
async def test_a_file_holds_one_secret(file: Path, content: bytes, secret: str) -> None:
    file.write_bytes(content)
    assert await read(FromFile(file)) == secret


async def test_a_file_is_read_anew(file: Path) -> None:
    for secret in ("first", "second"):
        file.write_text(secret)
        assert await read(FromFile(file)) == secret


async def test_a_mounted_secret_is_a_link(file: Path, tmp_path: Path) -> None:
    (tmp_path / "..data").write_text("linked")
    file.symlink_to(tmp_path / "..data")
    assert await read(FromFile(file)) == "linked"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read from .*the-secret .No such file or directory."),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"canary\xff", "is not UTF-8"),
        (b"canary" * 20_000, "longer than 64 KiB"),
    ],
)
async def test_a_file_without_a_secret_is_named(file: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        file.write_bytes(content)
    assert re.search(said, await complaint(FromFile(file)))


async def test_what_is_no_file_is_named(file: Path) -> None:
    file.mkdir()
    assert "Is a directory" in await complaint(FromFile(file)) or "not a file" in await complaint(FromFile(file))
    assert "not a path" in await complaint(FromFile(Path("a\0b")))


async def test_a_pipe_that_nobody_writes_to_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    assert "not a file" in await complaint(FromFile(file))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_named(file: Path) -> None:
    file.write_text("canary")
    file.chmod(0)
    assert "Permission denied" in await complaint(FromFile(file))


async def test_a_command_prints_the_secret() -> None:
    assert await read(FromCommand(("printf", r"s3 cret\r\n"))) == "s3 cret"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sh", "-c", "echo canary; exit 2"), "failed (exit code 2); what it said is in the log; mend the command"),
        (("/nowhere/pass",), "cannot be run: /nowhere/pass"),
        (("true",), "is empty"),
        (("printf", r"canary\377"), "is not UTF-8"),
    ],
    ids=repr,
)
async def test_a_command_that_prints_no_secret_is_named(arguments: tuple[str, ...], said: str) -> None:
    assert said in await complaint(FromCommand(arguments))


async def test_the_environment_holds_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_SECRET", "from outside")
    assert await read(FromEnvironment("MAIL_SECRET")) == "from outside"
    monkeypatch.setenv("MAIL_SECRET", "")
    assert "is empty" in await complaint(FromEnvironment("MAIL_SECRET"))
    monkeypatch.delenv("MAIL_SECRET")
    assert "env:MAIL_SECRET, which is not set" in await complaint(FromEnvironment("MAIL_SECRET"))


class Ring(KeyringBackend):
    """A keyring in memory."""

    priority = 0
    held: ClassVar[dict[tuple[str, str], str]] = {}
    locked: ClassVar[bool] = False
    answers: ClassVar[threading.Event] = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.answers.wait()
        if self.locked:
            raise KeyringLocked("canary? no: the collection is locked")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ring]]:
    monkeypatch.setattr(Ring, "held", {("emailproxy", ADA): "from the ring"})
    monkeypatch.setattr(Ring, "answers", threading.Event())
    Ring.answers.set()
    before = keyring.get_keyring()
    keyring.set_keyring(Ring())  # type: ignore[no-untyped-call]
    yield Ring
    Ring.answers.set()
    keyring.set_keyring(before)


async def test_the_keyring_holds_a_secret(ring: type[Ring]) -> None:
    assert await read(FromKeyring("emailproxy", ADA)) == "from the ring"
    ring.held["emailproxy", ADA] = "another"
    assert await read(FromKeyring("emailproxy", ADA)) == "another"


async def test_a_secret_that_the_keyring_lacks_is_named(ring: type[Ring]) -> None:
    said = await complaint(FromKeyring("mail", "client"))
    assert "keyring:mail/client, which is not there; store it with: keyring set mail client" in said


async def test_a_locked_keyring_says_so(ring: type[Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ring, "locked", True)
    with pytest.raises(AccountUnusable, match="the collection is locked"):
        await read(FromKeyring("emailproxy", ADA))


async def test_a_keyring_that_waits_for_somebody_is_given_up(ring: type[Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emailproxy.oauth.secrets.KEYRING_TIMEOUT_S", 0.05)
    ring.answers.clear()
    assert "did not answer" in await complaint(FromKeyring("emailproxy", ADA))


async def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    said = await complaint(FromKeyring("emailproxy", ADA))
    assert 'pip install "oauth-emailproxy[keyring]"' in said
