"""`emailproxy logs`, and the log that it reads: rotation, one record a line, what waits for a person."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emailproxy.cli import logfile, tail
from emailproxy.config import catchall, ini
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.consent import LIFE_S, Consents
from emailproxy.oauth.generic import flows
from emailproxy.oauth.http import TokenEndpoint
from emailproxy.oauth.waiting import Waiting
from emailproxy.service import Authority
from tests.cli.records import log, logging_to, messages, numbered, write
from tests.cli.site import ADA, BOB, PASSWORD, ROBOT, ROOT_ONLY, SERVICE, Site, another_user, approve, ended
from tests.e2e.harness.proxy import COMMAND, Program, running
from tests.store.samples import lockbox

# ---- the last lines


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10, 19, 20, 1000])
async def test_the_last_lines_come_from_as_many_files_as_it_takes(tmp_path: Path, count: int) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path, octets=200, files=9):
        write(1, 20)
    assert len(list(tmp_path.iterdir())) > 3
    shown = await ended(*COMMAND, "logs", "--log-file", path, "-n", str(count), cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert messages(shown.out) == numbered(max(1, 21 - count), 20)


async def test_fifty_lines_are_shown_where_nobody_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path):
        write(1, 60)
    shown = await ended(*COMMAND, "logs", "--log-file", path, cwd=tmp_path)
    assert messages(shown.out) == numbered(11, 60)


async def test_a_running_server_does_not_matter(site: Site) -> None:
    async with site.serving():
        running = await site.run("logs")
    stopped = await site.run("logs")
    assert (running.code, stopped.code) == (0, 0)
    assert messages(running.out)[-1] == "ready"
    assert messages(stopped.out)[-2:] == ["stopping", "stopped"]
    assert stopped.out.startswith(running.out)


async def test_no_log_yet_is_a_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "emailproxy.log"
    shown = await ended(*COMMAND, "logs", "--log-file", path, cwd=tmp_path)
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.complaints
    assert f"no log at {path}" in line
    assert "--log-file" in line


@ROOT_ONLY
async def test_somebody_elses_log_is_a_clear_message(reachable: Path) -> None:
    path = reachable / "emailproxy.log"
    with logging_to(path):
        write(1, 1)
    for arguments in (["logs"], ["logs", "--consent", "--state", str(reachable)], ["logs", "-f"]):
        shown = await ended(*another_user(SERVICE, *arguments, "--log-file", path), cwd=reachable)
        assert (shown.code, shown.out) == (1, "")
        [line] = shown.complaints
        assert f"the log {path} cannot be read: Permission denied" in line


async def test_a_wrong_configuration_keeps_nobody_from_the_log(site: Site) -> None:
    with logging_to(site.log_file):
        write(1, 1)
    text = site.config.read_text()
    for wrong in (text + "[IMAP-0]\n", text.replace("server_port = 1", "server_prot = 1"), text + text, text + "?\n"):
        site.config.write_text(wrong)
        refused = await site.run("serve")
        assert refused.code == 78
        shown = await site.run("logs")
        assert (shown.code, shown.err, messages(shown.out)) == (0, "", ["record 1"])


async def test_no_configuration_is_needed_where_the_log_is_named(site: Site) -> None:
    with logging_to(site.log_file):
        write(1, 1)
    site.config.unlink()
    refused = await site.run("logs")
    assert refused.code == 78
    assert "cannot be read" in refused.err
    shown = await site.run("logs", "--log-file", site.log_file)
    assert (shown.code, messages(shown.out)) == (0, ["record 1"])


async def test_as_json_a_record_has_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path):
        log.warning("one: %s", "two")
        try:
            raise ValueError("three")
        except ValueError:
            log.exception("four")
    shown = await ended(*COMMAND, "logs", "--log-file", path, "--json", cwd=tmp_path)
    first, second, *traceback = map(json.loads, shown.out.splitlines())
    assert (first["level"], first["message"]) == ("WARNING", "one: two")
    assert time.strptime(first["time"].split(",")[0], "%Y-%m-%d %H:%M:%S")
    assert (second["level"], second["message"]) == ("ERROR", "four")
    assert traceback[-1] == {"message": "    ValueError: three"}


@pytest.mark.parametrize("flags", ["", "--json", "-f"])
async def test_a_pipe_that_closes_is_no_traceback(tmp_path: Path, flags: str) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path):
        write(1, 20_000)  # more than a pipe holds
    command = f"{shlex.join(COMMAND)} logs {flags} -n 20000 --log-file {shlex.quote(str(path))} | head -1"
    shown = await ended("sh", "-c", command, cwd=tmp_path)
    assert shown.err == ""
    assert "record 1" in shown.out
    assert len(shown.out.splitlines()) == 1


async def test_a_terminal_that_lacks_a_character_shows_the_log(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    with logging_to(path):
        log.info("costs 5 €")
    command = (*COMMAND, "logs", "--log-file", path)
    shown = await ended(*command, cwd=tmp_path, env={"PYTHONIOENCODING": "iso-8859-1"})
    assert (shown.code, messages(shown.out)) == (0, ["costs 5 \\u20ac"])


# ---- following


@contextlib.asynccontextmanager
async def following(path: Path, *arguments: str) -> AsyncIterator[Program]:
    async with running("logs", "-f", *arguments, "--log-file", path, home=path.parent, kind=Program) as program:
        yield program


async def test_following_goes_on_across_rotation(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    # Some thirty bytes a record: the log rotates at every third.
    with logging_to(path, octets=150, files=200):
        write(1, 10)
        async with following(path, "-n", "5") as program:
            await program.printed("record 10\n")
            for last in (11, 12, 15, 100, 300):  # from one record to many files within one look
                write(len(messages(program.output)) + 6, last)
                await program.printed(f"record {last}\n")
            assert await program.stop() == -15
    assert messages(program.output) == numbered(6, 300)


async def test_following_waits_for_a_log_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    async with following(path) as program:
        await program.printed(r"there is no log at .* yet; waiting for one\n")
        with logging_to(path):
            write(1, 2)
        await program.printed("record 2\n")
        assert await program.stop(signal.SIGINT) == 0
    assert "Traceback" not in program.output


async def test_following_shows_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    path.write_text("one\ntw")
    async with following(path) as program:
        await program.printed("one\n")
        with path.open("a") as file:
            file.write("o\nthree\n")
        await program.printed("three\n")
    assert program.output == "one\ntwo\nthree\n"


async def test_following_begins_anew_where_the_log_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "emailproxy.log"
    path.write_text("a long first line\n")
    async with following(path) as program:
        await program.printed("first line\n")
        path.write_text("new\n")  # what logrotate's copytruncate leaves
        await program.printed("new\n")
    assert program.output == "a long first line\nnew\n"


def test_what_is_written_between_a_look_and_the_rotation_is_not_lost(tmp_path: Path) -> None:
    path, rotated = tmp_path / "emailproxy.log", tmp_path / "emailproxy.log.1"
    path.write_text("one\n")
    seen = tail.follow(path, 10)
    assert next(seen) == "one"
    path.write_text("one\ntwo\n")
    assert next(seen) == "two"
    # It has looked, and has not yet noticed any rotation.
    path.write_text("one\ntwo\nthree\n")
    path.rename(rotated)
    path.write_text("four\n")
    assert [next(seen), next(seen)] == ["three", "four"]
    seen.close()


def test_nothing_is_read_twice_or_left_out_when_it_rotates_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "emailproxy.log"
    genuine = Path.open

    def rotates_first(opened: Path, *arguments: str) -> object:
        stream = genuine(opened, *arguments)
        if opened == path:
            monkeypatch.setattr(Path, "open", genuine)
            write(10, 14)
        return stream

    handler = logfile.PrivateRotatingFile(path, maxBytes=150, backupCount=50)
    handler.setFormatter(logfile.OneLine(logfile.LINE))
    logging.getLogger().addHandler(handler)
    logging.getLogger("emailproxy").setLevel(logging.INFO)
    try:
        write(1, 9)
        monkeypatch.setattr(Path, "open", rotates_first)
        seen = messages("\n".join(tail.lines(path)))
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert seen == numbered(1, 14)


# ---- consents


@contextlib.asynccontextmanager
async def consents(site: Site, *, now: float = 0.0) -> AsyncIterator[Consents]:
    """What begins consents in the site's state and log, at `now` seconds from now."""
    config = ini.load(site.config)
    clock = Clock(lambda: time.time() + now)
    endpoint = TokenEndpoint()
    async with Authority(config) as authority:
        with logging_to(site.log_file):
            yield Consents(
                authority.pending,
                authority.records,
                flows(endpoint),
                lambda name: catchall.resolve(config, name),
                clock=clock,
            )
    await endpoint.close()


async def begin(consents: Consents, site: Site, name: str) -> Waiting:
    account = catchall.resolve(ini.load(site.config), name)
    return await consents.begin(account, lockbox(account.key))


async def test_consents_that_wait_are_printed_one_a_line(site: Site) -> None:
    async with consents(site) as now:
        first, second = await begin(now, site, ADA), await begin(now, site, BOB)
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.err) == (3, "")
    assert shown.out.splitlines() == [first.url, second.url]
    shown = await site.run("logs", "--consent", "--json")
    assert shown.code == 3
    assert [json.loads(line) for line in shown.out.splitlines()] == [
        {"account": ADA, "url": first.url},
        {"account": BOB, "url": second.url},
    ]


async def test_consents_that_are_over_are_not_printed(site: Site) -> None:
    async with consents(site, now=-LIFE_S - 1) as yesterday:
        await begin(yesterday, site, BOB)
    async with consents(site) as now:
        replaced = await begin(now, site, ADA)
        waiting = await begin(now, site, ADA)
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out) == (3, f"{waiting.url}\n")
    assert replaced.url in site.log
    assert site.log.count("Please visit") == 3

    async with Authority(ini.load(site.config)) as authority:
        await authority.redirects.ensure(catchall.resolve(ini.load(site.config), ADA))
        assert "succeeded" in await approve(waiting.url)
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out, shown.err) == (0, "", "")


async def test_a_consent_that_was_discarded_is_not_printed(site: Site) -> None:
    async with consents(site) as now:
        await begin(now, site, ADA)
    assert (await site.run("accounts", "remove", ADA, "--yes")).code == 0
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out) == (0, "")


async def test_consents_are_found_in_rotated_logs_too(site: Site) -> None:
    async with consents(site) as now:
        waiting = await begin(now, site, ADA)
    with logging_to(site.log_file, octets=100, files=9):
        write(1, 9)
    assert waiting.url not in site.log_file.read_text()
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out) == (3, f"{waiting.url}\n")


async def test_a_user_name_forges_no_consent(site: Site) -> None:
    async with consents(site) as now:
        waiting = await begin(now, site, BOB)
        state = waiting.state.reveal()
        evil = f"Please visit the following URL to authenticate account {ADA}: http://evil.example/?state={state}"
        log.warning("IMAP login refused for %s", evil)
        log.warning("IMAP login refused for %s", f"\n2026-01-01 00:00:00,000 WARNING {evil}")
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out) == (3, f"{waiting.url}\n")


async def test_nothing_waits_where_there_is_neither_log_nor_state(site: Site) -> None:
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out, shown.err) == (0, "", "")
    assert not site.state.exists()


async def test_a_state_folder_open_to_others_is_one_clear_line(site: Site) -> None:
    async with consents(site) as now:
        await begin(now, site, ADA)
    site.state.chmod(0o755)
    shown = await site.run("logs", "--consent")
    assert (shown.code, shown.out) == (1, "")
    [line] = shown.complaints
    assert f"chmod 700 {site.state}" in line


async def test_the_log_of_a_whole_day_holds_no_secret(site: Site) -> None:
    await site.sign_in(ADA)
    async with site.serving("--debug"):
        await site.run("authorize", ROBOT, "--password-file", "-", stdin=f"{PASSWORD}\n".encode())
        await site.run("authorize", BOB, "--password-file", "-", "--wait", "0", stdin=f"{PASSWORD}\n".encode())
    forms = [request.form for request in site.provider.requests]
    secrets = {
        PASSWORD,
        *(form[key] for form in forms for key in ("code", "client_secret", "code_verifier") if key in form),
    }
    assert len(secrets) >= 4
    assert [secret for secret in secrets if secret in site.log] == []
