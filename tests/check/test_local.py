"""The certificates that mail programs are shown: until when, and for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.check.local import local_certificate
from emailproxy.config.model import MailProtocol, Server
from emailproxy.demo.certificates import Authority
from tests.check.site import Site, broken, of


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"))


def looked_at(path: Path, key: Path | None, local_address: str | None = None) -> Finding:
    server = Server(
        section="IMAP-1",
        protocol=MailProtocol.IMAP,
        local_port=1,
        local_address=local_address,
        local_certificate=path,
        local_key=key,
    )
    return local_certificate(server, path)


@pytest.mark.parametrize(
    ("names", "local_address", "missing"),
    [
        (("localhost",), None, ""),
        (("mail.lan",), None, "localhost"),
        (("mail.lan",), "mail.lan", ""),
        (("*.home.lan",), "mail.home.lan", ""),
        (("*.home.lan",), "mail.other.lan", "mail.other.lan"),
        (("mail.lan", "192.168.1.5"), "192.168.1.5", ""),
        (("mail.lan",), "192.168.1.5", "192.168.1.5"),
        (("mail.lan",), "::", ""),
        (("mail.lan",), "0.0.0.0", ""),
    ],
)
def test_names_are_compared_with_where_programs_connect(
    authority: Authority, names: tuple[str, ...], local_address: str | None, missing: str
) -> None:
    issued = authority.issue(*names)
    finding = looked_at(issued.certificate_file, issued.key_file, local_address)
    assert finding.grade is Grade.WARNING  # the test's certificates are good for a week
    assert finding.text.startswith(f"the certificate is for {', '.join(names)}, and good for 6 days, until 20")
    assert finding.facts["names"] == list(names)
    assert finding.text.endswith(f"; it is not for {missing}") is bool(missing)
    assert finding.action.startswith("have programs connect to" if missing else "renew it")


def test_one_that_ended_is_told(authority: Authority) -> None:
    issued = authority.issue("localhost", expired=True)
    finding = looked_at(issued.certificate_file, issued.key_file)
    assert finding.grade is Grade.FAILED
    assert finding.text == "the certificate ended 1 hour ago: mail programs refuse it"


def test_a_key_that_belongs_to_another_is_told(authority: Authority) -> None:
    one, other = authority.issue("localhost"), authority.issue("localhost")
    finding = looked_at(one.certificate_file, other.key_file)
    assert (finding.link, finding.grade) == (Link.CONFIGURATION, Grade.FAILED)
    assert "[IMAP-1]" in finding.text
    assert "key of another certificate" in finding.text


async def test_it_is_part_of_the_chain(site: Site) -> None:
    issued, ended = site.ca.issue("localhost"), site.ca.issue("localhost", expired=True)
    imap = site.section("IMAP")

    def shown(certificate: Any) -> dict[str, object]:
        return {"local_certificate_path": certificate.certificate_file, "local_key_path": certificate.key_file}

    site.sections[imap] = shown(issued)
    about = f"local_certificate_path of {imap}"
    assert about in [finding.about for finding in of(await site.findings(password=None), Link.CONFIGURATION)]
    site.sections[imap] = shown(ended)
    last = broken(await site.findings(password=None))
    assert (last.about, last.link) == (about, Link.CONFIGURATION)
