"""SASL: PLAIN and LOGIN as mail clients speak them, XOAUTH2 and OAUTHBEARER as mail servers want them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Generator, Iterable

from emailproxy.errors import ProtocolError, UnknownAccount, one_line
from emailproxy.names import is_a_name
from emailproxy.secret import Secret
from emailproxy.wire.events import Credential, Login
from emailproxy.wire.lines import MAX_SASL_RESPONSE, LineTooLong

USERNAME_PROMPT = base64.b64encode(b"Username:")  # VXNlcm5hbWU6: some printers accept no other
PASSWORD_PROMPT = base64.b64encode(b"Password:")  # UGFzc3dvcmQ6
EMPTY_RESPONSE = b"="  # RFC 4954 section 4, RFC 4959 section 3: an empty initial response
CANCEL = b"*"  # RFC 3501 section 6.2.2, RFC 5034 section 4, RFC 4954 section 4


class BadName(UnknownAccount):
    """A user name that no account can have; it goes no further than this error."""


class BadResponse(ProtocolError):
    """A SASL response that cannot be read, or that cancels the exchange; the connection goes on."""


class NotOffered(BadResponse):
    """The client asks for a mechanism that we do not offer."""


def text(octets: bytes) -> str:
    """A user name or password as text: UTF-8 (RFC 4616 section 2), else the Latin-1 of old programs."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def make_login(user: bytes, password: bytes) -> Login:
    """A login whose user name is safe to pass on.

    Raises:
        BadName: no account can have it.
    """
    name = text(user)
    if not is_a_name(name):
        raise BadName("the user name is empty, too long or holds control characters; check it in the mail program")
    return Login(name, Secret(text(password)))


def decode_response(response: bytes) -> bytes:
    """A response as SASL profiles send it: base64, strictly, or ``*`` to cancel.

    Raises:
        BadResponse: the client cancelled, or it is not base64.
    """
    if response == CANCEL:
        raise BadResponse("the authentication was cancelled")
    try:
        return base64.b64decode(response, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadResponse("the response is not base64") from error


def parse_plain(message: bytes) -> Login:
    """RFC 4616 section 2: ``message = [authzid] UTF8NUL authcid UTF8NUL passwd``.

    Raises:
        BadResponse: there are not exactly two NULs.
        BadName: no account can have this name, or it asks to act for somebody else.
    """
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise BadResponse("the PLAIN response is not authzid NUL authcid NUL password")
    authzid, authcid, password = parts
    login = make_login(authcid, password)
    if authzid and authzid != authcid:
        raise BadName("the client asks to log in for another user (SASL authzid); leave that setting empty")
    return login


def read_login(arguments: bytes, ask: Callable[[bytes], Generator[None, None, bytes]]) -> Generator[None, None, Login]:
    """The login of an AUTH or AUTHENTICATE command by PLAIN or LOGIN, with or without an initial response.

    `arguments` are the command's; `ask` sends a prompt and returns the client's response. An empty initial response
    is of no use to either mechanism, so the client is asked then, too.

    Raises:
        NotOffered: another mechanism.
        BadResponse: a response cannot be read, or cancels.
        BadName: no account can have this name.
        LineTooLong: the initial response is longer than `MAX_SASL_RESPONSE`.
    """
    mechanism, _, given = arguments.strip().partition(b" ")
    given = given.strip()
    if len(given) > MAX_SASL_RESPONSE:
        raise LineTooLong(f"a response of more than {MAX_SASL_RESPONSE} octets")
    if given == EMPTY_RESPONSE:
        given = b""
    match mechanism.upper():
        case b"PLAIN":
            message = given or (yield from ask(b""))
            return parse_plain(decode_response(message))
        case b"LOGIN":
            user = decode_response(given or (yield from ask(USERNAME_PROMPT)))
            password = decode_response((yield from ask(PASSWORD_PROMPT)))
            return make_login(user, password)
        case _:
            raise NotOffered("this mechanism is not offered; use PLAIN or LOGIN")


def pick_mechanism(offered: Iterable[str]) -> str | None:
    """XOAUTH2 where it is offered, OAUTHBEARER where only that is."""
    names = {name.upper() for name in offered}
    return next((name for name in ("XOAUTH2", "OAUTHBEARER") if name in names), None)


def initial_response(mechanism: str, credential: Credential, host: str, port: int) -> bytes:
    """The client's first message, in base64.

    XOAUTH2 is Google's and Microsoft's ``user=U^Aauth=Bearer T^A^A``; OAUTHBEARER is RFC 7628 section 3.1.
    """
    bearer = f"auth=Bearer {credential.token.reveal()}\x01\x01"
    if mechanism == "XOAUTH2":
        message = f"user={credential.user}\x01{bearer}"
    else:
        # RFC 5801 section 4: saslname = 1*(UTF8-char-safe / "=2C" / "=3D")
        authzid = credential.user.replace("=", "=3D").replace(",", "=2C")
        message = f"n,a={authzid},\x01host={host}\x01port={port}\x01{bearer}"
    return base64.b64encode(message.encode())


def failure_answer(mechanism: str) -> bytes:
    """What ends a failed exchange: nothing for XOAUTH2, a lone ^A for OAUTHBEARER (RFC 7628 section 3.2.3)."""
    return b"" if mechanism == "XOAUTH2" else base64.b64encode(b"\x01")


def failure_text(challenge: bytes) -> str:
    """The server's failure challenge in words, for example ``status 401, schemes Bearer``."""
    try:
        decoded = base64.b64decode(challenge, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return one_line(challenge.decode("ascii", "replace"))
    try:
        fields = json.loads(decoded)
    except (ValueError, RecursionError):
        return one_line(decoded)
    if not isinstance(fields, dict):
        return one_line(decoded)
    told = ((key, value) for key, value in fields.items() if value and isinstance(value, str | int))
    return one_line(", ".join(f"{key} {value}" for key, value in told))
