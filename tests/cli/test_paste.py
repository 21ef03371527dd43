"""`emailproxy authorize --paste`: the sign-in is finished by hand, wherever the browser is."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
from yarl import URL

from emailproxy.config.model import FlowName
from tests.cli.screen import terminal
from tests.cli.site import ADA, BOB, PASSWORD, ROBOT, Ended, Site, approve
from tests.fakes.provider import refusal

PROMPT = "The address, or the code in it: "


async def begun(site: Site, user: str = ADA) -> str:
    """The URL of a sign-in that waits."""
    given = f"{PASSWORD}\n".encode()
    shown = await site.run("authorize", user, "--password-file", "-", "--wait", "0", stdin=given)
    return shown.out.split()[-1]


async def returned(url: str) -> str:
    """The address that the browser is sent to in the end, and does not get to."""
    async with aiohttp.ClientSession() as session:
        page = URL(url, encoded=True)
        async with session.post(page, data={"decision": "approve"}, allow_redirects=False) as reply:
            return reply.headers["Location"]


async def pasted(site: Site, text: str, user: str = ADA, *arguments: str) -> Ended:
    """The command with the password on the first line of its input, and this on the next."""
    given = f"{PASSWORD}\n{text}".encode()
    return await site.run("authorize", user, "--paste", "--password-file", "-", *arguments, stdin=given)


@pytest.mark.parametrize("part", ["the whole address", "the code"])
async def test_what_is_pasted_finishes_the_sign_in(site: Site, part: str) -> None:
    address = await returned(await begun(site))
    text = address if part == "the whole address" else parse_qs(urlsplit(address).query)["code"][0]
    shown = await pasted(site, text)
    assert (shown.code, shown.complaints[2:]) == (0, [])
    assert f"{ADA} is signed in as {ADA}." in shown.out
    assert [request.grant for request in site.provider.requests] == ["authorization_code"]
    assert await site.log_in()


async def test_the_password_may_come_from_a_file_of_its_own(site: Site) -> None:
    address = await returned(await begun(site))
    file = site.folder / "password"
    file.write_text(PASSWORD)
    command = ("authorize", ADA, "--paste", "--json", "--password-file", file)
    shown = await site.run(*command, stdin=address.encode())
    first, last = map(json.loads, shown.out.splitlines())
    assert (shown.code, shown.err) == (0, "")
    assert first["link"].startswith(f"http://localhost:{site.redirect}/c/")
    assert last == {"account": ADA, "signed_in": True, "signed_in_as": [ADA]}


WRONG = [
    ("http://localhost:{port}/?code=abc&state=" + "A" * 43, 1, "belongs to another sign-in"),
    ("https://evil.example/?code=abc&state={state}", 1, "the address of another page"),
    ("{url}", 1, "the address of another page"),
    ("http://localhost:{port}/?code=abc&state={state}&iss=https%3A%2F%2Fevil.example", 1, "another provider"),
    ("two words", 1, "neither an address nor a code"),
    ("caf\udce9", 1, "not UTF-8"),
    ("\n", 1, "Nobody has signed in yet"),
    ("", 3, f"{ADA} is not signed in yet"),
]


async def test_what_is_no_answer_changes_nothing(site: Site) -> None:
    """One after the other, as none spoils the sign-in for the next."""
    url = await begun(site)
    state = parse_qs(urlsplit(url).query)["state"][0]
    before = site.files()
    for text, code, words in WRONG:
        given = f"{PASSWORD}\n{text.format(port=site.redirect, state=state, url=url)}"
        command = ("authorize", ADA, "--paste", "--password-file", "-")
        shown = await site.run(*command, stdin=given.encode(errors="surrogateescape"))
        assert (shown.code, text) == (code, text)
        assert words in shown.complaints[-1]
        assert "Traceback" not in shown.err
        assert (site.provider.requests, site.files()) == ([], before), text
    assert f"{ADA} is signed in" in (await pasted(site, await returned(url))).out


async def test_the_providers_error_is_told_with_what_to_do(site: Site) -> None:
    state = parse_qs(urlsplit(await begun(site)).query)["state"][0]
    said = "AADSTS65001: The user or administrator has not consented to use the application."
    query = urlencode({"error": "consent_required", "error_description": said, "state": state})
    shown = await pasted(site, f"http://localhost:{site.redirect}/?{query}")
    assert shown.code == 1
    assert f"consent_required ({said})" in shown.complaints[-1]
    assert "administrator" in shown.complaints[-1].split("it says")[0]
    assert "can be tried again" in shown.complaints[-1]


async def test_a_code_that_the_provider_refuses_is_told(site: Site) -> None:
    await begun(site)
    site.provider.next(refusal("invalid_grant", "the code has expired"))
    shown = await pasted(site, "an-old-code")
    assert shown.code == 1
    assert "the code has expired" in shown.complaints[-1]
    assert not [name for name in site.files() if name.startswith("accounts")]


async def test_somebody_else_is_refused(site: Site) -> None:
    site.sections[ADA] = site.person | {"login_hint": ""}
    site.configure()
    site.provider.account = "eve@example.org"
    shown = await pasted(site, await returned(await begun(site)))
    assert shown.code == 3
    assert f"eve@example.org signed in, but this is the sign-in of {ADA}" in shown.complaints[-1]
    assert not [name for name in site.files() if name.startswith("accounts")]


async def test_where_a_redirect_arrived_after_all_enter_will_do(site: Site) -> None:
    given = f"{PASSWORD}\n".encode()
    async with terminal(site, "authorize", ADA, "--paste") as shown:
        await shown.type("New local password: ", PASSWORD)
        await shown.type("Repeat for confirmation: ", PASSWORD)
        await shown.shows(PROMPT)
        async with site.running("authorize", ADA, "--password-file", "-", stdin=given) as beside:
            url = (await beside.printed(r"authenticate account \S+: (\S+)\n"))[1]
            await beside.printed("Waiting")
            assert "succeeded" in await approve(url)
            assert await beside.end() == 0
        await shown.type(PROMPT, "")
        await shown.shows(f"{ADA} is signed in")
        assert await shown.end() == 0


async def test_at_a_terminal_one_may_try_again(site: Site) -> None:
    async with terminal(site, "authorize", ADA, "--paste", env={"SSH_TTY": "/dev/pts/0"}) as shown:
        await shown.type("New local password: ", PASSWORD)
        await shown.type("Repeat for confirmation: ", PASSWORD)
        await shown.shows(PROMPT)
        assert f"In the end the browser is sent to http://localhost:{site.redirect}/" in shown.output
        assert "ssh -L" not in shown.output
        url = shown.output.split(f"authenticate account {ADA}: ")[1].split()[0]
        await shown.type(PROMPT, "http://localhost:1/?code=a")
        await shown.shows("That cannot be used: It is the address of another page.")
        await shown.type(PROMPT, await returned(url))
        await shown.shows(f"{ADA} is signed in as {ADA}.")
        assert await shown.end() == 0
        assert PASSWORD not in shown.output


async def test_ctrl_c_leaves_the_sign_in_pending(site: Site) -> None:
    async with terminal(site, "authorize", ADA, "--paste") as shown:
        await shown.type("New local password: ", PASSWORD)
        await shown.type("Repeat for confirmation: ", PASSWORD)
        await shown.shows(PROMPT)
        assert await shown.interrupted() == 3
        await shown.shows("is not signed in yet")
        assert "Traceback" not in shown.output


async def test_with_no_person_there_is_nothing_to_paste(site: Site) -> None:
    assert (await pasted(site, "", ROBOT)).code == 0
    device = {"oauth2_flow": FlowName.DEVICE.value, "permission_url": f"{site.provider.url}/device"}
    site.configure(**{BOB: site.person | device})
    shown = await pasted(site, "", BOB)
    assert shown.code == 2
    assert "there is nothing to paste" in shown.err
