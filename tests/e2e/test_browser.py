"""Every page that the redirect listener shows to a person, in a real browser: readable, inert, and alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.e2e.harness.chromium import ELSEWHERE, Chromium, Shown, chromium
from tests.e2e.harness.signon import SUCCESS, Trust, sign_in, sign_on, signed_in

pytestmark = pytest.mark.system("dovecot", "node", "oidc-provider", "chromium", "chromedriver")

POLICY = (
    "default-src 'none'; style-src 'sha256-g1O9Wftx4reHIvcKABNX/uYZfb4sSgbIcatnVknyyUo='; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HOSTILE = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
INTRUDE = """
const script = document.createElement('script');
script.textContent = "document.title = 'ran'";
document.body.append(script);
const image = document.createElement('img');
image.src = '/picture';
document.body.append(image);
await new Promise((resolve) => { image.onerror = resolve; });
return document.title;
"""
"""What a hostile text would do that had become part of a page: run a script, and load something."""


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.create(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def browser(trust: Trust) -> Iterator[Chromium]:
    with chromium(trust.certificate) as started:
        yield started


async def inert(browser: Chromium, shown: Shown, *, status: int, title: str, text: str) -> None:
    """The page is ours, says this, loaded nothing, ran nothing, and would let nothing do so."""
    assert (shown.status, shown.title) == (status, title)
    assert text in shown.text
    assert shown.loaded == []
    assert [one for one in shown.complaints if "Content Security Policy" in one] == []
    assert shown.headers["content-security-policy"] == POLICY
    assert shown.headers["referrer-policy"] == "no-referrer"
    assert shown.headers["cache-control"] == "no-store"
    assert await browser.run("return document.scripts.length") == 0
    assert await browser.run(INTRUDE) == title


async def test_the_page_at_the_end_of_a_sign_in_and_the_link_after_it(
    tmp_path: Path, trust: Trust, browser: Chromium
) -> None:
    async with sign_on(tmp_path, trust) as ours, ours.proxy(ours.person):
        link = await ours.link()
        shown = await signed_in(browser, link)
        await inert(browser, shown, status=200, title="Signed in", text=SUCCESS)
        for used in (link, shown.url):
            shown = await browser.open(used)
            await inert(browser, shown, status=400, title="This sign-in link is not valid", text="It was used already")
        await ours.log_in()


async def test_the_person_declines_and_thinks_better_of_it(tmp_path: Path, trust: Trust, browser: Chromium) -> None:
    async with sign_on(tmp_path, trust) as ours, ours.proxy(ours.person):
        link = await ours.link()
        await browser.open(link)
        await browser.press("[ Cancel ]")
        shown = await browser.sees("The provider did not sign you in")
        said = "It says: access_denied (End-User aborted interaction)"
        await inert(browser, shown, status=400, title="The provider did not sign you in", text=said)
        assert (await ours.provider.happens("authorization.error"))["error"] == "access_denied"
        await signed_in(browser, link)
        await ours.log_in()


async def test_somebody_else_signs_in(tmp_path: Path, trust: Trust, browser: Chromium) -> None:
    async with sign_on(tmp_path, trust) as ours, ours.proxy(ours.person):
        await browser.open(await ours.link())
        await sign_in(browser, "bob@example.com")
        shown = await browser.sees("The sign-in was not completed")
        await inert(browser, shown, status=400, title="The sign-in was not completed", text="bob@example.com")
        await signed_in(browser, await ours.link())
        await ours.log_in()


async def test_the_provider_refuses_the_exchange(tmp_path: Path, trust: Trust, browser: Chromium) -> None:
    async with sign_on(tmp_path, trust) as ours, ours.proxy(ours.person | {"client_secret": "canary"}):
        await browser.open(await ours.link())
        await sign_in(browser)
        shown = await browser.sees("The sign-in was not completed")
        await inert(browser, shown, status=400, title="The sign-in was not completed", text="invalid_client")
        assert "canary" not in shown.text
        await ours.provider.happens("grant.error")


async def test_pages_for_strangers(tmp_path: Path, trust: Trust, browser: Chromium) -> None:
    async with sign_on(tmp_path, trust) as ours, ours.proxy(ours.person):
        link = await ours.link()
        base, _, state = link.partition("c/")
        elsewhere = base.replace("localhost", ELSEWHERE)
        for url, status, title, text in (
            (base, 400, "This is not a sign-in", "It has no state."),
            (f"{base}?state={state}", 400, "This is not a sign-in", "It has no code."),
            (f"{base}?code=x&state={state}&iss=https://{ELSEWHERE}/", 400, "This is not a sign-in", "another provider"),
            (f"{base}?code=x&state={'A' * 43}", 400, "This sign-in link is not valid", "Nothing was changed."),
            (f"{base}c/{'A' * 43}", 400, "This sign-in link is not valid", "Nothing was changed."),
            (f"{base}nowhere", 404, "Nothing here", "Only sign-in links of emailproxy lead here."),
            (f"{elsewhere}c/{state}", 421, "Not this host", "The Host of this request"),
            (hostile(base, state), 400, "The provider did not sign you in", HOSTILE),
        ):
            await inert(browser, await browser.open(url), status=status, title=title, text=text)
        await signed_in(browser, link)  # none of it has changed anything
        await ours.log_in()


def hostile(base: str, state: str) -> str:
    """What somebody made up who has got hold of the link."""
    return f"{base}?{urlencode({'state': state, 'error': 'x', 'error_description': HOSTILE})}"
