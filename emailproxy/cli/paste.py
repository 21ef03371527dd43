"""A sign-in that is finished by hand: the person pastes the address that the browser ended at, or the code in it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import IO

import click

from emailproxy.config.model import Config
from emailproxy.errors import ConsentRequired, EmailProxyError, ProviderRefused
from emailproxy.oauth.answer import MAX_PASTED, Declined, NotAnAnswer, pasted
from emailproxy.oauth.waiting import Waiting

ADVICE = """
Open the URL in any browser and sign in. In the end the browser is sent to {redirect_uri}...
It may say that it cannot connect: copy the whole address from its address bar all the same, and paste it here.
If it shows "Signed in" instead, just press Enter.
"""


def finish(config: Config, waiting: Waiting, file: IO[str] | None) -> tuple[str, ...] | None:
    """Who signed in, as far as that is known; None where nothing was pasted.

    Args:
        file: what the local password came from, where the pasted line follows it.

    Raises:
        EmailProxyError: the sign-in failed; at a terminal, what is no answer may be pasted anew.
    """
    at_terminal = sys.stdin.isatty() and file is None
    if at_terminal:
        click.echo(ADVICE.format(redirect_uri=waiting.account.redirect_uri), err=True)
    while True:
        text = _asked() if at_terminal else _read(file or sys.stdin)
        if text is None:
            return None
        try:
            return asyncio.run(_finish(config, waiting, text))
        except NotAnAnswer as error:
            if not at_terminal:
                raise EmailProxyError(f"what was pasted cannot be used: {error}") from None
            click.echo(f"That cannot be used: {error}", err=True)


def _asked() -> str | None:
    with suppress(ImportError):
        import readline  # noqa: F401 - without it a terminal takes 4,096 characters a line, or even 1,024
    try:
        text: str = click.prompt("The address, or the code in it", default="", show_default=False, err=True)
    except click.Abort:  # Ctrl-C
        click.echo(err=True)
        return None
    return text


def _read(file: IO[str]) -> str | None:
    try:
        line = file.readline(MAX_PASTED + 2)
    except UnicodeDecodeError:
        raise EmailProxyError("what was pasted is not UTF-8 text; paste the address again") from None
    return line or None


async def _finish(config: Config, waiting: Waiting, text: str) -> tuple[str, ...]:
    from emailproxy.service import Authority

    async with Authority(config) as authority:
        consents = authority.consents
        found = await consents.find(waiting.state)
        if found is None and await consents.wait(waiting, 0):  # by a redirect listener, meanwhile
            return ()
        if found is None or not text.strip():
            raise NotAnAnswer("Nobody has signed in yet.")
        answer = pasted(text, waiting.account, waiting.state, found.url)
        if isinstance(answer, Declined):
            raise ProviderRefused(
                f"the provider did not sign {waiting.account.name} in: {answer}; the same URL can be tried again"
            )
        if await consents.finish(waiting.state, answer) is None and not await consents.wait(waiting, 0):
            raise ConsentRequired(f"the sign-in of {waiting.account.name} ended; run this again for a new URL")
        return consents.who(waiting)
