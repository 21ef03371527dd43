"""npm's oidc-provider, a certified OpenID provider, as the provider of mailboxes in a Dovecot that takes its tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import RSAAlgorithm

from emailproxy.demo.certificates import Certificate
from tests.e2e.harness.installed import NODE_MODULES

SERVER = Path(__file__).parent / "oidc" / "server.mjs"
PATIENCE_S = 20.0
"""It starts in half a second; a busy machine takes some."""
GRANTS = ("authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code")

Facts = dict[str, Any]


@dataclass(frozen=True)
class ClientCertificate:
    """What a client proves itself with in place of a secret."""

    certificate_file: Path
    key_file: Path
    metadata: Facts
    """For its registration: `private_key_jwt` (OpenID Connect Core section 9)."""


def client_certificate(folder: Path) -> ClientCertificate:
    """Makes one, signed by its own key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a mail program")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    made = ClientCertificate(
        folder / "client.pem",
        folder / "client.key",
        {
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)]},
        },
    )
    made.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    made.key_file.touch(0o600)
    made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def registration(
    client_id: str, *, redirect_uri: str, mailbox: str, secret: str | None, certificate: ClientCertificate | None
) -> Facts:
    """A client's metadata (RFC 7591 section 2), for every grant. `mailbox`: which one its own tokens open."""
    client: Facts = {
        "client_id": client_id,
        "application_type": "native",
        "grant_types": GRANTS,
        "redirect_uris": [redirect_uri],
        "mailbox": mailbox,
    }
    if certificate is not None:
        return client | certificate.metadata
    return client | {"token_endpoint_auth_method": "client_secret_post", "client_secret": secret}


@dataclass
class OpenIdProvider:
    """A running one. `events` is what happened there, each with the name `event`."""

    port: int
    public_key_pem: str
    events: list[Facts] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        origin = f"https://localhost:{self.port}"
        self.permission_url = f"{origin}/auth"
        self.token_url = f"{origin}/token"
        self.device_url = f"{origin}/device/auth"

    def named(self, event: str) -> list[Facts]:
        return [facts for facts in self.events if facts["event"] == event]

    @property
    def granted(self) -> list[str]:
        """The grants that were answered with tokens, in their order."""
        return [facts["grant"] for facts in self.named("grant.success")]

    async def listen(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            async with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    async def happens(self, event: str, count: int = 1) -> Facts:
        """Waits until it has happened so many times; the last of them."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.named(event)) >= count)
        return self.named(event)[count - 1]


@contextlib.asynccontextmanager
async def oidc_provider(
    certificate: Certificate, clients: Sequence[Facts], *, lifetime_s: int = 3600, rotate: bool = True
) -> AsyncIterator[OpenIdProvider]:
    """Runs it on a free port of 127.0.0.1, as `localhost`. Access tokens live for `lifetime_s`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    settings = {
        "certificate": certificate.certificate_file.read_text(),
        "key": certificate.key_file.read_text(),
        "clients": list(clients),
        "jwk": RSAAlgorithm.to_jwk(key, as_dict=True) | {"kid": "default", "alg": "RS256", "use": "sig"},
        "lifetimeS": lifetime_s,
        "rotate": rotate,
    }
    del settings["jwk"]["key_ops"]  # RFC 7517 section 4.3: not together with "use"
    public_key_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            "node", SERVER, NODE_MODULES,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=complaints,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            async with asyncio.timeout(PATIENCE_S):
                first = await process.stdout.readline()
            if not first:
                complaints.seek(0)
                raise RuntimeError(f"oidc-provider does not start: {complaints.read().decode(errors='replace')}")
            provider = OpenIdProvider(json.loads(first)["port"], public_key_pem)
            listening = asyncio.create_task(provider.listen(process.stdout))
            try:
                yield provider
            finally:
                process.stdin.close()  # which ends it
                async with asyncio.timeout(PATIENCE_S):
                    await listening
            assert provider.named("server_error") == []
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
