"""Client certificates in every form, and each thing that can be wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.x509 import load_pem_x509_certificates

from emailproxy.config.model import Account, FlowName
from emailproxy.config.sources import FromFile
from emailproxy.errors import AccountUnusable
from emailproxy.oauth.certificate import ClientCertificate, certificate_of
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from tests.oauth.certificates import Pair, made

PASSPHRASE = "canary-pässphrase"
FORMS = ["PEM", "PEM, old key", "PEM, encrypted", "PEM, old and encrypted", "one PEM", "PFX", "PFX, encrypted"]


def account_of(folder: Path, **changes: Any) -> Account:
    settings: dict[str, Any] = {"certificate": folder / "client.pem", "certificate_key": folder / "client.key"}
    return Account(
        name="ada@example.org", section="ada@example.org", flow=FlowName.CLIENT_CREDENTIALS, **{**settings, **changes}
    )


async def load(account: Account) -> ClientCertificate:
    return await certificate_of(account, Secrets(Commands()))


def laid_out(folder: Path, pair: Pair, form: str) -> Account:
    """The pair in this form, and the account that names it."""
    old = PrivateFormat.TraditionalOpenSSL
    key = pair.key_pem(PASSPHRASE if "encrypted" in form else None, old if "old" in form else PrivateFormat.PKCS8)
    changes: dict[str, Any] = {"key_passphrase": Secret(PASSPHRASE)} if "encrypted" in form else {}
    if form.startswith("PFX"):
        (folder / "client.pem").write_bytes(pair.pfx(PASSPHRASE if changes else None, (made("other").certificate,)))
        return account_of(folder, certificate_key=None, **changes)
    if form == "one PEM":
        (folder / "client.pem").write_bytes(key + made("other").certificate_pem + pair.certificate_pem)
        return account_of(folder, certificate_key=None)
    (folder / "client.pem").write_bytes(b"some words before\n" + pair.certificate_pem)
    (folder / "client.key").write_bytes(key)
    return account_of(folder, **changes)


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_is_taken(tmp_path: Path, pair: Pair, form: str) -> None:
    loaded = await load(laid_out(tmp_path, pair, form))
    assert loaded.x5t_s256 == pair.thumbprint("SHA256")
    assert loaded.x5t == pair.thumbprint("SHA1")
    assert loaded.not_after == pair.certificate.not_valid_after_utc
    key = loaded.key
    assert key.private_numbers() == pair.key.private_numbers()
    chain = load_pem_x509_certificates(loaded.chain_pem.encode())
    assert chain[0] == pair.certificate
    assert len(chain) == (2 if form.startswith(("PFX", "one")) else 1)
    assert "PRIVATE" not in repr(loaded)


async def test_a_key_that_is_not_encrypted_needs_no_passphrase(tmp_path: Path, pair: Pair) -> None:
    account = laid_out(tmp_path, pair, "PEM")
    await load(replace(account, key_passphrase=Secret("unused")))


async def test_the_passphrase_may_come_from_anywhere(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\r\n")
    account = laid_out(tmp_path, pair, "PFX, encrypted")
    await load(replace(account, key_passphrase=FromFile(tmp_path / "passphrase")))


async def test_a_certificate_that_was_renewed_counts_at_once(tmp_path: Path, pair: Pair) -> None:
    account = laid_out(tmp_path, pair, "PEM")
    await load(account)
    laid_out(tmp_path, made("renewed"), "PEM")
    assert (await load(account)).x5t_s256 == made("renewed").thumbprint("SHA256")


async def test_one_that_has_expired_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expired = made("expired", days=-1)
    await load(laid_out(tmp_path, expired, "PEM"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"client.pem) expired on {expired.certificate.not_valid_after_utc.date()}" in record.getMessage()


@pytest.mark.parametrize("form", ["PEM, encrypted", "PEM, old and encrypted", "PFX, encrypted"])
@pytest.mark.parametrize(
    ("passphrase", "said"), [(Secret("wrong"), "jwt_key_passphrase is wrong"), (None, "add jwt_key_passphrase")]
)
async def test_a_wrong_passphrase_is_told(
    tmp_path: Path, pair: Pair, form: str, passphrase: Secret | None, said: str
) -> None:
    account = replace(laid_out(tmp_path, pair, form), key_passphrase=passphrase)
    with pytest.raises(AccountUnusable, match=said) as caught:
        await load(account)
    assert "ada@example.org" in str(caught.value)


NO_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NO_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
SSH_KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("client.pem", None, "jwt_certificate_path of ada@example.org cannot be read from .*No such file"),
        ("client.key", None, "jwt_key_path of ada@example.org cannot be read from .*No such file"),
        ("client.pem", b"", "neither a PEM certificate nor a PFX file"),
        (
            "client.pem",
            lambda: made().certificate.public_bytes(Encoding.DER),
            "neither a PEM certificate nor a PFX file",
        ),
        ("client.pem", b"\x00\xff" * 100, "neither a PEM certificate nor a PFX file"),
        ("client.pem", lambda: made().key_pem(), "neither a PEM certificate nor a PFX file"),
        ("client.pem", b"A" * 70_000, "longer than 64 KiB"),
        ("client.pem", NO_CERTIFICATE, "certificate that cannot be read"),
        ("client.pem", lambda: made().pfx("x")[:900], "add jwt_key_passphrase, if the file is not damaged"),
        ("client.pem", lambda: made("other").certificate_pem, "does not belong to the private key in .*client.key"),
        ("client.pem", lambda: made("elliptic", kind="ec").pfx(), "no RSA key"),
        ("client.key", b"", "no PEM private key"),
        ("client.key", lambda: made().certificate_pem, "no PEM private key"),
        ("client.key", NO_KEY, "private key that cannot be read"),
        ("client.key", SSH_KEY, "private key that cannot be read"),
        ("client.key", lambda: made("other").key_pem(), "does not belong to the private key in .*client.key"),
        ("client.key", lambda: made("elliptic", kind="ec").key_pem(), "no RSA key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_is_told_in_one_sentence(
    tmp_path: Path, pair: Pair, name: str, content: Callable[[], bytes] | bytes | None, said: str
) -> None:
    account = laid_out(tmp_path, pair, "PEM")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content())
    with pytest.raises(AccountUnusable, match=said) as caught:
        await load(account)
    assert name in str(caught.value)
    assert "ada@example.org" in str(caught.value)
    assert ";" in str(caught.value)  # and the mend


async def test_a_pfx_without_a_key_is_told(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

    others = [made().certificate]
    (tmp_path / "client.pem").write_bytes(
        pkcs12.serialize_key_and_certificates(None, None, None, others, NoEncryption())
    )
    with pytest.raises(AccountUnusable, match="export it again with its private key"):
        await load(account_of(tmp_path, certificate_key=None))


async def test_one_pem_without_a_key_is_told(tmp_path: Path, pair: Pair) -> None:
    (tmp_path / "client.pem").write_bytes(pair.certificate_pem)
    with pytest.raises(AccountUnusable, match="in jwt_key_path"):
        await load(account_of(tmp_path, certificate_key=None))


async def test_no_certificate_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(AccountUnusable, match="no jwt_certificate_path"):
        await load(account_of(tmp_path, certificate=None))


async def test_no_error_holds_a_passphrase_or_a_key(
    tmp_path: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    account = laid_out(tmp_path, pair, "PEM, encrypted")
    (tmp_path / "client.pem").write_bytes(made("other").certificate_pem)
    with pytest.raises(AccountUnusable) as caught:
        await load(account)
    assert "canary" not in repr(caught.value) + caplog.text
    assert caught.value.__cause__ is None
