"""How clients are made to trust a private authority, system by system and program by program."""

from __future__ import annotations

import shlex
from pathlib import Path

SYSTEMS = (
    (
        "Debian, Ubuntu",
        "sudo cp {file} /usr/local/share/ca-certificates/emailproxy.crt && sudo update-ca-certificates",
    ),
    ("Fedora, RHEL", "sudo cp {file} /etc/pki/ca-trust/source/anchors/emailproxy.pem && sudo update-ca-trust"),
    (
        "macOS",
        "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}",
    ),
    ("Windows", "certutil -addstore -f Root ca.pem   (as administrator; Outlook and .NET programs go by this)"),
    (
        "Thunderbird, Firefox",
        "Settings > Privacy & Security > Certificates > Manage Certificates > Authorities > Import",
    ),
    ("Java", "keytool -importcert -noprompt -cacerts -storepass changeit -alias emailproxy -file {file}"),
    (
        ".NET on Linux",
        "what Debian's or Fedora's line does; or SSL_CERT_FILE={file} in the program's environment",
    ),
    (
        "Scanners, printers",
        "in the device's web page, as a trusted root certificate; where it wants DER: "
        "openssl x509 -in {file} -outform der -out ca.cer",
    ),
    ("mbsync", "CertificateFile {file}"),
    ("msmtp", "tls_trust_file {file}"),
    ("fetchmail", "sslcertck sslcertfile {file}"),
    ("curl", "curl --cacert {file}"),
)
"""What to do, with ``{file}`` where the authority's certificate stands."""


def steps(authority_file: Path) -> list[tuple[str, str]]:
    """Where, and what to do there."""
    return [(where, step.format(file=shlex.quote(str(authority_file)))) for where, step in SYSTEMS]
