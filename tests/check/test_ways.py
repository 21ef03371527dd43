"""The ways of a login: servers of accounts' own, a proxy in between, mailboxes of others, and who is kept out."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from cryptography.fernet import Fernet

from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.check.logins import in_whose_name, who_may
from emailproxy.config.model import Account, FlowName
from emailproxy.oauth.passwords import NewSlot
from emailproxy.secret import Secret
from emailproxy.service import Authority
from emailproxy.store.base import Limits
from tests.check.site import ADA, PASSWORD, ROBOT, Site, broken, grades, of, told, without
from tests.fakes.tunnel import tunnel
from tests.fakes.wayward import answering

SHARED = "office@example.org"
OWN_SERVER = without("server_address", "server_port")


def login_at(findings: list[Finding], section: str) -> Finding:
    (found,) = [finding for finding in of(findings, Link.LOGIN) if finding.about.endswith(f" at {section}")]
    return found


async def test_an_accounts_own_server_is_tried_where_the_port_has_none(site: Site) -> None:
    imap = site.section("IMAP")
    site.sections = {imap: OWN_SERVER, ADA: {"imap_server": f"localhost:{site.ports['IMAP']}"}}
    await site.sign_in()
    findings = await site.findings()
    assert f"{imap} at localhost" in [finding.about for finding in of(findings, Link.TLS)]
    assert grades(findings, Link.LOGIN) == {Grade.OK}
    assert login_at(findings, imap).text == "a login by IMAP goes through, and the mailbox opens"
    everybody = await site.findings(None)
    assert f"{imap} at localhost" in [finding.about for finding in of(everybody, Link.TLS)]


async def test_an_account_without_a_server_of_its_own_is_told(site: Site) -> None:
    pop = site.section("POP")
    site.sections = {pop: OWN_SERVER, ROBOT: {"pop_server": "pop.example.com:995"}}
    await site.sign_in()
    findings = await site.findings()
    (missing,) = [one for one in of(findings, Link.CONFIGURATION) if one.grade is Grade.SKIPPED]
    assert missing.text == f"{ADA} has no pop_server, and [{pop}] no server_address"
    assert missing.action == f"if it is to be used there, set pop_server = HOST:PORT in [{ADA}]"
    assert len(of(findings, Link.LOGIN)) == 2
    assert not any(finding.breaks for finding in findings)


# ---- a proxy


async def test_the_way_through_a_proxy_is_tried_and_told(site: Site) -> None:
    await site.sign_in()
    targets = {("localhost", port): port for port in site.ports.values()}
    async with tunnel(targets) as proxy:
        url = proxy.replace("://", "://ada:canary@")
        site.sections["emailproxy"] = {"upstream_proxy": url, "no_proxy": "127.0.0.1"}
        findings = await site.findings()
    assert grades(findings, Link.LOGIN) == {Grade.OK}
    assert {*proxy.asked} == {*targets}
    mail = [finding for finding in findings if finding.about.endswith(" at localhost")]
    assert {one.text for one in of(mail, Link.DNS)} == {
        f"left to the proxy {proxy}:80 (upstream_proxy)".replace(":80", "")
    }
    assert all(one.text.endswith(f" accepts connections, through the proxy {proxy}") for one in of(mail, Link.TCP))
    assert {one.grade for one in of(mail, Link.TLS)} == {Grade.WARNING}
    assert "canary" not in told(findings)


async def test_a_proxy_that_refuses_ends_the_chain(site: Site) -> None:
    async with answering(b"HTTP/1.1 403 Forbidden\r\n\r\n") as port:
        site.sections["emailproxy"] = {"upstream_proxy": f"http://127.0.0.1:{port}", "no_proxy": "127.0.0.1"}
        last = of(await site.findings(), Link.TCP)[0]
    assert last.grade is Grade.FAILED
    assert "refuses to connect (403 Forbidden); have whoever runs it allow this" in last.text


async def test_a_variable_that_is_no_proxys_url_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "ftp://u:canary@p")
    monkeypatch.delenv("no_proxy", raising=False)
    last = broken(await site.findings())
    assert (last.link, last.grade) == (Link.TCP, Grade.FAILED)
    assert last.text.startswith("all_proxy in the environment is no proxy's URL; write http://HOST:PORT")


# ---- mailboxes of others


async def test_a_shared_mailbox_is_tried_with_its_owners_sign_in(site: Site) -> None:
    await site.sign_in()
    site.sections[SHARED] = site_keys(site) | {"token_owner": ADA}
    findings = await site.findings(SHARED)
    (imap, *_) = of(findings, Link.LOGIN)
    assert imap.text == f"a login by IMAP goes through, and the mailbox opens (with {ADA}'s sign-in)"
    site.takes = False
    refused = of(await site.findings(SHARED), Link.LOGIN)
    assert f"see that {ADA}, whose sign-in this is, may open {SHARED} (Full Access" in refused[0].action
    assert f"may send as {SHARED} (Send As" in refused[-1].action


def site_keys(site: Site) -> dict[str, object]:
    """What Ada's section says, for a section of its own."""
    sections = site.config.sections[ADA]
    names = ("token_url", "permission_url", "oauth2_scope", "client_id", "redirect_uri")
    return {name: sections[name] for name in names}


def account(**changes: Any) -> Account:
    settings: dict[str, Any] = {"name": SHARED, "section": SHARED, "flow": FlowName.AUTHORIZATION_CODE} | changes
    return Account(**settings)


@pytest.mark.parametrize(
    ("configured", "protocol", "named", "advised"),
    [
        (account(), "IMAP", "", ""),
        (account(token_owner=ADA), "IMAP", f" (with {ADA}'s sign-in)", f"see that {ADA}"),
        (account(auth_as="team@example.org"), "POP", " (as team@example.org)", f"see that {SHARED}"),
        (account(token_owner=ADA, smtp_auth_as=ADA), "SMTP", f" (as {ADA} with {ADA}'s sign-in)", ""),
        (account(token_owner=ADA, smtp_auth_as=ADA), "IMAP", f" (with {ADA}'s sign-in)", f"see that {ADA}"),
    ],
)
def test_who_logs_in_where(configured: Account, protocol: str, named: str, advised: str) -> None:
    assert in_whose_name(configured, protocol) == named
    assert who_may(configured, protocol).startswith(advised)
    assert bool(who_may(configured, protocol)) == bool(advised)


# ---- what a check cannot try


async def test_logins_from_elsewhere_only_are_not_tried_from_here(site: Site) -> None:
    await site.sign_in()
    site.sections[ADA] = {"allow_from": "10.0.0.0/8"}
    findings = await site.findings()
    assert grades(findings, Link.LOGIN) == {Grade.SKIPPED}
    assert f"logins are allowed from {ip_network('10.0.0.0/8')} only (allow_from)" in of(findings, Link.LOGIN)[0].text
    assert not any(finding.breaks for finding in findings)


async def test_a_password_for_one_protocol_is_tried_with_that(site: Site) -> None:
    await site.sign_in()
    scanner = NewSlot("scanner", Secret("a scanner's password"), Limits(protocols=("SMTP",)))
    async with Authority(site.config) as authority:
        await authority.broker.passwords.add(ADA, PASSWORD, scanner)
    findings = await site.findings(password=Secret("a scanner's password"))
    by_section = {finding.about.rpartition(" ")[2]: finding.grade for finding in of(findings, Link.LOGIN)}
    assert by_section == {
        site.section("IMAP"): Grade.SKIPPED,
        site.section("POP"): Grade.SKIPPED,
        site.section("SMTP"): Grade.OK,
    }


async def test_what_another_proxy_keeps_waits_for_the_first_login(site: Site) -> None:
    kept = {"token_salt": "A" * 22 + "==", "refresh_token": Fernet(Fernet.generate_key()).encrypt(b"canary").decode()}
    site.sections[ADA] = dict(kept)
    findings = await site.findings()
    (token,) = of(findings, Link.TOKEN)
    assert (token.grade, "takes over what that one keeps" in token.text) == (Grade.OK, True)
    assert findings[-1].grade is Grade.SKIPPED
    assert "the first login takes over" in findings[-1].text
    async with Authority(site.config) as authority:
        assert await authority.records.load(ADA) is None
