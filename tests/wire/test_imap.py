"""IMAP towards the client: every spelling of a login, and whatever else may come before it."""

from __future__ import annotations

import base64
import tracemalloc

import pytest

from emailproxy.errors import ServerUnavailable, UnknownAccount, WrongPassword
from emailproxy.wire import events as ev
from emailproxy.wire.imap import MAX_COMMAND
from tests.wire.driver import CHUNKS, REMEMBERED, Talk, credential

SEEN = REMEMBERED["IMAP"]
OURS = b"IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN"
BYE = b"* BYE closing\r\n"


def b64(message: bytes) -> bytes:
    return base64.b64encode(message)


def greeted(**options: object) -> Talk:
    """A client's connection, the greeting behind it."""
    talk = Talk("IMAP", terms=ev.Terms(seen=SEEN), **options)  # type: ignore[arg-type]
    talk.said = b""
    return talk


P = b64(b"\0u@x\0p")
ASTRINGS = [
    pytest.param(b"a LOGIN u@x p\r\n", ("u@x", "p"), id="atoms"),
    pytest.param(b"a login u@x p\r\n", ("u@x", "p"), id="in lower case"),
    pytest.param(b"a  LOGIN   u@x  p  \r\n", ("u@x", "p"), id="spaces"),
    pytest.param(b'a LOGIN "u@x" "p"\r\n', ("u@x", "p"), id="quoted"),
    pytest.param(b'a LOGIN u@x "p q"\r\n', ("u@x", "p q"), id="quoted with a space"),
    pytest.param(b'a LOGIN "u@x" "a\\"b\\\\c"\r\n', ("u@x", 'a"b\\c'), id="quoted with escapes"),
    pytest.param(b'a LOGIN "DOM\\user" "p\\q"\r\n', ("DOM\\user", "p\\q"), id="quoted, backslashes not escaped"),
    pytest.param(b'a LOGIN "u@x" ""\r\n', ("u@x", ""), id="quoted and empty"),
    pytest.param(b'a LOGIN u@x "{3}"\r\n', ("u@x", "{3}"), id="quoted, like a literal"),
    pytest.param(b"a LOGIN u@x p{3}\r\n", ("u@x", "p{3}"), id="unquoted, like a literal"),
    pytest.param(b'a LOGIN u@x p"(%*]\\{}\xc3\xbc\r\n', ("u@x", 'p"(%*]\\{}ü'), id="unquoted, odd characters"),
    pytest.param(b"a LOGIN u@x \xfc\r\n", ("u@x", "ü"), id="Latin-1"),
    pytest.param(b"a LOGIN u@x NIL\r\n", ("u@x", "NIL"), id="NIL is a word like any other (RFC 9051 section 4.5)"),
    pytest.param(b"a LOGIN {3+}\r\nu@x {1+}\r\np\r\n", ("u@x", "p"), id="non-synchronising literals"),
    pytest.param(b"a LOGIN {0003+}\r\nu@x p\r\n", ("u@x", "p"), id="zeros before a literal's length"),
    pytest.param(b"a LOGIN u@x {0+}\r\n\r\n", ("u@x", ""), id="an empty literal"),
    pytest.param(b"a LOGIN {3+}\r\nu@x p\r\n", ("u@x", "p"), id="a literal for the user"),
    pytest.param(b"a LOGIN u@x {29+}\r\n" + b"p" * 29 + b"\r\n", ("u@x", "p" * 29), id="a literal for the password"),
    pytest.param(b'a LOGIN "u@x" {4+}\r\na\r\nb\r\n', ("u@x", "a\r\nb"), id="a literal that holds CRLF"),
    pytest.param(b"a LOGIN u@x {2+}\r\n\n\r\r\n", ("u@x", "\n\r"), id="a literal that holds line ends"),
    pytest.param(b"a LOGIN u@x {4096+}\r\n" + b"p" * 4096 + b"\r\n", ("u@x", "p" * 4096), id="the longest literal"),
    pytest.param(b'a LOGIN {3}\r\na"b {3}\r\nc\\d\r\n', ('a"b', "c\\d"), id="bad input 4, exactly those octets"),
    pytest.param(b"A.1!#$&'/:;<=>?@[]^_`|}~ LOGIN u@x p\r\n", ("u@x", "p"), id="every octet of a tag"),
]
EXCHANGES = [
    pytest.param(b"a AUTHENTICATE PLAIN " + P + b"\r\n", id="PLAIN with an initial response, though not offered"),
    pytest.param(b"a authenticate plain " + P + b"\r\n", id="in lower case"),
    pytest.param(b"a AUTHENTICATE PLAIN\r\n" + P + b"\r\n", id="PLAIN prompted"),
    pytest.param(b"a AUTHENTICATE PLAIN =\r\n" + P + b"\r\n", id="PLAIN with an empty initial response"),
    pytest.param(b"a AUTHENTICATE LOGIN\r\n" + b64(b"u@x") + b"\r\n" + b64(b"p") + b"\r\n", id="LOGIN"),
    pytest.param(b"a AUTHENTICATE LOGIN " + b64(b"u@x") + b"\r\n" + b64(b"p") + b"\r\n", id="LOGIN with the user"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("command", "login"), ASTRINGS)
def test_every_spelling_of_a_login_is_understood(command: bytes, login: tuple[str, str], chunk: int) -> None:
    talk = greeted()
    assert talk.client(command, chunk).replace(b"+ OK\r\n", b"") == b""
    assert talk.login == login
    assert talk.dialogue.backlog == 0


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("command", EXCHANGES)
def test_every_spelling_of_an_authentication_is_understood(command: bytes, chunk: int) -> None:
    talk = greeted()
    talk.client(command, chunk)
    assert talk.login == ("u@x", "p")


NAMES = ["user", "DOMAIN\\user", "user@domain", "User@Domain", "user@domain\\shared-mailbox"]


@pytest.mark.parametrize("name", NAMES)
def test_user_names_of_every_form_go_on_as_they_are(name: str) -> None:
    for spelling in (name, f'"{name}"', '"' + name.replace("\\", "\\\\") + '"'):
        talk = greeted()
        talk.client(f"a LOGIN {spelling} p\r\n".encode())
        assert talk.login == (name, "p")


def test_synchronising_literals_are_asked_for_one_by_one() -> None:
    talk = greeted()
    assert talk.client(b"a LOGIN {1}\r\n") == b"+ OK\r\n"
    assert talk.client(b"u {3}\r\n") == b"+ OK\r\n"
    assert talk.client(b"p\r\n\r\n") == b""
    assert talk.login == ("u", "p\r\n")


def test_the_continuation_is_a_plus_a_space_and_the_end() -> None:
    """One client chokes on ``+`` alone."""
    assert greeted().client(b"a AUTHENTICATE PLAIN\r\n") == b"+ \r\n"
    talk = greeted()
    assert talk.client(b"a AUTHENTICATE LOGIN\r\n") == b"+ VXNlcm5hbWU6\r\n"
    assert talk.client(b64(b"u") + b"\r\n") == b"+ UGFzc3dvcmQ6\r\n"


def test_capability_is_expected_inside_the_greeting() -> None:
    talk = Talk("IMAP", terms=ev.Terms(seen=("IMAP4REV1", "IDLE", "AUTH=XOAUTH2")))
    assert talk.said == b"* OK [CAPABILITY " + OURS + b" IDLE] emailproxy ready\r\n"


def test_capability_login_and_select_may_be_pipelined() -> None:
    talk = greeted(answers=[credential()])
    heard = talk.client(b"a CAPABILITY\r\nb LOGIN u p\r\nc SELECT INBOX\r\n")
    assert heard == b"* CAPABILITY " + OURS + b"\r\na OK CAPABILITY completed\r\n"
    assert talk.dialogue.backlog == len(b"c SELECT INBOX\r\n")
    talk.serve(b"* OK hello\r\nb OK welcome\r\n")
    assert talk.relay is not None
    assert talk.relay.to_server == b"c SELECT INBOX\r\n"
    assert talk.relay.to_client == b"b OK welcome\r\n"


def test_what_is_pipelined_behind_a_refused_login_stays_here() -> None:
    talk = greeted(answers=[WrongPassword("wrong")])
    heard = talk.client(b"b LOGIN u p\r\nc SELECT INBOX\r\nd NOOP\r\n")
    assert heard == (b"b NO [AUTHENTICATIONFAILED] wrong\r\nc BAD log in first\r\nd OK NOOP completed\r\n")
    assert talk.sent == b""


def test_id_with_literals_before_login() -> None:
    talk = greeted()
    assert talk.client(b'a ID ("name" {4+}\r\nmutt "version" {1+}\r\n2)\r\n') == b"* ID NIL\r\na OK ID completed\r\n"
    assert talk.client(b"b ID NIL\r\n") == b"* ID NIL\r\nb OK ID completed\r\n"
    assert talk.client(b'c ID ("a" {1}\r\n') == b"+ OK\r\n"
    assert talk.client(b"\n)\r\n") == b"* ID NIL\r\nc OK ID completed\r\n"


def test_a_passwordless_login_goes_on_as_such_and_its_refusal_keeps_the_connection() -> None:
    """Old Outlook; that it starts no consent is up to who answers `NeedToken`."""
    talk = greeted(answers=[WrongPassword("no password")])
    assert talk.client(b'a LOGIN u ""\r\n') == b"a NO [AUTHENTICATIONFAILED] no password\r\n"
    assert talk.login == ("u", "")
    talk.client(b"b LOGIN u p\r\n")
    assert talk.login == ("u", "p")


def test_a_refused_login_is_followed_by_neither_bye_nor_close() -> None:
    talk = greeted(answers=[WrongPassword("wrong")] * 20)
    for _ in range(20):
        assert talk.client(b"a LOGIN u p\r\n") == b"a NO [AUTHENTICATIONFAILED] wrong\r\n"
    assert not talk.over


PLAIN_COMMANDS = [
    (b"a NOOP\r\n", b"a OK NOOP completed\r\n"),
    (b"a noop \r\n", b"a OK NOOP completed\r\n"),
    (b"a LOGOUT\r\n", b"* BYE logging out\r\na OK LOGOUT completed\r\n"),
    (b"a CAPABILITY\r\n", b"* CAPABILITY " + OURS + b"\r\na OK CAPABILITY completed\r\n"),
]


@pytest.mark.parametrize(("command", "reply"), PLAIN_COMMANDS)
def test_what_may_come_before_the_login_is_answered(command: bytes, reply: bytes) -> None:
    talk = greeted()
    assert talk.client(command) == reply
    assert talk.hung_up == (b"LOGOUT" in command)


LITERAL = b"a LOGIN {4294967297}\r\n"
REFUSED = [
    pytest.param(LITERAL, b"a BAD the literal is too long\r\n", id="bad input 2"),
    pytest.param(b"a LOGIN u {4097}\r\n", b"a BAD the literal is too long\r\n", id="a literal, an octet too long"),
    pytest.param(b"\xff {4097}\r\n", b"* BAD the literal is too long\r\n", id="a literal of no command"),
    pytest.param(b'a LOGIN "u\0@x" p\r\n', b"a BAD NUL is not allowed\r\n", id="bad input 6 (CVE-2019-11500)"),
    pytest.param(b"a LOGIN {3+}\r\nu\0x p\r\n", b"a BAD NUL is not allowed\r\n", id="NUL in a literal"),
    pytest.param(b"a NOOP " + b"(" * 4000 + b"\r\n", b"a BAD this command takes no", id="bad input 8"),
    pytest.param(b"a AUTHENTICATE PLAIN ====\r\n", b"a BAD the response is not base64\r\n", id="bad input 9"),
    pytest.param(b"a AUTHENTICATE PLAIN {3+}\r\nabc\r\n", b"a BAD AUTHENTICATE takes", id="AUTHENTICATE, a literal"),
    pytest.param(b"a AUTHENTICATE\r\n", b"a BAD this mechanism is not offered", id="AUTHENTICATE alone"),
    pytest.param(b"a AUTHENTICATE CRAM-MD5\r\n", b"a BAD this mechanism is not offered", id="CRAM-MD5"),
    pytest.param(b"a STARTTLS\r\n", b"a BAD STARTTLS is not offered on this port", id="STARTTLS, not offered"),
    pytest.param(b"a LOGIN u\r\n", b"a BAD LOGIN takes a user name and a password\r\n", id="no password"),
    pytest.param(b"a LOGIN\r\n", b"a BAD LOGIN takes", id="no arguments"),
    pytest.param(b"a LOGIN u p q\r\n", b"a BAD LOGIN takes", id="an unquoted password with a space"),
    pytest.param(b'a LOGIN u "p\r\n', b"a BAD an argument is not", id="a quote that does not end"),
    pytest.param(b'a LOGIN u "p"q\r\n', b"a BAD an argument is not", id="octets behind a quote"),
    pytest.param(b"a CAPABILITY x\r\n", b"a BAD this command takes no arguments\r\n", id="an argument too many"),
    pytest.param(b"a NOOP {1+}\r\nx\r\n", b"a BAD this command takes no arguments\r\n", id="a literal too many"),
    pytest.param(b"a SELECT INBOX\r\n", b"a BAD log in first\r\n", id="SELECT"),
    pytest.param(b"a UID FETCH 1 ALL\r\n", b"a BAD log in first\r\n", id="UID FETCH"),
    pytest.param(b"NOOP\r\n", b"* BAD this is not a command", id="no tag"),
    pytest.param(b"\r\n", b"* BAD this is not a command", id="an empty line"),
    pytest.param(b"{1+}\r\nx NOOP\r\n", b"* BAD this is not a command", id="a literal for a tag"),
    pytest.param(b"+ NOOP\r\n", b"* BAD this is not a command", id="a plus for a tag"),
    pytest.param(b"* NOOP\r\n", b"* BAD this is not a command", id="a star for a tag"),
    pytest.param(b"a" * 65 + b" NOOP\r\n", b"* BAD this is not a command", id="a tag too long"),
    pytest.param(b"GET / HTTP/1.1\r\n", b"* BAD this is not a command", id="HTTP"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("command", "reply"), REFUSED)
def test_a_bad_command_is_refused_and_the_next_login_works(command: bytes, reply: bytes, chunk: int) -> None:
    talk = greeted()
    talk.client(b"z NOOP\r\n")
    heard = talk.client(command, chunk)
    assert heard.startswith(reply)
    assert heard.count(b"\r\n") == 1
    assert talk.asked == []
    talk.client(b"b LOGIN u p\r\n", chunk)
    assert talk.login == ("u", "p")


CLOSING = [
    pytest.param(b"A" * 8193, b"* BAD a line of more than 8192 octets\r\n" + BYE, id="bad input 1"),
    pytest.param(b"a LOGIN {99999999999999999999+}\r\n", b"* BAD a literal is too long\r\n" + BYE, id="bad input 3"),
    pytest.param(b"a LOGIN {4097+}\r\n", b"* BAD a literal is too long\r\n" + BYE, id="LITERAL-, an octet too long"),
    pytest.param(b"a NOOP\nb NOOP\n", b"* BAD a line ended by LF without CR\r\n" + BYE, id="a bare LF"),
    pytest.param(b"a LOGIN u {1+}\r\np\n", b"* BAD a line ended by LF without CR\r\n" + BYE, id="a bare LF, later"),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("octets", "reply"), CLOSING)
def test_octets_that_are_no_command_close(octets: bytes, reply: bytes, chunk: int) -> None:
    talk = greeted()
    assert talk.client(octets, chunk) == reply
    assert talk.hung_up
    assert talk.asked == []


def test_starttls_with_a_command_behind_it_closes() -> None:
    """Bad input 7: in one segment no login happens."""
    talk = greeted()
    assert talk.client(b"a STARTTLS\r\nb LOGIN u p\r\n") == b"* BAD octets behind STARTTLS\r\n" + BYE
    assert talk.hung_up
    assert talk.asked == []


def test_a_name_with_controls_is_refused_with_nothing_upstream() -> None:
    """Bad inputs 11 and 39."""
    for name in (b"u\x01auth=Bearer e\x01\x01", b"a@b]\n[SMTP-25", b"\x7f", b"u" * 255):
        talk = greeted()
        heard = talk.client(b"a AUTHENTICATE PLAIN " + b64(b"\0" + name + b"\0p") + b"\r\n")
        assert heard.startswith(b"a NO [AUTHENTICATIONFAILED] the user name is empty, too long or holds control")
        assert heard.count(b"\n") == 1
        assert talk.asked == []
        assert talk.sent == b""
        assert [(type(refused.error).__mro__[1], refused.login) for refused in talk.refused] == [(UnknownAccount, None)]
        literal = greeted().client(b"a LOGIN {%d+}\r\n%b p\r\n" % (len(name), name))
        assert literal.startswith(b"a NO [AUTHENTICATIONFAILED] ")


def grown(octets: bytes, chunk: int) -> tuple[int, Talk]:
    """The most memory that a client's octets take at any moment, in octets."""
    talk = greeted()
    talk.client(b"z NOOP\r\n")
    pieces = [octets[start : start + chunk] for start in range(0, len(octets), chunk)]
    tracemalloc.start()
    for piece in pieces:
        for effect in talk.dialogue.handle(ev.ClientData(piece)):
            talk.effects.append(effect)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, talk


def test_a_literal_that_is_announced_is_not_made_room_for() -> None:
    """Bad input 3."""
    peak, _ = grown(b"a LOGIN {99999999999999999999+}\r\n", 10**6)
    assert peak < 8 * 1024


def test_parentheses_do_not_pile_up() -> None:
    """Bad input 8: some 4 KiB come in, less than 16 KiB are taken for them in all."""
    talk = greeted()
    talk.client(b"z NOOP\r\n")
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    talk.client(b"a NOOP " + b"(" * 4000 + b"\r\n")
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 16 * 1024


def test_literals_without_end_are_bounded() -> None:
    """Empty ones, too: each costs a list's entry, and would cost a look at all before it."""
    octets = b"a LOGIN " + b"{0+}\r\n" * 100_000
    peak, talk = grown(octets, 4096)
    assert talk.hung_up
    assert peak < 512 * 1024
    talk = greeted()
    heard = talk.client(b"a ID (" + b"{0}\r\n" * 100_000)
    assert 0 < heard.count(b"+ OK") <= 3 * MAX_COMMAND // 5  # three commands, each refused at its limit
    assert talk.hung_up


@pytest.mark.parametrize(("count", "fits"), [(3, True), (4, False)])
def test_a_command_is_bounded_with_all_its_literals(count: int, fits: bool) -> None:
    talk = greeted()
    talk.client(b"a ID (" + b" {4096+}\r\n".join([b"x" * 4096] * (count + 1))[4096:] + b")\r\n")
    assert talk.hung_up != fits


# ---- capabilities

OFFERS = [
    pytest.param((), OURS, id="nothing"),
    pytest.param(("IMAP4REV1", "IMAP4REV2", "IDLE"), OURS + b" IMAP4REV2 IDLE", id="what it will do later"),
    pytest.param(("AUTH=XOAUTH2", "AUTH=CRAM-MD5", "AUTH=PLAIN", "SASL-IR"), OURS, id="its ways to log in"),
    pytest.param(("STARTTLS", "LOGINDISABLED", "LOGIN-REFERRALS", "UNAUTHENTICATE"), OURS, id="what cannot pass"),
]


@pytest.mark.parametrize(("seen", "offered"), OFFERS)
def test_what_we_offer_is_built_from_what_the_server_offers(seen: ev.Capabilities, offered: bytes) -> None:
    talk = Talk("IMAP", terms=ev.Terms(seen=seen))
    assert talk.said == b"* OK [CAPABILITY " + offered + b"] emailproxy ready\r\n"
    assert talk.client(b"a CAPABILITY\r\n").startswith(b"* CAPABILITY " + offered + b"\r\n")


def test_an_unknown_servers_capabilities_are_waited_for() -> None:
    talk = Talk("IMAP")
    assert talk.said == b""
    talk.client(b"a NOOP\r\n")
    assert talk.dialogue.backlog == len(b"a NOOP\r\n")
    talk.serve(b"* OK [capability imap4rev1 idle] hello\r\n")
    assert talk.said == b"* OK [CAPABILITY " + OURS + b" IDLE] emailproxy ready\r\na OK NOOP completed\r\n"
    assert talk.learned == [("IMAP4REV1", "IDLE")]
    assert talk.sent == b""


@pytest.mark.parametrize("event", [ev.ServerEOF(), ev.ServerFailed(ServerUnavailable("down"))])
def test_a_server_that_is_down_does_not_keep_the_greeting_back(event: ev.Event) -> None:
    talk = Talk("IMAP", dials=False)
    talk.feed(event)
    assert talk.said == b"* OK [CAPABILITY " + OURS + b"] emailproxy ready\r\n"
