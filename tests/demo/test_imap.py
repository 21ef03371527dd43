"""The embedded IMAP server, by the standard library's client, by hand, and by curl."""

from __future__ import annotations

import asyncio
import imaplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.demo.transcript import Speaker
from tests.demo.conftest import TOKEN, USER, Servers, xoauth2, xoauth2_base64

T = TypeVar("T")

MESSAGE = (
    b"From: =?utf-8?q?B=C3=B6rje?= <borje@example.test>\r\nTo: anna@example.test, Carl <carl@example.test>\r\n"
    b'Subject: two\r\n parts "quoted"\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n'
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    b"preamble\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\nworld\r\n"
    b"--b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\nepilogue\r\n"
)


async def in_session(servers: Servers, work: Callable[[imaplib.IMAP4_SSL], T]) -> T:
    """`work` in a thread, logged in with imaplib."""

    def session() -> T:
        client = imaplib.IMAP4_SSL("localhost", servers.imap.port, ssl_context=servers.trust, timeout=10)
        try:
            client.authenticate("XOAUTH2", lambda _: xoauth2())
            return work(client)
        finally:
            client.logout()

    return await asyncio.to_thread(session)


class Wire:
    """A client by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def line(self) -> str:
        return (await self._reader.readuntil(b"\r\n")).decode().removesuffix("\r\n")

    async def ask(self, command: str) -> list[str]:
        """All lines up to the tagged one or a continuation."""
        self._writer.write(command.encode() + b"\r\n")
        lines = [await self.line()]
        while lines[-1].startswith("* "):
            lines.append(await self.line())
        return lines

    def send(self, command: str) -> None:
        self._writer.write(command.encode() + b"\r\n")

    async def at_end(self) -> bool:
        try:
            return await self._reader.read() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connected(servers: Servers, *, logged_in: bool = True) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("localhost", servers.imap.port, ssl=servers.trust)
    try:
        wire = Wire(reader, writer)
        assert (await wire.line()).startswith("* OK [CAPABILITY IMAP4rev1 SASL-IR ")
        if logged_in:
            assert (await wire.ask(f"i AUTHENTICATE XOAUTH2 {xoauth2_base64()}"))[-1].startswith("i OK ")
        yield wire
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_welcome_message_is_read(servers: Servers) -> None:
    def read(client: imaplib.IMAP4_SSL) -> Any:
        assert client.select()[1] == [b"1"]
        assert client.search(None, "UNSEEN")[1] == [b"1"]
        fetched = client.fetch("1", "(RFC822)")[1]
        assert client.search(None, "UNSEEN")[1] == [b""]
        return fetched

    fetched = await in_session(servers, read)
    assert fetched[0][1] == servers.mailboxes.of(USER).inbox.messages[0].raw
    assert b"Subject: Welcome to emailproxy\r\n" in fetched[0][1]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("BODY.PEEK[]", MESSAGE),
        ("BODY.PEEK[]<5.3>", MESSAGE[5:8]),
        ("BODY.PEEK[HEADER]", MESSAGE.partition(b"preamble")[0]),
        ("BODY.PEEK[TEXT]", b"preamble" + MESSAGE.partition(b"preamble")[2]),
        ("RFC822.HEADER", MESSAGE.partition(b"preamble")[0]),
        ("BODY.PEEK[HEADER.FIELDS (SUBJECT)]", b'Subject: two\r\n parts "quoted"\r\n\r\n'),
        (
            "BODY.PEEK[HEADER.FIELDS.NOT (From To Subject Content-Type)]",
            b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n\r\n",
        ),
        ("BODY.PEEK[1]", b"hello\r\nworld"),
        ("BODY.PEEK[1.MIME]", b"Content-Type: text/plain; charset=utf-8\r\n\r\n"),
        ("BODY.PEEK[2]", b"QUJD"),
    ],
)
async def test_every_section_has_its_octets(servers: Servers, item: str, expected: bytes) -> None:
    servers.mailboxes.of(USER).inbox.append(MESSAGE)

    def fetch(client: imaplib.IMAP4_SSL) -> Any:
        client.select(readonly=True)
        return client.fetch("2", item)[1]

    assert (await in_session(servers, fetch))[0][1] == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            "ENVELOPE",
            '(ENVELOPE ("Thu, 1 Jan 2026 00:00:00 +0000" "two parts \\"quoted\\"" '
            '(("=?utf-8?q?B=C3=B6rje?=" NIL "borje" "example.test")) '
            '(("=?utf-8?q?B=C3=B6rje?=" NIL "borje" "example.test")) '
            '(("=?utf-8?q?B=C3=B6rje?=" NIL "borje" "example.test")) '
            '((NIL NIL "anna" "example.test")("Carl" NIL "carl" "example.test")) NIL NIL NIL NIL))',
        ),
        (
            "BODYSTRUCTURE",
            '(BODYSTRUCTURE (("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 12 1 NIL NIL NIL NIL)'
            '("APPLICATION" "PDF" ("NAME" "a.pdf") NIL NIL "BASE64" 4 NIL '
            '("ATTACHMENT" ("FILENAME" "a.pdf")) NIL NIL) "MIXED" ("BOUNDARY" "b") NIL NIL NIL))',
        ),
        (
            "BODY",
            '(BODY (("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 12 1)'
            '("APPLICATION" "PDF" ("NAME" "a.pdf") NIL NIL "BASE64" 4) "MIXED"))',
        ),
        ("(UID RFC822.SIZE)", f"(UID 2 RFC822.SIZE {len(MESSAGE)})"),
        ("BODY[3]", "(BODY[3] NIL FLAGS (\\Seen))"),
    ],
)
async def test_every_item_has_its_form(servers: Servers, item: str, expected: str) -> None:
    servers.mailboxes.of(USER).inbox.append(MESSAGE)
    async with connected(servers) as wire:
        await wire.ask("1 SELECT inbox")
        assert await wire.ask(f"2 FETCH 2 {item}") == [f"* 2 FETCH {expected}", "2 OK FETCH completed"]


async def test_an_appended_message_is_stored_flagged_copied_and_expunged(servers: Servers) -> None:
    def work(client: imaplib.IMAP4_SSL) -> None:
        assert client.append("INBOX", r"(\Flagged)", "", MESSAGE)[0] == "OK"
        assert client.select() == ("OK", [b"2"])
        assert client.search(None, "FLAGGED") == ("OK", [b"2"])
        assert client.store("2", "+FLAGS", r"(\Deleted)") == ("OK", [rb"2 (FLAGS (\Deleted \Flagged))"])
        assert client.copy("2", "Sent")[0] == "OK"
        assert client.uid("SEARCH", "NOT", "DELETED") == ("OK", [b"1"])
        assert client.expunge() == ("OK", [b"2"])
        assert client.status("Sent", "(MESSAGES UIDNEXT)") == ("OK", [b'"Sent" (MESSAGES 1 UIDNEXT 2)'])
        assert client.close()[0] == "OK"

    await in_session(servers, work)
    mailbox = servers.mailboxes.of(USER)
    assert [message.raw for message in mailbox.folders["Sent"].messages] == [MESSAGE]
    assert [message.uid for message in mailbox.inbox.messages] == [1]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("ALL", "1 2"),
        ("UNSEEN", "1"),
        ("SEEN", "2"),
        ("2", "2"),
        ("UID 2:*", "2"),
        ("NOT SEEN", "1"),
        ("OR SEEN SUBJECT welcome", "1 2"),
        ("(SEEN SUBJECT two)", "2"),
        ('HEADER Content-Type ""', "1 2"),
        ('HEADER X-Absent ""', ""),
        ("CHARSET UTF-8 TEXT QUJD", "2"),
    ],
)
async def test_every_search_key_finds_its_messages(servers: Servers, keys: str, found: str) -> None:
    servers.mailboxes.of(USER).inbox.append(MESSAGE, {r"\Seen"})
    async with connected(servers) as wire:
        await wire.ask("1 SELECT INBOX")
        assert (await wire.ask(f"2 SEARCH {keys}"))[0] == f"* SEARCH {found}".rstrip()


@pytest.mark.parametrize(
    ("pattern", "folders"),
    [
        ('"" "*"', ["INBOX", "Drafts", "Sent", "Trash", "Work/2026"]),
        ('"" %', ["INBOX", "Drafts", "Sent", "Trash"]),
        ('"Work/" %', ["Work/2026"]),
        ('"" inbox', ["INBOX"]),
        ('"" sent', []),
    ],
)
async def test_folders_are_listed(servers: Servers, pattern: str, folders: list[str]) -> None:
    async with connected(servers) as wire:
        assert await wire.ask("1 CREATE Work/2026") == ["1 OK CREATE completed"]
        assert (await wire.ask(f"2 LIST {pattern}"))[:-1] == [f'* LIST () "/" "{folder}"' for folder in folders]


async def test_idle_tells_of_new_messages(servers: Servers) -> None:
    async with connected(servers) as wire:
        await wire.ask("1 SELECT INBOX")
        assert await wire.ask("2 IDLE") == ["+ idling"]
        servers.mailboxes.of(USER).inbox.append(MESSAGE)
        assert await wire.line() == "* 2 EXISTS"
        assert await wire.ask("DONE") == ["2 OK IDLE completed"]


async def test_no_expunge_is_told_while_numbers_are_in_use(servers: Servers) -> None:
    inbox = servers.mailboxes.of(USER).inbox
    async with connected(servers) as wire:
        await wire.ask("1 SELECT INBOX")
        inbox.remove(inbox.messages)
        assert await wire.ask("2 FETCH 1 UID") == ["* 1 FETCH (UID 1)", "2 OK FETCH completed"]
        assert await wire.ask("3 NOOP") == ["* 1 EXPUNGE", "3 OK NOOP completed"]


async def test_a_refused_token_is_challenged_and_the_next_one_taken(servers: Servers) -> None:
    async with connected(servers, logged_in=False) as wire:
        refused = await wire.ask(f"1 AUTHENTICATE XOAUTH2 {xoauth2_base64('wrong')}")
        assert refused[0].startswith("+ eyJ")
        assert (await wire.ask(""))[0].startswith("1 NO [AUTHENTICATIONFAILED] ")
        assert await wire.ask("2 AUTHENTICATE XOAUTH2") == ["+ "]
        assert (await wire.ask(xoauth2_base64()))[0].startswith("2 OK [CAPABILITY ")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("1 LOGIN anna secret", "1 NO [PRIVACYREQUIRED] "),
        ("1 SELECT INBOX", "1 BAD "),
        ("1 AUTHENTICATE PLAIN", "1 NO [CANNOT] "),
        ("1 AUTHENTICATE XOAUTH2 ====", "1 BAD "),
        ('1 ID ("name', "1 BAD "),
        ("1 ID " + "(" * 1000, "1 BAD "),
        ("1", "1 BAD "),
        ("", "* BAD "),
    ],
)
async def test_what_is_not_allowed_before_the_login_is_refused(servers: Servers, command: str, reply: str) -> None:
    async with connected(servers, logged_in=False) as wire:
        wire.send(command)
        assert (await wire.line()).startswith(reply)
        assert (await wire.ask("z NOOP")) == ["z OK NOOP completed"]


async def test_a_long_literal_before_the_login_ends_the_connection(servers: Servers) -> None:
    async with connected(servers, logged_in=False) as wire:
        assert (await wire.ask("1 ID {4294967297}"))[0].startswith("1 BAD ")
        assert await wire.at_end()


async def test_the_tap_sees_every_line_and_no_token(servers: Servers) -> None:
    await in_session(servers, lambda client: client.noop())
    said = [(speaker, text) for protocol, speaker, text in servers.said if protocol == "IMAP"]
    assert (Speaker.CLIENT, f"{xoauth2_base64()[:12]}…") in said
    assert any(speaker is Speaker.SERVER and " OK [CAPABILITY " in text for speaker, text in said)
    assert not any(TOKEN in text or xoauth2_base64() in text for _, text in said)


async def test_connections_end_with_the_server(servers: Servers) -> None:
    async with connected(servers) as wire:
        await servers.imap.__aexit__()
        assert await wire.at_end()


@pytest.mark.system("curl")
@pytest.mark.parametrize(("token", "code"), [(TOKEN, 0), ("wrong", 67)])
async def test_curl_reads_the_inbox(servers: Servers, authority: Authority, token: str, code: int) -> None:
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--max-time", "10", "--cacert", str(authority.certificate_file)),
        *("--user", f"{USER}:", "--oauth2-bearer", token, "--login-options", "AUTH=XOAUTH2"),
        f"imaps://localhost:{servers.imap.port}/INBOX;UID=1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, problem = await curl.communicate()
    assert curl.returncode == code, problem
    assert output == (servers.mailboxes.of(USER).inbox.messages[0].raw if code == 0 else b"")
