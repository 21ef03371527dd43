"""`emailproxy certificate`: what it makes is trusted by who trusts its authority, and nothing of others is touched."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from emailproxy import certificates
from emailproxy.certificates import Validity
from emailproxy.cli.main import cli
from emailproxy.demo.certificates import Certificate
from tests.cli.site import ROOT_ONLY, SERVICE
from tests.demo.test_certificates import shake_hands

HOSTS = "mail.lan,192.168.1.5,[2001:DB8::5],scan.example.com"
NAMES = ["mail.lan", "192.168.1.5", "2001:db8::5", "scan.example.com"]
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tls"


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["certificate", "--dir", str(folder), *arguments])


def made(folder: Path, *arguments: str) -> dict[str, object]:
    """The facts of a run that succeeds."""
    result = run(folder, "--json", *arguments)
    assert result.exit_code == 0, result.output
    facts: dict[str, object] = json.loads(result.output)
    return facts


def in_pem(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trusts_the_authority_accepts_every_host(folder: Path, name: str) -> None:
    made(folder, "--hosts", HOSTS)
    authority, (server, *chain) = in_pem(folder / "ca.pem"), in_pem(folder / "server.pem")
    assert chain == authority
    try:
        subject: x509.DNSName | x509.IPAddress = x509.IPAddress(ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    verifier = PolicyBuilder().store(Store(authority)).build_server_verifier(subject)
    assert verifier.verify(server, []) == [server, *authority]
    trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ours = Certificate(folder / "server.pem", folder / "server.key").server_context()
    assert shake_hands(trusting, ours, name) == "TLSv1.3"


@pytest.mark.system("openssl")
def test_openssl_finds_nothing_wrong(folder: Path) -> None:
    made(folder, "--hosts", HOSTS)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "mail.lan"]
    command += ["-CAfile", str(folder / "ca.pem"), str(folder / "server.pem")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout) == (0, f"{folder / 'server.pem'}: OK\n")


def test_another_name_is_not_accepted(folder: Path) -> None:
    made(folder, "--hosts", "mail.lan")
    trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    ours = Certificate(folder / "server.pem", folder / "server.key").server_context()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(trusting, ours, "localhost")


def test_a_renewal_keeps_authority_hosts_and_key(folder: Path) -> None:
    first = made(folder, "--hosts", "mail.lan,192.168.1.5")
    before, (old, _) = files(folder), in_pem(folder / "server.pem")
    second = made(folder)
    after, (new, _) = files(folder), in_pem(folder / "server.pem")
    assert [name for name in before if before[name] != after[name]] == ["server.pem"]
    assert old.serial_number != new.serial_number
    assert old.public_key() == new.public_key()
    assert sorted(second["hosts"]) == sorted(first["hosts"])  # type: ignore[call-overload]
    assert (first["authority_is_new"], second["authority_is_new"]) == (True, False)
    assert first["authority_sha256"] == second["authority_sha256"]


def test_other_hosts_take_the_place_of_the_old_ones(folder: Path) -> None:
    made(folder, "--hosts", "mail.lan")
    assert made(folder, "--hosts", "a.lan", "--hosts", "b.lan, A.LAN")["hosts"] == ["a.lan", "b.lan"]


@pytest.mark.parametrize("days", [1, 397, 824])
def test_it_lasts_as_long_as_wished(folder: Path, days: int) -> None:
    made(folder, "--hosts=mail.lan", f"--days={days}")
    ends = in_pem(folder / "server.pem")[0].not_valid_after_utc
    assert abs(ends - datetime.now(UTC) - days * DAY) < timedelta(minutes=5)


def test_it_does_not_outlive_its_authority(folder: Path) -> None:
    folder.mkdir()
    put_authority(folder, ends=datetime.now(UTC) + 30 * DAY)
    made(folder, "--hosts=mail.lan")
    server, authority = in_pem(folder / "server.pem")
    assert server.not_valid_after_utc == authority.not_valid_after_utc
    assert "The authority itself ends then" in run(folder).output


def test_keys_are_for_their_owner_alone(folder: Path) -> None:
    umask = os.umask(0)
    try:
        made(folder, "--hosts=mail.lan")
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_who_owns_the_folder_opens_no_other_file_to_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root renews in the service's folder: its user may put a link in a new file's place at any moment."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    place = os.replace

    def then_linked(source: Path, target: Path) -> None:
        place(source, target)
        if target.suffix == ".pem":
            target.unlink()
            target.symlink_to(secret)

    monkeypatch.setattr(os, "replace", then_linked)
    run(folder, "--hosts=mail.lan")
    assert (folder / "server.pem").is_symlink()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@ROOT_ONLY
def test_what_root_makes_belongs_to_the_folders_owner(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, SERVICE, SERVICE)
    made(folder, "--hosts=mail.lan")
    made(folder)
    assert {path.stat().st_uid for path in folder.iterdir()} == {SERVICE}


def test_it_says_what_to_configure_and_how_clients_trust_it(folder: Path) -> None:
    output = run(folder, "--hosts=mail.lan").output
    assert f"local_certificate_path = {folder}/server.pem" in output
    assert f"local_key_path = {folder}/server.key" in output
    for where in (
        "Debian",
        "Fedora",
        "macOS",
        "Windows",
        "Thunderbird",
        "Java",
        ".NET",
        "mbsync",
        "msmtp",
        "fetchmail",
    ):
        assert f"\n  {where}" in output
    assert "PRIVATE KEY" not in output
    assert "Make clients trust" not in run(folder).output


def test_its_place_is_beside_the_state(tmp_path: Path) -> None:
    config = tmp_path / "emailproxy.ini"
    config.write_text(f"[emailproxy]\nstate_dir = {tmp_path}/var/state\n")
    result = CliRunner().invoke(cli, ["certificate", "--config", str(config), "--hosts=mail.lan"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "var" / "tls" / "server.key").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hosts", "mail_lan, a b"], "'a b' is neither a host name nor an IP address"),
        (["--hosts", "192.168.1.256"], "'192.168.1.256' is neither"),
        (["--hosts", "imap://mail.lan"], "neither a host name"),
        (["--hosts", "mail.lan:993"], "neither a host name"),
        (["--hosts", "*.lan"], "neither a host name"),
        (["--hosts", ""], "neither a host name"),
        (["--hosts", ",".join(f"h{number}.lan" for number in range(101))], "these are 101 hosts"),
        (["--hosts=mail.lan", "--days=0"], "0 is not in the range"),
        (["--hosts=mail.lan", "--days=825"], "825 is not in the range"),
    ],
)
def test_wrong_usage_makes_nothing(folder: Path, arguments: list[str], words: str) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert not folder.exists()


def test_the_first_time_hosts_must_be_named(folder: Path) -> None:
    result = run(folder)
    assert (result.exit_code, folder.exists()) == (1, False)
    assert "--hosts=mail.lan,192.168.1.5" in result.output


# ---- what was not made here


def put_authority(folder: Path, *, organization: str = "emailproxy", ends: datetime | None = None) -> None:
    """Files of an authority, as if they had been made here, or elsewhere."""
    key = certificates.new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization)])
    now = datetime.now(UTC)
    certificate = certificates.authority(key, name, Validity(now - 9 * DAY, ends or now + DAY))
    (folder / "ca.pem").write_bytes(certificates.pem(certificate))
    (folder / "ca.key").write_bytes(certificates.key_pem(key))
    (folder / "ca.key").chmod(0o600)


def of_another_authority(folder: Path) -> None:
    put_authority(folder, organization="Example Corp")


def that_has_ended(folder: Path) -> None:
    put_authority(folder, ends=datetime.now(UTC) - DAY)


def without_its_key(folder: Path) -> None:
    (folder / "ca.key").unlink()


def with_another_key(folder: Path) -> None:
    (folder / "ca.key").write_bytes(certificates.key_pem(certificates.new_key()))


def with_a_key_for_all_to_read(folder: Path) -> None:
    (folder / "ca.key").chmod(0o644)


def damaged(folder: Path) -> None:
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")


def damaged_server(folder: Path) -> None:
    (folder / "server.pem").write_text("nonsense")


def damaged_server_key(folder: Path) -> None:
    (folder / "server.key").write_text("nonsense")


def server_of_another_authority(folder: Path) -> None:
    put_authority(folder)


def server_without_authority(folder: Path) -> None:
    (folder / "ca.pem").unlink()
    (folder / "ca.key").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_another_authority, "its authority was not made by emailproxy"),
        (that_has_ended, "its authority ended on"),
        (without_its_key, "ca.key is not beside it"),
        (with_another_key, "ca.key is not its key"),
        (with_a_key_for_all_to_read, "chmod 600"),
        (damaged, "ca.pem is left as it is: it holds no certificate"),
        (damaged_server, "server.pem is left as it is: it holds no certificate"),
        (damaged_server_key, "server.key is left as it is: it holds no private key"),
        (server_of_another_authority, "it is not of the authority in ca.pem"),
        (server_without_authority, "its authority is not beside it"),
    ],
    ids=lambda row: getattr(row, "__name__", ""),
)
def test_what_was_not_made_here_is_left_as_it_is(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    made(folder, "--hosts=mail.lan")
    spoil(folder)
    before = files(folder)
    result = run(folder, "--hosts=mail.lan")
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert words in line
    assert files(folder) == before
