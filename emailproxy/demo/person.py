"""The person of the demo: reads the proxy's log, and opens the consent URL as a browser would."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Self

import aiohttp

from emailproxy.demo.transcript import Speaker, Transcript, without_secrets

SENTENCE = re.compile(r"Please visit the following URL to authenticate account \S+: (\S+)")
SUCCESS = re.compile(r"Email OAuth 2\.0 authentication succeeded for [^\s<]+")
PROXY_LOG = logging.getLogger("emailproxy")
TIMEOUT_S = 10


class Person(logging.Handler):
    """Watches the log, from ``async with`` until its end."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__(logging.INFO)
        self._transcript = transcript
        self._urls: asyncio.Queue[str] = asyncio.Queue()
        self.problem: str | None = None
        """Why the last sign-in did not work, where it did not."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._before = (PROXY_LOG.level, PROXY_LOG.propagate)
        PROXY_LOG.setLevel(logging.INFO)
        PROXY_LOG.propagate = False  # the demo has a transcript of its own
        PROXY_LOG.addHandler(self)
        self._task = asyncio.create_task(self._approve_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        PROXY_LOG.removeHandler(self)
        PROXY_LOG.level, PROXY_LOG.propagate = self._before
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Called in whatever thread logs."""
        found = SENTENCE.search(record.getMessage())
        if found:
            self._loop.call_soon_threadsafe(self._urls.put_nowait, found[1])

    async def _approve_all(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as browser:
            while True:
                await self._approve(browser, await self._urls.get())

    async def _approve(self, browser: aiohttp.ClientSession, url: str) -> None:
        self._say(Speaker.PROXY, Speaker.PERSON, f"Please visit {without_secrets(url.encode())}")
        self._say(Speaker.PERSON, Speaker.PROVIDER, "signs in and approves")
        try:
            async with browser.get(url) as page:
                text, status = await page.text(), page.status
        except (aiohttp.ClientError, TimeoutError) as error:
            self.problem = f"the consent URL could not be opened: {error or type(error).__name__}"
            return
        found = SUCCESS.search(text)
        self.problem = None if found else f"the sign-in ended with HTTP status {status} and no word of success"
        self._say(Speaker.PROXY, Speaker.PERSON, f"{status} {found[0] if found else ''}".rstrip())

    def _say(self, speaker: Speaker, listener: Speaker, text: str) -> None:
        self._transcript.record("OAuth", speaker, listener, text)
