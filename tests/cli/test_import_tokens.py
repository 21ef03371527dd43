"""`emailproxy import`: tokens that lay in the clear come under a local password, and damaged files do no harm."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emailproxy.cli import merge
from emailproxy.cli.main import cli
from emailproxy.cli.merge import Outcome, Wanted
from emailproxy.config.scan import MAX_FILE_OCTETS, Report, scan
from emailproxy.demo.ledger import Family
from emailproxy.secret import Secret
from emailproxy.store import slots
from emailproxy.store.ini import IniStore
from tests.cli.site import ADA, PASSWORD, Site
from tests.cli.terminal import answered
from tests.cli.test_import import OURS, THEIRS

OTHER_PASSWORD = "canary-other-password"


def token_file(folder: Path, **changes: object) -> Path:
    """What mutt_oauth2 keeps of Ada, decrypted."""
    values: dict[str, object] = {
        "registration": "google",
        "authflow": "localhostauthcode",
        "email": ADA,
        "access_token": "canary-access-token",
        "access_token_expiration": "2020-01-01T00:00:00",
        "refresh_token": "canary-refresh-token",
    }
    path = folder / "ada.tokens"
    path.write_text(json.dumps(values | changes))
    return path


def password_file(folder: Path, password: str = PASSWORD) -> Path:
    path = folder / "password"
    path.write_text(f"{password}\n")
    return path


def take(site: Site, *arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, list(map(str, ["import", *arguments, "--config", site.config])))
    assert not isinstance(result.exception, Exception), result.exception
    return result


def tokens(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.output)["tokens"]
    return found


async def off_loop(site: Site, *arguments: str | Path) -> Result:
    return await asyncio.to_thread(take, site, *arguments)


async def test_an_imported_refresh_token_serves_the_first_login(site: Site) -> None:
    family = Family("test-client", ADA, "mail offline_access")
    granted = site.provider._ledger.new_refresh_token(family)
    file = token_file(site.folder, refresh_token=granted)
    [kept] = tokens(await off_loop(site, file, "--json", "--password-file", password_file(site.folder)))
    assert kept == {"account": ADA, "stored": True, "why": ""}
    assert not any(granted.encode() in data or b"canary" in data for data in site.files().values())
    assert not await site.log_in(ADA, OTHER_PASSWORD)
    assert await site.log_in(ADA)
    assert [request.form["grant_type"] for request in site.provider.requests] == ["refresh_token"]
    assert site.provider.authorizations == []


async def test_a_token_that_still_works_is_used_as_it_is(site: Site) -> None:
    ends = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3600))
    file = token_file(site.folder, access_token_expiration=ends)
    await off_loop(site, file, "--password-file", password_file(site.folder))
    assert await site.log_in(ADA)
    assert site.provider.requests == []


async def test_without_a_password_and_a_terminal_tokens_are_left_out(site: Site) -> None:
    result = await off_loop(site, token_file(site.folder), "--json")
    [kept] = tokens(result)
    assert (kept["stored"], "give --password-file" in kept["why"]) == (False, True)
    assert not site.state.exists()
    assert "canary" not in result.output


async def test_a_dry_run_stores_nothing(site: Site) -> None:
    arguments = (token_file(site.folder), "--dry-run", "--password-file", password_file(site.folder))
    [kept] = tokens(await off_loop(site, *arguments, "--json"))
    assert kept["stored"] is True
    assert "would be stored" in (await off_loop(site, *arguments)).output
    assert not site.state.exists()


async def test_tokens_that_are_there_are_replaced_only_by_force(site: Site) -> None:
    await site.sign_in(ADA)
    before = site.files()
    arguments = (token_file(site.folder), "--json", "--password-file", password_file(site.folder, OTHER_PASSWORD))
    for more in ((), ("--dry-run",)):
        [kept] = tokens(await off_loop(site, *arguments, *more))
        assert (kept["stored"], "--force replaces both" in kept["why"]) == (False, True)
    assert site.files() == before
    assert tokens(await off_loop(site, *arguments, "--force"))[0]["stored"] is True
    assert not await site.log_in(ADA)


async def test_a_damaged_record_is_told_and_left_as_it_is(site: Site) -> None:
    await site.sign_in(ADA)
    [record] = (site.state / "accounts").glob("*.ini")
    record.write_text("damaged")
    arguments = (token_file(site.folder), "--json", "--password-file", password_file(site.folder))
    [kept] = tokens(await off_loop(site, *arguments))
    assert (kept["stored"], "is damaged" in kept["why"]) == (False, True)
    assert record.read_text() == "damaged"


async def test_at_a_terminal_each_account_gets_a_password_that_is_shown_once(site: Site) -> None:
    command = ["import", str(token_file(site.folder)), "--config", str(site.config)]
    code, shown = await asyncio.to_thread(answered, command, [])
    assert code == 0, shown
    [password] = [line.split()[1] for line in shown.splitlines() if line.startswith(f"{ADA}  ")]
    assert not await site.log_in(ADA, PASSWORD)
    assert not any(password.encode() in data for data in site.files().values())
    assert await opens(site, password)


async def opens(site: Site, password: str) -> bool:
    """Whether this is Ada's password here; the provider does not know her refresh token."""
    records = IniStore(site.state)
    try:
        record = await records.load(ADA.casefold())
    finally:
        records.close()
    assert record is not None
    key, _ = slots.unlock(record.lockbox, record.account, Secret(password))
    return key.public_key == record.lockbox.public_key


# ---- files that are no good


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is in none of the formats"),
        (b"\x00\x01\x02\xff\xfe", "is no text"),
        (b"\x85\x02\x0c\x03\xff\xfe\xfd" * 9, "is encrypted with GnuPG"),
        (b"{}", "is in none of the formats"),
        (b"[" * 100_000, "is in none of the formats"),
        (b"x" * (MAX_FILE_OCTETS + 1), "is larger than"),
        (b"<html><body>Not found</body></html>", "is in none of the formats"),
    ],
    ids=["empty", "octets", "encrypted", "json", "deep", "large", "html"],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, content: bytes, words: str) -> None:
    file, ours = tmp_path / "wrong", tmp_path / "ours.ini"
    file.write_bytes(content)
    result = CliRunner().invoke(cli, ["import", str(file), "--config", str(ours)])
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert words in line
    assert not ours.exists()


def test_another_format_than_named_is_told(tmp_path: Path) -> None:
    file = tmp_path / "emailproxy.config"
    file.write_text(THEIRS)
    command = ["import", str(file), "--format", "mutt_oauth2", "--config", str(tmp_path / "ours.ini")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert "is no JSON object, as mutt_oauth2 writes it" in result.output


SAMPLES = (
    THEIRS.encode(),
    b'{"registration": "google", "email": "ada@example.com", "refresh_token": "canary", "access_token": "canary"}',
    b'{"services": {}, "email": "ada@example.com", "refresh_token": "canary", "exp_date": "2030-01-01 00:00 UTC"}',
    b'account "a" { auth_uri = "https://x.example/a"; client_id = "c"; login_hint = "ada@example.com"; }',
    b'{"user": "ada@example.com", "refresh_token": "canary", "access_token": "canary", "expiry": "0"}',
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file of another program after an accident."""
    data = draw(st.sampled_from(SAMPLES))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    return data[:start] + draw(st.binary(max_size=8) | st.text(max_size=8).map(_octets)) + data[end:]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@given(data=damaged())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_never_breaks_anything(folder: Path, data: bytes) -> None:
    file, ours = folder / "theirs", folder / "ours.ini"
    file.write_bytes(data)
    ours.write_text(OURS)
    result = CliRunner().invoke(cli, ["import", str(file), "--config", str(ours), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1)
    assert ours.read_text().startswith(OURS)


WORDS = st.text(max_size=20) | st.sampled_from(
    ["a\n[SMTP-25]", "x\r[b@c]\ry = 1", "\n# c\n", "a\n b = c", "]", "=", "\ud800"]
)
SECTIONS = st.tuples(
    st.text(max_size=12).map(lambda text: f"{text}@example.com") | WORDS,
    st.dictionaries(st.sampled_from(["client_id", "token_url", "Banana", "a=b"]) | WORDS, WORDS, max_size=3),
)


@given(found=st.lists(SECTIONS, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_name_and_no_value_becomes_a_line_of_its_own(folder: Path, found: list[tuple[str, dict[str, str]]]) -> None:
    ours = folder / "merged.ini"
    ours.write_text(OURS)
    wanted = [Wanted(name, values, "a file\n[x@y]") for name, values in found]
    merged = merge.merge(ours, wanted, force=True)
    report = Report("")
    sections = {section.name: section for section in scan(merged.text, report)}
    assert report.faults == []
    taken = [section for section in wanted if section.outcome in (Outcome.ADDED, Outcome.REPLACED)]
    allowed = {"emailproxy"} if any(section.name.startswith("@") for section in taken) else set()
    assert sections.keys() - allowed == {"IMAP-2993", "bob@example.org", *(section.name for section in taken)} - allowed
    for section in taken:
        assert {key: entry.value for key, entry in sections[section.name].entries.items()} == section.values
