"""Programs that people use, set up with host, port, user name and password, work through the proxy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.harness.clients import Clients, maildir_messages
from tests.e2e.harness.world import USER, World

MESSAGES = 500
RECIPIENT = "bob@example.com"


def numbered(count: int, of: str) -> list[bytes]:
    return [b"Subject: %d of %s\n\nA body, line %d.\n" % (n, of.encode(), n) for n in range(count)]


@pytest.mark.system("dovecot", "mbsync")
async def test_mbsync_synchronises_500_messages_both_ways(world: World, clients: Clients) -> None:
    theirs, ours = numbered(MESSAGES, "theirs"), numbered(MESSAGES // 10, "ours")
    world.server.deliver(USER, theirs)
    local = clients.home / "mail" / "INBOX"
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        pulled = await clients.mbsync(world.local.imap, "PLAIN")
        assert pulled.code == 0, pulled.output
        assert [_content(message) for message in maildir_messages(local)] == sorted(theirs)
        for number, message in enumerate(ours):
            (local / "new" / f"{number:06}.ours").write_bytes(message)
        pushed = await clients.mbsync(world.local.imap_starttls, "LOGIN")
        assert pushed.code == 0, pushed.output
    assert sorted(map(_content, world.server.messages(USER))) == sorted(theirs + ours)


def _content(message: bytes) -> bytes:
    """The message without the header field by which mbsync pairs the two sides."""
    return re.sub(rb"X-TUID: [^\n]*\n", b"", message)


@pytest.mark.system("dovecot", "msmtp")
@pytest.mark.parametrize("mechanism", ["plain", "login"])
async def test_msmtp_sends(world: World, clients: Clients, mechanism: str) -> None:
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        for port in (world.local.smtp, world.local.smtp_starttls):
            sent = await clients.msmtp(port, RECIPIENT, mechanism, b"Subject: by msmtp\n\nhello\n")
            assert sent.code == 0, sent.output
    assert [mail.recipients for mail in world.sink.mails] == [(RECIPIENT,)] * 2


@pytest.mark.system("dovecot", "swaks")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_swaks_sends(world: World, clients: Clients, mechanism: str) -> None:
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        for port in (world.local.smtp, world.local.smtp_starttls):
            sent = await clients.swaks(port, RECIPIENT, mechanism)
            assert sent.code == 0, sent.output
    assert all(b"Subject: by swaks, " + mechanism.encode() in mail.content for mail in world.sink.mails)
    assert len(world.sink.mails) == 2


@pytest.mark.system("dovecot", "fetchmail")
async def test_fetchmail_empties_the_mailbox_by_pop3(world: World, clients: Clients) -> None:
    world.server.deliver(USER, numbered(20, "theirs"))
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        fetched = await clients.fetchmail(world.local.pop)
        assert fetched.code == 0, fetched.output
    subjects = re.findall(rb"^Subject: (\d+) of theirs$", (clients.home / "fetched").read_bytes(), re.MULTILINE)
    assert list(map(int, subjects)) == list(range(20))
    assert world.server.messages(USER) == []


@pytest.mark.system("dovecot", "curl")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_curl_speaks_all_three(world: World, clients: Clients, tmp_path: Path, mechanism: str) -> None:
    [message] = numbered(1, "theirs")
    world.server.deliver(USER, [message])
    mail = tmp_path / "mail"
    mail.write_bytes(message.replace(b"\n", b"\r\n"))
    login = ("--login-options", f"AUTH={mechanism}")
    local = world.local
    async with world.proxy() as proxy:
        await world.sign_in(proxy)
        for url in (
            f"imap://127.0.0.1:{local.imap}/INBOX;UID=1",
            f"imap://127.0.0.1:{local.imap_starttls}/INBOX;UID=1",
            f"pop3://127.0.0.1:{local.pop}/1",
            f"pop3://127.0.0.1:{local.pop_starttls}/1",
        ):
            got = await clients.curl(url, *login)
            assert (got.code, got.output.replace("\r\n", "\n").encode()) == (0, message), url
        for port in (local.smtp, local.smtp_starttls):
            parties = ("--mail-from", USER, "--mail-rcpt", RECIPIENT)
            sent = await clients.curl(f"smtp://127.0.0.1:{port}", *login, *parties, "--upload-file", mail)
            assert sent.code == 0, sent.output
    assert len(world.sink.mails) == 2
