"""Real mail programs, as a user sets them up for the proxy: host, port, user name, password, no TLS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.run import Outcome, run

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Clients:
    """One user's programs. Their files lie in `home`, which must not be open to others."""

    home: Path
    user: str
    password: str

    async def mbsync(self, port: int, mechanism: str) -> Outcome:
        """Synchronises INBOX both ways with the Maildir `home/mail/INBOX`."""
        (self.home / "mail").mkdir(exist_ok=True)
        config = self._file(
            "mbsyncrc",
            f"""
IMAPAccount proxy
Host {HOST}
Port {port}
User {self.user}
Pass "{self.password}"
SSLType None
AuthMechs {mechanism}
Timeout 60

IMAPStore remote
Account proxy

MaildirStore local
Path {self.home}/mail/
Inbox {self.home}/mail/INBOX

Channel both
Far :remote:
Near :local:
Create Both
Sync All
SyncState *
""",
        )
        return await self._run("mbsync", "--config", config, "--all")

    async def msmtp(self, port: int, recipient: str, mechanism: str, message: bytes) -> Outcome:
        # Named, for without TLS msmtp takes neither PLAIN nor LOGIN on its own.
        config = self._file(
            "msmtprc",
            f"account default\nhost {HOST}\nport {port}\ntls off\nauth {mechanism}\n"
            f"user {self.user}\npassword {self.password}\nfrom {self.user}\n",
        )
        return await self._run("msmtp", "--file", config, recipient, stdin=message)

    async def swaks(self, port: int, recipient: str, mechanism: str) -> Outcome:
        return await self._run(
            "swaks", "--server", HOST, "--port", str(port), "--from", self.user, "--to", recipient,
            "--auth", mechanism, "--auth-user", self.user, "--auth-password", self.password,
            "--header", f"Subject: by swaks, {mechanism}", "--body", "hello",
        )  # fmt: skip

    async def fetchmail(self, port: int) -> Outcome:
        """Fetches everything by POP3 into the file `home/fetched`."""
        config = self._file(
            "fetchmailrc",
            f'poll {HOST} protocol POP3 port {port} username "{self.user}" password "{self.password}" '
            f"sslproto '' fetchall mda \"/bin/sh -c 'cat >>{self.home}/fetched'\"\n",
        )
        files = ("--pidfile", self.home / "fetchmail.pid", "--idfile", self.home / "fetchids")
        return await self._run("fetchmail", "--fetchmailrc", config, "--nosyslog", "--nodetach", *files)

    async def curl(self, url: str, *options: str | Path) -> Outcome:
        login = f"{self.user}:{self.password}"
        return await self._run("curl", "--silent", "--show-error", "--user", login, *options, url)

    def _file(self, name: str, content: str) -> Path:
        path = self.home / name
        path.touch(0o600)
        path.write_text(content)
        return path

    async def _run(self, *command: str | Path, stdin: bytes = b"") -> Outcome:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8"}
        return await run(*command, stdin=stdin, env=environment, cwd=self.home)


def maildir_messages(folder: Path) -> Sequence[bytes]:
    """What a Maildir holds, sorted by content: file names are the program's own."""
    return sorted(path.read_bytes() for part in ("cur", "new") for path in (folder / part).iterdir())
