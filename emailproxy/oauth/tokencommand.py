"""Tokens from somebody else's program: what `token_command` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from emailproxy.config.model import Account
from emailproxy.errors import LoginRefused, ProviderUnavailable
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.commands import CommandFailed, Commands
from emailproxy.oauth.flow import Approval, Grant, TokenSet
from emailproxy.oauth.replies import DIGITS, Unreadable, validated

TOKENS = ("access_token", "accessToken", "token")
"""What programs call it: the RFC's name, Azure's command line's, Google's and others'."""
ENDS = ("expires_on", "expires_at", "expiry", "expiresOn")
"""What they call its end. Azure's prints two: `expires_on`, and `expiresOn` without a time zone."""

# RFC 6750 section 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
BARE_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
# RFC 3339 section 5.6: date-time = full-date "T" full-time; "a space" and lower case are taken as it allows
DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class TokenCommand:
    """The program is the provider: no endpoint is asked, and nothing is refreshed but by running it again."""

    approval = Approval.NONE

    def __init__(self, commands: Commands, clock: Clock) -> None:
        self._commands = commands
        self._clock = clock

    async def acquire(self, account: Account, grant: Grant | None = None) -> TokenSet:
        what = f"the token_command of {account.name}"
        now_s = self._clock.now_s()
        try:
            printed = await self._commands.run(
                account.token_command, what=what, timeout_s=account.token_command_timeout
            )
        except CommandFailed as error:
            raise ProviderUnavailable(str(error)) from None

        def complain(fault: str) -> LoginRefused:
            return Unreadable(f"{what} printed {fault}; let it print a token, or JSON with access_token and expires_in")

        return tokens_in(printed, now_s, complain)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self.acquire(account)


def tokens_in(printed: bytes, now_s: int, complain: Callable[[str], LoginRefused]) -> TokenSet:
    """The token that a program printed, bare or in JSON; `complain` makes the error from what is wrong."""
    text = printed.strip()
    if not text:
        raise complain("nothing")
    said = {"access_token": text.decode("ascii")} if BARE_TOKEN.fullmatch(text) else object_of(text, complain)
    token = next((said[name] for name in TOKENS if said.get(name) is not None), None)
    if token is None:
        raise complain("JSON without access_token")
    return validated(
        {"access_token": token, "expires_in": life_of(said, now_s, complain)}, now_s=now_s, complain=complain
    )


def object_of(text: bytes, complain: Callable[[str], LoginRefused]) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise complain("what is neither a token nor a JSON object")
    return said


def life_of(said: Mapping[str, Any], now_s: int, complain: Callable[[str], LoginRefused]) -> object:
    """The seconds that the token lives, not validated yet; None where the program does not say."""
    if said.get("expires_in") is not None:
        return said["expires_in"]
    for name in ENDS:
        end = said.get(name)
        if end is None:
            continue
        end_s = epoch_s(end)
        if end_s is None:
            raise complain(f"an {name} that is neither seconds since 1970 nor a time with its zone (RFC 3339)")
        if end_s <= now_s:
            raise complain(f"a token that has ended already, by its {name}")
        return end_s - now_s
    return None


def epoch_s(end: object) -> float | None:
    """A moment as seconds since the epoch: a number, digits, or RFC 3339; None where it is nothing of these."""
    if isinstance(end, int | float) and not isinstance(end, bool):
        return end
    if not isinstance(end, str):
        return None
    if DIGITS.fullmatch(end):
        return int(end)
    written = DATE_TIME.fullmatch(end)
    if written is None:
        return None
    date, time, zone = written.groups()
    try:
        return datetime.fromisoformat(f"{date}T{time}{zone.upper()}").timestamp()
    except (ValueError, OverflowError):
        return None
