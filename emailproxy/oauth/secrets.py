"""Secrets from where the configuration says, read anew at every use: whoever renews one restarts nobody."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

from emailproxy.config.model import KIB, SECONDS
from emailproxy.config.sources import (
    FromCommand,
    FromEnvironment,
    FromFile,
    FromKeyring,
    FromRecord,
    SecretSource,
)
from emailproxy.errors import AccountUnusable, EmailProxyError, one_line
from emailproxy.oauth.commands import CommandFailed, Commands
from emailproxy.secret import Secret

MAX_FILE = 64 * KIB  # octets: keys and certificate chains are a tenth of it
COMMAND_TIMEOUT_S = 30 * SECONDS  # a password manager that asks nobody answers in one
KEYRING_TIMEOUT_S = 30 * SECONDS  # a locked one waits for a person, who may not be there


class FileUnusable(EmailProxyError):
    """A file cannot be read, or is none of ours; the text says why, without the file's name."""


class Secrets:
    """Reads what a `SecretSource` names."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def read(self, source: SecretSource, *, owner: str, key: str) -> Secret:
        """The secret as it is now.

        Args:
            owner: the account's name, or ``[emailproxy]``.
            key: the configuration's key, for the message.

        Raises:
            AccountUnusable: there is none, or it cannot be read; the text says whose, and the mend.
        """
        match source:
            case Secret():
                return source
            case FromFile(path):
                secret = await text_of(path, f"the {key} of {owner}")
            case FromCommand(arguments):
                secret = await self._printed(arguments, f"the {key} command of {owner}")
            case FromEnvironment(name):
                secret = from_environment(name, f"the {key} of {owner}")
            case FromKeyring(service, name):
                secret = await from_keyring(service, name, f"the {key} of {owner}")
            case FromRecord():
                raise AccountUnusable(
                    f"the {key} of {owner} is sealed under a password that was not given; log in with that one, "
                    f"or write {key} into the configuration again"
                )
        if not secret:
            raise AccountUnusable(f"the {key} of {owner} is empty where the configuration says that it is; fill it in")
        return secret

    async def _printed(self, arguments: tuple[str, ...], what: str) -> Secret:
        try:
            printed = await self._commands.run(arguments, what=what, timeout_s=COMMAND_TIMEOUT_S)
        except CommandFailed as error:
            raise AccountUnusable(f"{error}; mend the command, or run it by hand to see more") from None
        return decoded(printed, f"what {what} prints")


async def text_of(path: Path, what: str) -> Secret:
    """A small text file without the line break at its end.

    Raises:
        AccountUnusable: it cannot be read, is too long, or is no text.
    """
    return decoded(await content_of(path, what), f"{what} ({path})")


async def content_of(path: Path, what: str) -> bytes:
    """A small file, read off the event loop.

    Raises:
        AccountUnusable: it cannot be read, or is too long.
    """
    try:
        return await asyncio.to_thread(read_bounded, path)
    except FileUnusable as error:
        raise AccountUnusable(f"{what} cannot be read from {path} ({error}); mend the file or the path") from None


def read_bounded(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileUnusable("not a file")
            content = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise FileUnusable(getattr(error, "strerror", None) or "not a path") from None
    if len(content) > MAX_FILE:
        raise FileUnusable(f"longer than {MAX_FILE // KIB} KiB")
    return content


def without_waiting(path: str, flags: int) -> int:
    """Opens a FIFO without waiting for somebody who writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decoded(raw: bytes, what: str) -> Secret:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AccountUnusable(f"{what} is not UTF-8 text; write the secret itself there") from None
    return Secret(text.removesuffix("\n").removesuffix("\r"))


def from_environment(name: str, what: str) -> Secret:
    value = os.environ.get(name)
    if value is None:
        raise AccountUnusable(f"{what} is env:{name}, which is not set in emailproxy's environment; set it and restart")
    if any("\ud800" <= character <= "\udfff" for character in value):  # how Python has octets that are none (PEP 383)
        raise AccountUnusable(f"{what} is env:{name}, which is not UTF-8 text; write the secret itself there")
    return Secret(value)


async def from_keyring(service: str, name: str, what: str) -> Secret:
    """The system's keyring may wait for a person: asked in a thread that nobody waits for in the end."""
    place = f"{what} is keyring:{service}/{name}"
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def settle(secret: str | None, error: AccountUnusable | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(secret)

    def ask() -> None:
        secret, error = None, None
        try:
            secret = asked(service, name, place)
        except AccountUnusable as unusable:
            error = unusable
        try:
            loop.call_soon_threadsafe(settle, secret, error)
        except RuntimeError:  # the loop has ended meanwhile
            return

    threading.Thread(target=ask, name="keyring", daemon=True).start()
    try:
        async with asyncio.timeout(KEYRING_TIMEOUT_S):
            found = await answer
    except TimeoutError:
        raise AccountUnusable(f"{place}, and the keyring did not answer in {KEYRING_TIMEOUT_S} s; unlock it") from None
    if found is None:
        raise AccountUnusable(f"{place}, which is not there; store it with: keyring set {service} {name}")
    return Secret(found)


def asked(service: str, name: str, place: str) -> str | None:
    try:
        import keyring
    except ImportError:
        raise AccountUnusable(
            f'{place}, and the keyring package is not installed; run: pip install "oauth-emailproxy[keyring]"'
        ) from None
    try:
        return keyring.get_password(service, name)
    except Exception as error:  # each backend has exceptions of its own
        reason = one_line(str(error)) or type(error).__name__
        raise AccountUnusable(f"{place}, and the keyring cannot be used: {reason}") from None
