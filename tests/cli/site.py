"""A configured emailproxy in a folder of its own, with a provider on loopback, and its commands as processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

import emailproxy
from emailproxy.config import ini
from emailproxy.demo.ledger import Client
from emailproxy.errors import EmailProxyError
from emailproxy.secret import Secret
from emailproxy.service import Authority
from emailproxy.wire.events import Login, Visit
from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.proxy import COMMAND, Program, Proxy, environment, notifications, running, serve
from tests.e2e.harness.world import write_config
from tests.fakes.provider import FakeProvider

ADA, BOB, ROBOT = "Ada@example.org", "bob@example.org", "robot@example.org"
PASSWORD = "canary-local-password"
CLIENT_SECRET = "canary-client-secret"
SERVICE, GROUP = 12_345, 23_456  # a user and a group that own nothing here
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users")

Sections = dict[str, dict[str, object]]


class Ended(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return self.err.splitlines()


async def ended(
    *command: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path, timeout: float = 60.0
) -> Ended:
    """Runs a program to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(cwd) | dict(env or {}),
        cwd=cwd,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), timeout)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@dataclass
class Site:
    folder: Path
    provider: FakeProvider
    imap: int
    """The local port of the one IMAP section."""
    redirect: int
    upstream: int = 1
    """The port that this section leads to, on this host."""
    sections: Sections = field(default_factory=dict)
    """Added to the configuration, or in place of parts of it."""

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, folder: Path, **options: Any) -> AsyncIterator[Site]:
        imap, redirect = free_ports(2)
        client = Client("test-client", CLIENT_SECRET, (f"http://localhost:{redirect}/",))
        async with FakeProvider([client], **options) as provider:
            site = cls(folder, provider, imap, redirect)
            site.configure()
            yield site

    @property
    def config(self) -> Path:
        return self.folder / "emailproxy.ini"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log_file(self) -> Path:
        return self.folder / "log" / "emailproxy.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def person(self) -> dict[str, object]:
        """The keys of an account whose owner signs in."""
        return {
            "token_url": self.provider.token_url,
            "permission_url": self.provider.permission_url,
            "oauth2_scope": "mail offline_access",
            "client_id": "test-client",
            "client_secret": CLIENT_SECRET,
            "redirect_uri": f"http://localhost:{self.redirect}/",
        }

    @property
    def application(self) -> dict[str, object]:
        """The keys of an account that asks no person."""
        keys = {key: value for key, value in self.person.items() if key not in ("permission_url", "redirect_uri")}
        return keys | {"oauth2_flow": "client_credentials"}

    def configure(self, **sections: dict[str, object]) -> Path:
        """Writes the configuration, with these sections added or in place of the usual ones."""
        usual: Sections = {
            "emailproxy": {"state_dir": self.state, "log_file": self.log_file, "consent_wait": 20},
            f"IMAP-{self.imap}": {
                "server_address": "localhost",
                "server_port": self.upstream,
                "local_address": "127.0.0.1",
            },
            ADA: self.person,
            BOB: self.person,
            ROBOT: self.application,
        }
        return write_config(self.config, usual | self.sections | sections)

    async def run(self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
        """Runs one of the commands that take a configuration, to its end."""
        command = (*COMMAND, *unchecked(*arguments), "--config", self.config)
        return await ended(*command, stdin=stdin, env=env, cwd=self.folder)

    @contextlib.asynccontextmanager
    async def running(
        self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> AsyncIterator[Program]:
        """One of them while it runs."""
        command = (*unchecked(*arguments), "--config", self.config)
        async with running(*command, home=self.folder, stdin=stdin, env=env, kind=Program) as program:
            yield program

    @contextlib.asynccontextmanager
    async def serving(self, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Proxy]:
        """The server, ready."""
        command: tuple[str | Path, ...] = ("--config", self.config, *arguments)
        async with serve(*command, log_file=self.log_file, home=self.folder, env=env) as proxy:
            yield proxy

    async def log_in(self, user: str = ADA, password: str = PASSWORD) -> bool:
        """Whether a mail program's login gets a token, asked in this process at once."""
        config = self.config.read_text().replace("consent_wait = 20", "consent_wait = 0")
        async with Authority(ini.loads(config, self.config)) as authority:
            try:
                await authority.broker.token(Login(user, Secret(password)), Visit("s", "IMAP", "127.0.0.1", True))
            except EmailProxyError:
                return False
            return True

    async def sign_in(self, user: str = ADA, password: str = PASSWORD) -> None:
        """The whole consent, in this process."""
        async with Authority(ini.load(self.config)) as authority:
            waiting = await authority.broker.sign_in(user, Secret(password))
            if waiting is not None:
                assert "succeeded" in await approve(waiting.url)
                assert await waiting.wait(10)

    def files(self) -> dict[str, bytes]:
        """The state, but for locks."""
        paths = [path for path in self.state.rglob("*") if path.is_file() and path.suffix != ".lock"]
        return {str(path.relative_to(self.state)): path.read_bytes() for path in paths}


def unchecked(*arguments: str | Path) -> tuple[str | Path, ...]:
    """A command's arguments. Nobody listens where a `Site`'s mail server should be: `authorize` tries no login."""
    return (*arguments, "--no-check") if arguments[0] == "authorize" else arguments


async def approve(url: str) -> str:
    """What a person's browser shows in the end."""
    async with aiohttp.ClientSession() as session, session.get(URL(url, encoded=True)) as reply:
        if 'value="approve"' not in await reply.text():
            return await reply.text()
        async with session.post(reply.url, data={"decision": "approve"}) as approved:
            return await approved.text()


def primitives() -> list[str]:
    """The modules of cryptography that the program imports, wherever it does so: most load on first use."""
    package = Path(emailproxy.__file__).parent
    named = re.compile(r"^ *from (cryptography[\w.]*) import", re.MULTILINE)
    return sorted({name for path in package.rglob("*.py") for name in named.findall(path.read_text("utf-8"))})


def another_user(uid: int, *arguments: str | Path) -> tuple[str, ...]:
    """A command line that runs one of the commands as another user.

    It imports first, as that user need not be able to read the interpreter's own folder.
    """
    modules = (
        *("service", "cli.main", "cli.serve", "cli.logs", "cli.accounts", "cli.authorize"),
        *("cli.status", "cli.reload", "service.offline", "admin.server", "admin.control", "admin.api"),
        *("admin.routes", "oauth.web", "oauth.callback", "oauth.generic"),
        *("oauth.advice.mail", "oauth.advice.microsoft", "oauth.advice.providers"),
    )
    program = (
        "import cryptography.hazmat.backends.openssl.backend, encodings.idna, encodings.utf_8_sig, os, sys\n"
        f"import {', '.join(primitives())}\n"
        "import aiohttp, difflib, email.utils, filelock, jwt, oauthlib.oauth2, platformdirs.unix\n"
        "import rich.console, rich.table\n"
        "from importlib import import_module\n"
        f"for name in {modules!r}:\n    import_module('emailproxy.' + name)\n"
        "from emailproxy.service import new_event_loop\n"
        "new_event_loop().close()\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        "from emailproxy.cli.main import main\n"
        f"sys.argv = ['emailproxy', *{list(map(str, arguments))!r}]\n"
        "main()\n"
    )
    return (sys.executable, "-c", program)


@contextlib.asynccontextmanager
async def under_a_manager(site: Site, *command: str | Path, user: int | None = None) -> AsyncIterator[Program]:
    """A server that has told its service manager, whose socket is this user's, that it is ready; killed at the end."""
    with notifications() as notified:
        if user is not None:
            for place in (Path(notified.getsockname()), Path(notified.getsockname()).parent):
                os.chown(place, user, user)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment(site.folder) | {"NOTIFY_SOCKET": notified.getsockname()},
            cwd=site.folder,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(20):
                assert await asyncio.get_running_loop().sock_recv(notified, 100) == b"READY=1"
            yield Program(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def reply(port: int, user: str, password: str) -> bytes:
    """What a login gets; the right password gets as far as the mail server, which is not there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f'a LOGIN {user} "{password}"\r\n'.encode())
    async with asyncio.timeout(20):
        while not (line := await reader.readline()).startswith(b"a "):
            assert line
    writer.close()
    return line
