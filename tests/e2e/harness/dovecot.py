"""A private Dovecot: IMAP, POP3 and submission, whose only logins are OAuth 2.0 access tokens (local JWTs)."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import grp
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.e2e.harness.ports import free_ports
from tests.e2e.harness.run import run

START_S = 20.0
"""Dovecot takes a fifth of a second; a busy machine some seconds."""


class Upstream(NamedTuple):
    """One protocol's two ports: implicit TLS, and plaintext with STARTTLS."""

    tls: int
    starttls: int


@dataclass(frozen=True)
class Dovecot:
    """A running server. Its certificate is the caller's; every user name of a valid token has a mailbox."""

    root: Path
    imap: Upstream
    pop: Upstream
    smtp: Upstream

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def maildir(self, user: str) -> Path:
        return self.root / "mail" / user / "Maildir"

    def deliver(self, user: str, messages: Iterable[bytes]) -> None:
        """Puts messages into the user's INBOX, as a delivery agent would."""
        new = self.maildir(user) / "new"
        for folder in ("cur", "tmp", "new"):
            (new.parent / folder).mkdir(parents=True, exist_ok=True)
        for number, message in enumerate(messages):
            (new / f"{number:06}.test").write_bytes(message)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(MAIL_USER)
            home = new.parent.parent
            for path in (home, *home.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    def messages(self, user: str) -> list[bytes]:
        """What the user's INBOX holds, in the order of arrival."""
        maildir = self.maildir(user)
        files = [path for folder in ("cur", "new") for path in (maildir / folder).glob("*")]
        return [path.read_bytes() for path in sorted(files, key=lambda path: path.name)]


MAIL_USER = "nobody" if os.geteuid() == 0 else getpass.getuser()


@contextlib.asynccontextmanager
async def dovecot(
    *,
    public_key_pem: str,
    certificate: Path,
    key: Path,
    relay_port: int,
    mechanisms: str = "xoauth2 oauthbearer",
) -> AsyncIterator[Dovecot]:
    """Runs Dovecot on free ports of 127.0.0.1; its submission server relays to `relay_port`."""
    # Not pytest's tmp_path: that is closed to the mail user, and too long for the path of a Unix socket.
    root = Path(tempfile.mkdtemp(prefix="dovecot-"))
    try:
        root.chmod(0o711)
        keys = root / "keys" / "default" / "RS256"
        keys.mkdir(parents=True)
        (keys / "default").write_text(public_key_pem)
        (root / "oauth2.conf").write_text(
            "introspection_mode = local\n"
            f"local_validation_key_dict = fs:posix:prefix={root}/keys/\n"
            "username_attribute = email\n"
        )
        mail = root / "mail"
        mail.mkdir()
        shutil.chown(mail, MAIL_USER)
        ports = free_ports(6)
        server = Dovecot(root, Upstream(*ports[:2]), Upstream(*ports[2:4]), Upstream(*ports[4:]))
        config = root / "dovecot.conf"
        config.write_text(_config(server, certificate, key, relay_port, mechanisms))
        async with running(config, server):
            yield server
    finally:
        shutil.rmtree(root, ignore_errors=True)  # A killed process may write its last file yet.


@contextlib.asynccontextmanager
async def running(config: Path, server: Dovecot) -> AsyncIterator[None]:
    started = await run("dovecot", "-c", config, timeout=START_S)
    if started.code != 0:
        log = server.log if (server.root / "log").exists() else ""
        raise RuntimeError(f"Dovecot does not start: {started.output}\n{log}")
    try:
        async with asyncio.timeout(START_S):  # The listeners are open by now; a greeting says that it serves.
            for port, greeting in ((server.imap, b"* OK"), (server.pop, b"+OK"), (server.smtp, b"220 ")):
                reader, writer = await asyncio.open_connection("127.0.0.1", port.starttls)
                line = await reader.readline()
                assert line.startswith(greeting), (line, server.log)
                writer.close()
                await writer.wait_closed()
        yield
    finally:
        # Killed as a group (the daemon leads one): `dovecot stop` takes two seconds, which every test would pay.
        master = int((server.root / "run" / "master.pid").read_text())
        os.killpg(master, signal.SIGKILL)


def _config(server: Dovecot, certificate: Path, key: Path, relay_port: int, mechanisms: str) -> str:
    root = server.root
    mail = pwd.getpwnam(MAIL_USER)
    text = f"""
base_dir = {root}/run
state_dir = {root}/run
instance_name = {root.name}
log_path = {root}/log
auth_verbose = yes
protocols = imap pop3 submission
listen = 127.0.0.1
ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}
ssl_min_protocol = TLSv1.2
disable_plaintext_auth = yes
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
default_vsz_limit = 0
default_client_limit = 4096
mail_max_userip_connections = 0
mail_location = maildir:~/Maildir
mail_fsync = never
first_valid_uid = 1
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
submission_max_mail_size = 0
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {root}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={mail.pw_uid} gid={mail.pw_gid} home={root}/mail/%u
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
{_listeners("imap", "imap", "imaps", server.imap)}
{_listeners("pop3", "pop3", "pop3s", server.pop)}
{_listeners("submission", "submission", "submissions", server.smtp)}
"""
    return text if os.geteuid() == 0 else text + rootless(mail)


def _listeners(service: str, plain: str, tls: str, ports: Upstream) -> str:
    return f"""
service {service}-login {{
  process_min_avail = 1
  service_count = 0
  inet_listener {plain} {{
    port = {ports.starttls}
  }}
  inet_listener {tls} {{
    port = {ports.tls}
    ssl = yes
  }}
}}
"""


def rootless(user: pwd.struct_passwd) -> str:
    """What makes every service run as the caller, for lack of the right to change users."""
    group = grp.getgrgid(user.pw_gid).gr_name
    services = "".join(
        f"service {name} {{\n  chroot =\n}}\n"
        for name in ("anvil", "imap-login", "pop3-login", "submission-login", "stats")
    )
    return (
        f"default_internal_user = {user.pw_name}\ndefault_internal_group = {group}\n"
        f"default_login_user = {user.pw_name}\n{services}"
    )
