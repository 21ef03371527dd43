"""The chain from the configuration to a login: every link once, in order, and none behind the first that is broken."""

from __future__ import annotations

import asyncio

import pytest

from emailproxy.check.finding import Finding, Grade, Link
from emailproxy.check.ways import ways_of
from emailproxy.config import catchall, ini
from emailproxy.secret import Secret
from emailproxy.service import Authority
from tests.check.site import ADA, CLIENT_SECRET, PASSWORD, ROBOT, Site, broken, grades, of, told
from tests.fakes.provider import refusal
from tests.net.stubs import upstream_server


async def test_where_all_is_well_every_link_is_told_once(site: Site) -> None:
    await site.sign_in()
    findings = await site.findings()
    assert not any(finding.breaks for finding in findings), findings
    assert [finding.about for finding in of(findings, Link.TLS)] == [
        f"{site.section(protocol)} at localhost" for protocol in site.ports
    ]
    assert grades(findings, Link.TCP) == {Grade.OK}
    assert grades(findings, Link.TLS) == {Grade.WARNING}  # the test's certificates are good for a week
    assert grades(findings, Link.ENDPOINT) == {Grade.OK}
    assert [finding.text for finding in of(findings, Link.LOGIN)] == [
        "a login by IMAP goes through, and the mailbox opens",
        "a login by POP goes through, and the mailbox opens",
        "a login by SMTP goes through; no mail was sent",
    ]


async def test_links_come_in_the_order_of_the_way(site: Site) -> None:
    await site.sign_in()
    kinds = [finding.link for finding in await site.findings()]
    first = {link: kinds.index(link) for link in dict.fromkeys(kinds)}
    assert list(first) == [Link.CONFIGURATION, Link.DNS, Link.TCP, Link.TLS, Link.ENDPOINT, Link.TOKEN, Link.LOGIN]


async def test_no_secret_is_told(site: Site) -> None:
    await site.sign_in()
    findings = await site.findings()
    async with Authority(site.config) as authority:
        record = await authority.records.load(ADA)
    assert record is not None
    for secret in (PASSWORD.reveal(), CLIENT_SECRET, "eyJ", "canary"):
        assert secret not in told(findings)


async def test_what_a_token_says_of_itself_is_told(site: Site) -> None:
    await site.sign_in()
    state, token = of(await site.findings(), Link.TOKEN)
    assert state.text.startswith("signed in; the access token is good for ")
    assert state.facts["needs_sign_in"] is False
    assert state.facts["local_passwords"] == 1
    assert "expires" in token.facts
    assert token.grade is Grade.OK


async def test_a_check_changes_no_token_that_is_good_still(site: Site) -> None:
    await site.sign_in()
    await site.findings()
    await site.findings()
    async with Authority(site.config) as authority:
        record = await authority.records.load(ADA)
    assert record is not None
    assert record.generation == 1


# ---- less than all


async def test_without_a_password_the_chain_ends_before_the_token_is_unlocked(site: Site) -> None:
    await site.sign_in()
    findings = await site.findings(password=None)
    assert findings[-1].grade is Grade.SKIPPED
    assert "no local password was given" in findings[-1].text
    assert len(of(findings, Link.TOKEN)) == 1
    assert not any(finding.breaks for finding in findings)


async def test_without_an_account_all_of_them_are_looked_at(site: Site) -> None:
    await site.sign_in()
    findings = await site.findings(None)
    assert [finding.about for finding in of(findings, Link.TOKEN)] == [ADA, ROBOT]
    assert findings[-1].text == "name an account to have a login tried"


async def test_notices_of_the_configuration_are_warnings(site: Site) -> None:
    site.sections["emailproxy"] = {"delete_account_token_on_password_error": "True"}
    findings = await site.findings(password=None)
    assert Grade.WARNING in grades(findings, Link.CONFIGURATION)


# ---- what is broken


async def test_a_person_is_needed_where_nobody_has_signed_in(site: Site) -> None:
    last = broken(await site.findings())
    assert (last.link, last.grade) == (Link.TOKEN, Grade.NEEDS_PERSON)
    assert last.text == "nobody has signed in yet"
    assert last.action == f"run 'emailproxy authorize {ADA}'"


async def test_a_sign_in_that_waits_is_told_with_its_end(site: Site) -> None:
    async with Authority(site.config) as authority:
        assert await authority.broker.sign_in(ADA, PASSWORD) is not None
    last = broken(await site.findings())
    assert last.grade is Grade.NEEDS_PERSON
    assert "a sign-in waits for its person until 2" in last.text
    assert "emailproxy logs --consent" in last.action


async def test_a_refresh_token_that_is_known_no_more_needs_a_person(site: Site) -> None:
    await site.sign_in()
    await expire(site)
    site.provider.next(refusal("invalid_request"), refusal("invalid_grant", "the grant was revoked"))
    last = broken(await site.findings())
    assert (last.link, last.grade) == (Link.TOKEN, Grade.NEEDS_PERSON)
    assert f"{ADA} must be signed in" in last.text
    again = broken(await site.findings(password=None))
    assert again.grade is Grade.NEEDS_PERSON
    assert "its owner must sign in again" in again.text


async def expire(site: Site) -> None:
    """The access token has ended."""
    async with Authority(site.config) as authority, authority.records.locked(ADA) as record:
        assert record is not None
        object.__setattr__(record, "expires_at_s", 1_700_000_000)
        object.__setattr__(record, "obtained_at_s", 1_699_996_400)
        await authority.records.save(record)


async def test_a_wrong_local_password_is_one(site: Site) -> None:
    await site.sign_in()
    last = broken(await site.findings(password=Secret("another")))
    assert (last.link, last.grade) == (Link.TOKEN, Grade.FAILED)
    assert "password" in last.text


async def test_a_damaged_state_is_told(site: Site) -> None:
    await site.sign_in()
    (file,) = [path for path in (site.folder / "state").rglob("*") if path.is_file() and path.suffix == ".ini"]
    file.write_text("[nonsense")
    last = broken(await site.findings())
    assert (last.link, last.grade) == (Link.TOKEN, Grade.FAILED)


async def test_a_mail_server_that_refuses_the_token_is_told_with_advice(site: Site) -> None:
    await site.sign_in()
    site.takes = False
    findings = await site.findings()
    logins = of(findings, Link.LOGIN)
    assert [finding.grade for finding in logins] == [Grade.FAILED] * 3
    assert "the mail server refuses the token (status 400); it wants the scope mail" in logins[0].text


async def test_a_mailbox_that_does_not_open_is_found_behind_the_login(site: Site) -> None:
    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n")
        tag = (await reader.readline()).split()[0]
        writer.write(tag + b" OK AUTHENTICATE completed.\r\n")
        tag = (await reader.readline()).split()[0]
        writer.write(tag + b" BAD User is authenticated but not connected.\r\n")
        await reader.readline()

    await site.sign_in()
    async with upstream_server(exchange, site.ca.issue("localhost").server_context()) as port:
        site.sections = {site.section("IMAP"): {"server_port": port}}
        (imap, *others) = of(await site.findings(), Link.LOGIN)
    assert imap.grade is Grade.FAILED
    assert "c2 BAD User is authenticated but not connected." in imap.text
    assert "Full Access" in imap.action
    assert {finding.grade for finding in others} == {Grade.OK}


# ---- accounts that ask no person


async def test_an_application_is_asked_for_a_token_before_its_first_login(site: Site) -> None:
    findings = await site.findings(ROBOT)
    state, token = of(findings, Link.TOKEN)
    assert (state.grade, token.grade) == (Grade.OK, Grade.OK)
    assert findings[-1].grade is Grade.SKIPPED
    assert "'emailproxy authorize' sets the local password" in findings[-1].text
    async with Authority(site.config) as authority:
        assert await authority.records.load(ROBOT) is None


async def test_an_application_that_the_provider_refuses_is_told(site: Site) -> None:
    site.provider.next(refusal("invalid_request"), refusal("invalid_client", "AADSTS7000222: keys are expired."))
    last = broken(await site.findings(ROBOT))
    assert last.link is Link.TOKEN
    assert "the client secret has expired" in last.text


async def test_an_application_logs_in(site: Site) -> None:
    await site.sign_in(ROBOT)
    assert grades(await site.findings(ROBOT), Link.LOGIN) == {Grade.OK}


# ---- which servers

TWO = """\
[emailproxy]
state_dir = state
log_file = log
[IMAP-1]
server_address = outlook.office365.com
server_port = 993
[IMAP-2]
server_address = imap.gmail.com
server_port = 993
[IMAP-3]
server_address = mail.example.org
server_port = 993
[ms@example.org]
token_url = https://login.microsoftonline.com/common/oauth2/v2.0/token
permission_url = https://login.microsoftonline.com/common/oauth2/v2.0/authorize
oauth2_scope = https://outlook.office365.com/IMAP.AccessAsUser.All offline_access
client_id = x
[g@example.org]
token_url = https://oauth2.googleapis.com/token
permission_url = https://accounts.google.com/o/oauth2/auth
oauth2_scope = https://mail.google.com/
client_id = x
client_secret = y
[else@example.org]
token_url = https://login.example.org/token
permission_url = https://login.example.org/authorize
oauth2_scope = mail
client_id = x
"""


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("ms@example.org", ["IMAP-1", "IMAP-3"]),
        ("g@example.org", ["IMAP-2", "IMAP-3"]),
        ("else@example.org", ["IMAP-1", "IMAP-2", "IMAP-3"]),
        (None, ["IMAP-1", "IMAP-2", "IMAP-3"]),
    ],
)
def test_nobody_logs_in_at_another_providers_server(site: Site, name: str | None, sections: list[str]) -> None:
    config = ini.loads(TWO, site.folder / "two.ini")
    account = None if name is None else catchall.resolve(config, name)
    assert [way.server.section for way in ways_of(config, account)] == sections


def test_a_finding_as_json_leaves_out_what_is_empty() -> None:
    finding = Finding(Link.DNS, "x", Grade.OK, "y", facts={"n": 1})
    assert finding.as_json() == {"link": "dns", "about": "x", "grade": "ok", "text": "y", "facts": {"n": 1}}


async def test_a_program_that_is_not_there_is_told(site: Site) -> None:
    site.sections["emailproxy"] = {"on_login_failed": '["no-such-program"]', "on_token_refreshed": '["true"]'}
    warnings = [one for one in of(await site.findings(), Link.CONFIGURATION) if one.grade is Grade.WARNING]
    [missing] = [one for one in warnings if "can be run" in one.text]
    assert missing.text == "[emailproxy] on_login_failed: no program no-such-program can be run here"
