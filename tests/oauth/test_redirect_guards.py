"""Who may speak with the redirect listener: not names that lead elsewhere, nor other pages in the same browser."""

from __future__ import annotations

import hmac

import pytest

from emailproxy.oauth import consent
from emailproxy.store import sealing
from tests.oauth.test_redirect import SUCCESS, begun, raw, returned
from tests.oauth.world import World, browse


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def sent(world: World, target: str, *headers: str) -> int:
    """The status of a GET with just these headers; `{port}` in them is the listener's."""
    lines = [f"GET {target} HTTP/1.1", *headers, "", ""]
    return status_of(await raw(world.port, "\r\n".join(lines).replace("{port}", str(world.port)).encode()))


# ---- names


OURS = [
    "127.0.0.1:{port}",
    "127.0.0.1",
    "127.9.9.9:1",
    "localhost:{port}",
    "LOCALHOST",
    "localhost.:80",
    "mail.localhost:{port}",
    "[::1]:{port}",
    "[::1]",
]
THEIRS = [
    "",
    "evil.example",
    "evil.example:{port}",
    "localhost.evil.example:{port}",
    "127.0.0.1.nip.example",
    "127.1:{port}",
    "2130706433",
    "0x7f000001",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "[2001:db8::1]:{port}",
    "[::1].evil.example",
    "localhost@evil.example",
    "evil.example#localhost",
    "localhost, evil.example",
]


@pytest.mark.parametrize("host", OURS)
async def test_loopback_names_with_any_port_are_ours(world: World, host: str) -> None:
    """A tunnel and a container have ports of their own."""
    _, waiting = await begun(world)
    assert await sent(world, f"/c/{waiting.state.reveal()}", f"Host: {host}") == 302


@pytest.mark.parametrize("host", THEIRS)
async def test_names_that_somebody_else_may_have_made_lead_here_are_not(world: World, host: str) -> None:
    _, waiting = await begun(world)
    location = await returned(world, waiting)
    target = location.removeprefix(f"http://127.0.0.1:{world.port}")
    for path in (f"/c/{waiting.state.reveal()}", target, "/"):
        assert await sent(world, path, f"Host: {host}") in (400, 421)
        if host:
            assert await sent(world, path, "Host: 127.0.0.1:{port}", f"Host: {host}") in (400, 421)
            assert await sent(world, f"http://{host}{path}", "Host: 127.0.0.1:{port}") in (400, 421)
    assert world.provider.requests == []
    assert SUCCESS in (await browse(location)).text


async def test_an_absolute_target_of_ours_will_do(world: World) -> None:
    _, waiting = await begun(world)
    for place in ("http://127.0.0.1:{port}", "http://localhost", "http://[::1]:{port}"):
        target = f"{place}/c/{waiting.state.reveal()}"
        assert await sent(world, target, "Host: 127.0.0.1:{port}") == 302


# ---- other pages


ELSEWHERE = [
    ("null",),
    ("http://evil.example",),
    ("http://127.0.0.1:1",),
    ("http://localhost:{port}",),
    ("http://127.0.0.1:{port}", "http://evil.example"),
    ("http://[",),
    ("127.0.0.1:{port}",),
    ("",),
]


@pytest.mark.parametrize("origins", ELSEWHERE)
async def test_other_origins_are_forbidden_those_of_this_host_too(world: World, origins: tuple[str, ...]) -> None:
    _, waiting = await begun(world)
    location = await returned(world, waiting)
    target = location.removeprefix(f"http://127.0.0.1:{world.port}")
    headers = [f"Origin: {origin}" for origin in origins]
    for path in (f"/c/{waiting.state.reveal()}", target):
        assert await sent(world, path, "Host: 127.0.0.1:{port}", *headers) == 403
    assert world.provider.requests == []
    assert SUCCESS in (await browse(location, headers={"Origin": f"http://127.0.0.1:{world.port}"})).text


EMBEDDED = [
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object"},
    {"Sec-Fetch-Mode": "same-origin"},
    {"Sec-Fetch-Dest": "script"},
]


@pytest.mark.parametrize("headers", EMBEDDED, ids=str)
async def test_what_is_no_page_that_a_person_goes_to_is_forbidden(world: World, headers: dict[str, str]) -> None:
    _, waiting = await begun(world)
    location = await returned(world, waiting)
    for address in (location, waiting.link):
        seen = await browse(address, headers={"Sec-Fetch-Site": "cross-site", **headers}, follow=False)
        assert seen.status == 403
        assert not [name for name in seen.headers if name.startswith("Access-Control")]
        assert seen.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert world.provider.requests == []
    navigation = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert SUCCESS in (await browse(location, headers={**navigation, "Sec-Fetch-User": "?1"})).text


async def test_pages_allow_their_own_style_and_nothing_else(world: World) -> None:
    await begun(world)
    seen = await browse(f"http://127.0.0.1:{world.port}/")
    policy = seen.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


# ---- the state


async def test_a_state_is_compared_in_constant_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, real = [], hmac.compare_digest

    def watched(mine: str, theirs: str) -> bool:
        compared.append((mine, theirs))
        return real(mine, theirs)

    _, waiting = await begun(world)
    location = await returned(world, waiting)
    monkeypatch.setattr(consent.hmac, "compare_digest", watched)
    assert (await browse(location)).status == 200
    assert (sealing.state_hash(waiting.state),) * 2 in compared
    assert (await browse(location)).status == 400
    assert len(world.provider.requests) == 1
