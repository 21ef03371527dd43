"""Where the person is who signs in: at a browser of this machine, behind SSH, or with a phone in hand."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import sys
from collections.abc import Collection, Mapping
from typing import TextIO
from urllib.parse import urlsplit

from emailproxy.config.hosts import is_loopback
from emailproxy.config.model import HTTP_PORT, SECONDS, Account, FlowName
from emailproxy.oauth.commands import environment
from emailproxy.oauth.waiting import Waiting

OPEN = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.stdin.read()))"
OPEN_S = 5 * SECONDS  # a browser that is still in the foreground then has opened
SSH = ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")  # ssh(1) sets them
SSH_PORT = "22"
QUIET_ZONE = 2  # modules around a QR code; half of what ISO/IEC 18004 asks for, which phones do not need on a screen


def is_behind_ssh(variables: Mapping[str, str]) -> bool:
    return any(variables.get(name) for name in SSH)


def has_browser(variables: Mapping[str, str], *, platform: str = sys.platform, root: bool = False) -> bool:
    """Whether a browser may be opened that the person sees. Browsers for the terminal do not count."""
    if is_behind_ssh(variables):
        return False
    if platform in ("win32", "darwin"):
        return True
    display = variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY")
    return bool(display or (variables.get("BROWSER") and not root))


async def open_browser(url: str, hidden: Collection[str] = ()) -> bool:
    """Whether a browser took the URL.

    In a process of its own: what browsers print is nobody's business, and Ctrl-C here does not end one there.

    Args:
        hidden: environment variables that hold secrets.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", OPEN),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(hidden),
        start_new_session=True,
    )
    try:
        await asyncio.wait_for(process.communicate(url.encode()), OPEN_S)
    except TimeoutError:
        return True
    return process.returncode == 0


def tunnel(account: Account, variables: Mapping[str, str], user: str) -> str | None:
    """The `ssh` command that leads a browser at the other end to the redirect listener; None where none is needed.

    ``SSH_CONNECTION`` is the client's address and port, then the server's (ssh(1)).
    """
    uri = urlsplit(account.redirect_uri)
    if account.flow is not FlowName.AUTHORIZATION_CODE or not is_behind_ssh(variables):
        return None
    if not is_loopback(uri.hostname or ""):
        return None
    listening = urlsplit(f"//{account.listen_address}")
    there = listening.hostname or ""
    if is_loopback(there) or there in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        there = "localhost"
    elif ":" in there:
        there = f"[{there}]"
    *_, host, port = variables.get("SSH_CONNECTION", "").split() or (socket.gethostname(), SSH_PORT)
    other_port = "" if port == SSH_PORT else f"-p {port} "
    return f"ssh {other_port}-L {uri.port or HTTP_PORT}:{there}:{listening.port or HTTP_PORT} {user}@{host}"


def user_name(variables: Mapping[str, str] = os.environ) -> str:
    """Who logged in over SSH, as far as we can tell."""
    if variables.get("SUDO_USER"):
        return variables["SUDO_USER"]
    with contextlib.suppress(OSError, KeyError):  # this user ID has no name
        return getpass.getuser()
    return "USER"


def for_a_phone(waiting: Waiting) -> str | None:
    """The address that a phone can open; None where it leads to this very machine."""
    if waiting.user_code:
        return waiting.url
    return None if is_loopback(urlsplit(waiting.link).hostname or "") else waiting.link


def show_qr(url: str, out: TextIO) -> bool:
    """A QR code, where `out` is a terminal that has room for it. Returns whether it is shown."""
    import segno

    code = segno.make_qr(url, error="l")
    width, _ = code.symbol_size(border=QUIET_ZONE)
    if not out.isatty() or width > shutil.get_terminal_size().columns or not can_show_blocks(out):
        return False
    code.terminal(out=out, border=QUIET_ZONE, compact=True)
    return True


def can_show_blocks(out: TextIO) -> bool:
    try:
        "▀▄█".encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
