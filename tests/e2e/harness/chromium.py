"""Debian's headless Chromium: a person's real browser, held to the loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from emailproxy.demo.certificates import Certificate

PATIENCE_S = 20.0
"""A page takes a tenth of a second; a busy machine some seconds."""
ELSEWHERE = "elsewhere.example"
"""A name that leads this browser to the loopback as well, as a stranger's DNS could."""
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root has none, nor have most containers; and all pages are ours
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,OptimizationHints,MediaRouter",
    "--metrics-recording-only",
    "--password-store=basic",
    "--window-size=800,600",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Shown:
    """What the person sees, and how it came."""

    url: str
    title: str
    text: str
    """As it stands on the screen."""
    status: int
    headers: dict[str, str]
    """Their names in small letters."""
    loaded: Sequence[str]
    """The URLs of everything that the page itself asked for."""
    complaints: Sequence[str]
    """What the page left in the developer console."""


class Chromium:
    """Its methods work in threads: WebDriver blocks."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    async def open(self, url: str) -> Shown:
        """Goes there, and wherever that leads."""
        await self._do(self._forget)
        await self._do(lambda: self._driver.get(url))
        return await self._do(self._shown)

    async def fill(self, name: str, text: str) -> None:
        """Writes into the form's field of this name, once it is there."""
        field = await self._find(By.NAME, name)
        await self._do(field.clear)
        await self._do(lambda: field.send_keys(text))

    async def press(self, label: str) -> None:
        """Presses the button, or follows the link, with these words on it, once it is there."""
        there = await self._find(By.XPATH, f"//*[self::button or self::a][normalize-space()='{label}']")
        await self._do(there.click)

    async def sees(self, title: str) -> Shown:
        """The page with this title, once it is there."""
        await self._find(By.XPATH, f"//title[normalize-space()='{title}']")
        return await self._do(self._shown)

    async def run(self, script: str) -> Any:
        """The value of a function body's `return`, run in the page by the developer tools: no policy holds these."""
        return await self._do(lambda: self._driver.execute_script(script))

    async def _find(self, by: str, what: str) -> WebElement:
        try:
            return await self._do(lambda: self._driver.find_element(by, what))
        except NoSuchElementException:
            shown = await self._do(self._shown)
            raise AssertionError(f"there is no {what} on the page: {shown}") from None

    async def _do(self, work: Callable[[], Result]) -> Result:
        return await asyncio.to_thread(work)

    def _forget(self) -> None:
        """Starts anew: no sessions of the last test, and an empty record of what was loaded."""
        self._driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self._driver.get("about:blank")
        self._driver.get_log("performance")
        self._driver.get_log("browser")

    def _shown(self) -> Shown:
        record = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        sent = [one["params"] for one in record if one["method"] == "Network.requestWillBeSent"]
        received = [one["params"] for one in record if one["method"] == "Network.responseReceived"]
        page = [params for params in received if params["type"] == "Document"][-1]
        return Shown(
            url=self._driver.current_url,
            title=self._driver.title,
            text=self._driver.find_element(By.TAG_NAME, "body").text,
            status=page["response"]["status"],
            headers={name.lower(): value for name, value in page["response"]["headers"].items()},
            loaded=[
                params["request"]["url"]
                for params in sent
                if params["loaderId"] == page["loaderId"] and params["type"] != "Document"
            ],
            complaints=[entry["message"] for entry in self._driver.get_log("browser")],
        )


@contextlib.contextmanager
def chromium(trusted: Certificate) -> Iterator[Chromium]:
    """Starts one with a home of its own; of the certificates that no public authority signed it takes this one."""
    # Not pytest's tmp_path: that is too long for the paths of Chromium's Unix sockets.
    home = Path(tempfile.mkdtemp(prefix="chromium-"))
    program, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    assert program
    assert driver_program
    options = ChromeOptions()
    options.binary_location = program
    for option in (*OPTIONS, f"--user-data-dir={home}/data", f"--ignore-certificate-errors-spki-list={_pin(trusted)}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = ChromeService(
        driver_program,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"},
        log_output=str(home / "chromedriver.log"),
        popen_kw={"start_new_session": True},
    )
    try:
        driver = Chrome(options, service)
        try:
            driver.implicitly_wait(PATIENCE_S)
            driver.set_page_load_timeout(PATIENCE_S)
            yield Chromium(driver)
        finally:
            driver.quit()
    finally:
        _end(service)
        shutil.rmtree(home, ignore_errors=True)  # A killed process may write its last file yet.


def _end(service: ChromeService) -> None:
    """Kills what is left of the session that chromedriver leads."""
    process = getattr(service, "process", None)
    if process is None:
        return
    for pid in [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _pin(certificate: Certificate) -> str:
    """The SHA-256 of its public key (RFC 7469 section 2.4)."""
    loaded = x509.load_pem_x509_certificate(certificate.certificate_file.read_bytes())
    return base64.b64encode(
        hashlib.sha256(loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()
