"""What an account proves itself with, and what its token says."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from emailproxy.check.accounts import contents, credential, token_age
from emailproxy.check.finding import Grade
from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.config.sources import FromFile
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.secrets import Secrets
from emailproxy.store.base import Kdf, Lockbox, Record

ADA = "ada@example.org"


def account(**changes: Any) -> Account:
    settings: dict[str, Any] = {"name": ADA, "section": ADA, "flow": FlowName.AUTHORIZATION_CODE} | changes
    return Account(**settings)


# ---- certificates


def write_certificate(path: Path, days: int) -> Path:
    """A certificate and its key, in one file."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=99))
    certificate = builder.not_valid_after(now + timedelta(days=days, hours=1)).sign(key, hashes.SHA256())
    path.touch(0o600)
    path.write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


@pytest.mark.parametrize(
    ("days", "grade", "words"),
    [
        (90, Grade.OK, "belong together, and are good for 90 days"),
        (5, Grade.WARNING, "belong together, and are good for 5 days"),
        (-3, Grade.FAILED, "the certificate ended 2 days ago"),
    ],
)
async def test_a_clients_certificate_is_warned_of_before_its_end(
    tmp_path: Path, days: int, grade: Grade, words: str
) -> None:
    configured = account(certificate=write_certificate(tmp_path / "client.pem", days))
    finding = await credential(configured, Secrets(Commands()))
    assert finding is not None
    assert (finding.grade, words in finding.text) == (grade, True)
    assert bool(finding.action) == (grade is not Grade.OK)
    assert len(finding.facts["sha1"]) == 40


async def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    finding = await credential(account(certificate=tmp_path / "none.pem"), Secrets(Commands()))
    assert finding is not None
    assert finding.grade is Grade.FAILED
    assert await credential(account(), Secrets(Commands())) is None


async def test_a_secret_that_is_kept_elsewhere_is_looked_for(tmp_path: Path) -> None:
    place = tmp_path / "secret"
    configured = account(client_secret=FromFile(place))
    missing = await credential(configured, Secrets(Commands()))
    assert missing is not None
    assert (missing.grade, str(place) in missing.text) == (Grade.FAILED, True)
    place.write_text("canary-secret")
    there = await credential(configured, Secrets(Commands()))
    assert there is not None
    assert (there.grade, "canary" in str(there)) == (Grade.OK, False)


# ---- tokens

MICROSOFT = account(provider=ProviderName.MICROSOFT)
LONG = 4_000_000_000


@pytest.mark.parametrize(
    ("configured", "claims", "identities", "action"),
    [
        (account(), {"aud": "mail"}, (ADA.upper(),), ""),
        (account(), {"aud": "mail"}, ("bob@example.org",), f"it is not {ADA}'s"),
        (account(token_owner="bob@example.org"), {"aud": "mail"}, ("bob@example.org",), ""),
        (MICROSOFT, {"aud": "https://outlook.office.com"}, (), ""),
        (MICROSOFT, {"aud": "https://partner.outlook.cn"}, (), ""),
        (MICROSOFT, {"aud": "00000002-0000-0ff1-ce00-000000000000"}, (), ""),
        (MICROSOFT, {"aud": "https://graph.microsoft.com"}, (), "it is not for mail"),
        (MICROSOFT, {"ver": "1.0"}, (), ""),
        (account(), {"aud": "https://graph.microsoft.com"}, (), ""),
    ],
)
def test_a_token_for_something_or_somebody_else_is_told(
    configured: Account, claims: dict[str, object], identities: tuple[str, ...], action: str
) -> None:
    finding = contents(configured, claims, identities)
    assert finding.action.startswith(action)
    assert finding.grade is (Grade.WARNING if action else Grade.OK)


def test_scopes_roles_and_end_are_told() -> None:
    claims = {"aud": ["mail"], "scp": "IMAP.AccessAsUser.All SMTP.Send", "roles": ["Mail.Send"], "exp": LONG}
    finding = contents(account(), claims, (ADA,))
    assert finding.facts == {
        "audience": ["mail"],
        "scopes": ["IMAP.AccessAsUser.All", "SMTP.Send", "Mail.Send"],
        "expires": "2096-10-02T07:06:40Z",
        "identities": [ADA],
    }
    assert "for mail, with IMAP.AccessAsUser.All, SMTP.Send, Mail.Send, good for " in finding.text


@pytest.mark.parametrize(
    "claims", [{"aud": 5, "scp": {"a": 1}, "exp": "x"}, {"exp": float("nan")}, {"aud": ["a\x1b[31m\n", 7], "exp": -1}]
)
def test_odd_claims_do_no_harm(claims: dict[str, object]) -> None:
    finding = contents(account(), claims, ())
    assert finding.text.isprintable()
    assert "expires" not in finding.facts


def test_an_opaque_token_says_nothing() -> None:
    assert "opaque" in contents(account(), {}, ()).text


def test_an_end_that_is_past_or_not_known_is_told() -> None:
    box = Lockbox(b"", Kdf(b"", 1, 1), ())
    assert "does not say how long" in token_age(Record(ADA, box))
    day_s, now_s = 24 * 3600, int(time.time())
    assert "ended 2 days ago" in token_age(Record(ADA, box, expires_at_s=now_s - 2 * day_s - 60))
    assert "is good for 3 days" in token_age(Record(ADA, box, expires_at_s=now_s + 3 * day_s + 60))
