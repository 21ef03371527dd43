"""Real mail programs, as a user sets them up for the proxy: host, port, user name, password, and TLS or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.run import Outcome, run

HOST = "127.0.0.1"
NAME = "localhost"
"""The host as the certificate of the proxy's own TLS names it."""


@dataclass(frozen=True)
class Tls:
    """How a program reaches the proxy by TLS: from the first octet, or by STARTTLS or STLS."""

    ca_file: Path
    starttls: bool


@dataclass(frozen=True)
class Clients:
    """One user's programs. Their files lie in `home`, which must not be open to others."""

    home: Path
    user: str
    password: str

    async def mbsync(self, port: int, mechanism: str, tls: Tls | None = None) -> Outcome:
        """Synchronises INBOX both ways with the Maildir `home/mail/INBOX`."""
        (self.home / "mail").mkdir(exist_ok=True)
        way = "SSLType None"
        if tls is not None:
            way = f"SSLType {'STARTTLS' if tls.starttls else 'IMAPS'}\nCertificateFile {tls.ca_file}"
        config = self._file(
            "mbsyncrc",
            f"""
IMAPAccount proxy
Host {host_for(tls)}
Port {port}
User {self.user}
Pass "{self.password}"
{way}
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

    async def msmtp(self, port: int, recipient: str, mechanism: str, message: bytes, tls: Tls | None = None) -> Outcome:
        way = "tls off"
        if tls is not None:
            way = f"tls on\ntls_starttls {'on' if tls.starttls else 'off'}\ntls_trust_file {tls.ca_file}"
        # Named, for without TLS msmtp takes neither PLAIN nor LOGIN on its own.
        config = self._file(
            "msmtprc",
            f"account default\nhost {host_for(tls)}\nport {port}\n{way}\nauth {mechanism}\n"
            f"user {self.user}\npassword {self.password}\nfrom {self.user}\n",
        )
        return await self._run("msmtp", "--file", config, recipient, stdin=message)

    async def swaks(
        self, port: int, recipient: str, mechanism: str = "", tls: Tls | None = None, *, source: str = ""
    ) -> Outcome:
        """Sends a message, from the address `source` where one is given; without a mechanism it does not log in."""
        way: list[str | Path] = []
        if tls is not None:
            way = ["--tls" if tls.starttls else "--tls-on-connect", "--tls-verify", "--tls-ca-path", tls.ca_file]
        if mechanism:
            way += ["--auth", mechanism, "--auth-user", self.user, "--auth-password", self.password]
        if source:
            way += ["--local-interface", source]
        return await self._run(
            "swaks", "--server", host_for(tls), "--port", str(port), *way, "--from", self.user, "--to", recipient,
            "--header", f"Subject: by swaks, {mechanism}", "--body", "hello",
        )  # fmt: skip

    async def fetchmail(self, port: int, tls: Tls | None = None) -> Outcome:
        """Fetches everything by POP3 into the file `home/fetched`."""
        way = "sslproto ''"
        if tls is not None:
            way = f"{'' if tls.starttls else 'ssl '}sslproto 'TLS1.2+' sslcertck sslcertfile {tls.ca_file}"
        config = self._file(
            "fetchmailrc",
            f'poll {host_for(tls)} protocol POP3 port {port} username "{self.user}" password "{self.password}" '
            f"{way} fetchall mda \"/bin/sh -c 'cat >>{self.home}/fetched'\"\n",
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


def host_for(tls: Tls | None) -> str:
    return HOST if tls is None else NAME
