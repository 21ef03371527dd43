"""Dovecot as a proxy, one of its own in front of the server: any password will do, and it logs in with the token."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.bench.candidate import DOVECOT, Candidate
from tests.bench.candidates.leaving import left_out
from tests.bench.clients import Endpoint
from tests.bench.site import Bench, Servers
from tests.e2e.harness.dovecot import MAIL_USER, Dovecot, Upstream, rootless, running
from tests.e2e.harness.ports import free_ports

MAX_CLIENTS = 16_384  # of one process
AUTH_USER = "dovecot"  # who reads the users' file where root started it


@contextlib.asynccontextmanager
async def dovecot(bench: Bench, servers: Servers) -> AsyncIterator[Candidate | None]:
    if shutil.which("dovecot") is None:
        left_out(DOVECOT, "it is not installed (Debian: dovecot-imapd, dovecot-pop3d, dovecot-submissiond)")
        yield None
        return
    # Not the bench's folder: that is too long for the path of a Unix socket.
    root = Path(tempfile.mkdtemp(prefix="dovecot-"))
    try:
        root.chmod(0o711)
        imap, pop, smtp = free_ports(3)
        config = root / "dovecot.conf"
        _targets(root / "users", servers, bench.token)
        proxy = Dovecot(root, Upstream(imap, imap), Upstream(pop, pop), Upstream(smtp, smtp))
        config.write_text(_config(proxy, bench))
        async with running(config, proxy):
            pid = int((root / "run" / "master.pid").read_text())
            ways = Endpoint(imap), Endpoint(pop), Endpoint(smtp)
            yield Candidate(DOVECOT, "C", bench.with_password, *ways, pid)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _config(proxy: Dovecot, bench: Bench) -> str:
    """Its clients do without TLS, but only where it may speak TLS does it read `ssl_ca`, which the server's needs."""
    root, own = proxy.root, bench.world.authority.issue("localhost")
    text = f"""
base_dir = {root}/run
state_dir = {root}/run
instance_name = {root.name}
log_path = {root}/log
protocols = imap pop3 submission
listen = 127.0.0.1
ssl = yes
ssl_cert = <{own.certificate_file}
ssl_key = <{own.key_file}
ssl_ca = <{bench.world.authority.certificate_file}
ssl_require_crl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
default_vsz_limit = 0
default_client_limit = {MAX_CLIENTS}
mail_max_userip_connections = 0
passdb {{
  driver = passwd-file
  args = username_format=%s {root}/users
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""
    ways = (("imap", "imap", "imaps", proxy.imap), ("pop3", "pop3", "pop3s", proxy.pop),
            ("submission", "submission", "submissions", proxy.smtp))  # fmt: skip
    text += "".join(_listener(service, plain, tls, ports.starttls) for service, plain, tls, ports in ways)
    return text if os.geteuid() == 0 else text + rootless(pwd.getpwnam(MAIL_USER))


def _listener(service: str, plain: str, tls: str, port: int) -> str:
    return f"""
service {service}-login {{
  process_min_avail = 1
  service_count = 0
  inet_listener {plain} {{
    port = {port}
  }}
  inet_listener {tls} {{
    port = 0
  }}
}}
"""


def _targets(path: Path, servers: Servers, token: str) -> None:
    """Where each protocol's logins go, whoever they are (passwd-file, looked up by the protocol instead of the user).

    The host is a name, so that the certificate's is compared with it.
    """
    lines = (
        f"{service}:::::::nopassword=y proxy=y host=localhost hostip=127.0.0.1 port={port} ssl=yes"
        f" proxy_mech=xoauth2 pass={token}\n"
        for service, port in (("imap", servers.imap), ("pop3", servers.pop), ("submission", servers.smtp))
    )
    path.touch(0o600)
    if os.geteuid() == 0:
        shutil.chown(path, AUTH_USER)
    path.write_text("".join(lines))
