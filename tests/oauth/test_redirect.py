"""The redirect listener, through a real HTTP client and raw sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from emailproxy.oauth import web
from emailproxy.oauth.waiting import Waiting
from emailproxy.service import new_event_loop
from tests.fakes.provider import refusal, unavailable
from tests.oauth.world import ADA, PASSWORD, Process, Seen, World, browse, until

SUCCESS = f"Email OAuth 2.0 authentication succeeded for {ADA}"


async def begun(world: World, **changes: object) -> tuple[Process, Waiting]:
    world.account(**changes)
    process = await world.process()
    waiting = await process.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    return process, waiting


async def returned(world: World, waiting: Waiting) -> str:
    """Where the provider sends the browser after the approval; nobody has gone there yet."""
    seen = await browse(waiting.url, follow=False)
    assert seen.status == 302
    return seen.headers["Location"]


async def raw(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """The answer to these octets; nothing where the connection is closed or reset without one."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def unchanged(world: World, seen: Seen, status: int) -> None:
    """A readable page, and the consent still waits."""
    assert seen.status == status
    assert "<h1>" in seen.text
    assert world.provider.requests == []
    assert any(name.startswith("pending/") for name in world.files())


async def test_a_person_signs_in_by_the_long_url(world: World) -> None:
    process, waiting = await begun(world)
    seen = await browse(waiting.url)
    assert seen.status == 200
    assert SUCCESS in seen.text
    assert "close this window" in seen.text
    assert await waiting.wait(0)
    world.provider.verify(await process.login())


@pytest.mark.parametrize("redirect_path", ["/", "/cb/"])
async def test_a_person_signs_in_by_the_short_link(world: World, redirect_path: str) -> None:
    uri = f"http://127.0.0.1:{world.port}{redirect_path}"
    _, waiting = await begun(world, redirect_uri=uri)
    assert waiting.link.startswith(f"{uri}c/")
    assert len(waiting.link) < 100
    preview = await browse(waiting.link, follow=False)
    assert (preview.status, preview.headers["Location"]) == (302, waiting.url)
    assert SUCCESS in (await browse(waiting.link)).text  # looking at it did not use it up


async def test_the_url_asks_for_what_the_rfcs_want(world: World) -> None:
    _, waiting = await begun(world)
    query = parse_qs(urlsplit(waiting.url).query)
    assert query.keys() == {
        *("response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge"),
        *("code_challenge_method", "access_type", "login_hint"),
    }
    assert query["code_challenge_method"] == ["S256"]
    assert query["login_hint"] == [ADA]
    assert query["scope"] == ["mail offline_access"]
    assert len(query["state"][0]) == 43


@pytest.mark.parametrize("kept", [True, False], ids=["prefix kept", "prefix stripped"])
async def test_a_reverse_proxy_may_keep_or_strip_the_prefix(world: World, kept: bool) -> None:
    _, waiting = await begun(
        world,
        redirect_uri="https://vault.example/oauth/",
        redirect_listen_address=f"http://127.0.0.1:{world.port}/",
    )
    assert waiting.link.startswith("https://vault.example/oauth/c/")
    inside = f"http://127.0.0.1:{world.port}/" + ("oauth/" if kept else "")
    headers = {"Host": "vault.example"}
    short = await browse(inside + f"c/{waiting.state.reveal()}", follow=False, headers=headers)
    assert short.headers["Location"] == waiting.url
    query = urlsplit(await returned(world, waiting)).query
    for address in (inside.rstrip("/"), inside):
        seen = await browse(f"{address}?{query}&code=twice", headers=headers)
        unchanged(world, seen, 400)
    assert SUCCESS in (await browse(f"{inside}?{query}", headers=headers)).text


# ---- bad inputs 28 to 34


@pytest.mark.parametrize("path", ["/favicon.ico", "/nowhere?code=x&state=y", "/c/short", "/c/", "//evil.example/"])
async def test_unknown_paths_are_not_found(world: World, path: str) -> None:
    _, waiting = await begun(world)
    unchanged(world, await browse(f"http://127.0.0.1:{world.port}{path}"), 404)
    assert SUCCESS in (await browse(waiting.url)).text  # the flow lives


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=x",
        "state={state}",
        "state={state}&code=",
        "state={state}&state={state}&code=x",
        "state={state}&code=x&code=y",
        "state={state}&error=a&error=b",
        "state={state}&code=%0d%0aX",
        "state=&code=x",
        "state=wrong&code=x",
        "state=" + "A" * 43 + "&code=x",
        "state=%00&code=x",
        "state={state}&code=x&iss=https%3A%2F%2Fevil.example",
        "state={state}&code=x&iss=%5B",
    ],
)
async def test_a_callback_that_is_not_one_changes_nothing(world: World, query: str) -> None:
    _, waiting = await begun(world)
    url = f"http://127.0.0.1:{world.port}/?" + query.replace("{state}", waiting.state.reveal())
    unchanged(world, await browse(url), 400)
    assert SUCCESS in (await browse(waiting.url)).text


@pytest.mark.parametrize("path", ["/?{query}", "/c/{state}"])
async def test_a_valid_state_under_a_foreign_host_is_misdirected(world: World, path: str) -> None:
    _, waiting = await begun(world)
    query = urlsplit(await returned(world, waiting)).query
    target = path.format(query=query, state=waiting.state.reveal())
    unchanged(world, await browse(f"http://127.0.0.1:{world.port}{target}", headers={"Host": "evil"}), 421)
    local = f"localhost:{world.port}"
    for request in (
        f"GET http://evil.example{target} HTTP/1.1\r\nHost: {local}\r\n\r\n",  # absolute form
        f"GET http://{local}{target} HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        f"GET {target} HTTP/1.0\r\n\r\n",  # no Host at all
        f"GET {target} HTTP/1.1\r\nHost: evil.example:80\r\n\r\n",
        f"GET {target} HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n",
        f"GET {target} HTTP/1.1\r\nHost: {local}@evil.example\r\n\r\n",
        f"GET {target} HTTP/1.1\r\nHost: [\r\n\r\n",
    ):
        status = (await raw(world.port, request.encode())).split(b" ", 2)[1]
        assert status in (b"421", b"400"), request
    assert world.provider.requests == []
    assert SUCCESS in (await browse(waiting.url)).text


async def test_a_replayed_state_is_no_second_exchange(world: World) -> None:
    _, waiting = await begun(world)
    location = await returned(world, waiting)
    first, second = await asyncio.gather(browse(location), browse(location))
    third = await browse(location)
    assert sorted(seen.status for seen in (first, second, third)) == [200, 400, 400]
    assert len(world.provider.requests) == 1
    assert world.provider.revoked_families == 0


@pytest.mark.parametrize("error", ["access_denied", "<script>alert(1)</script>", "x" * 5000])
async def test_an_error_is_shown_escaped_and_consumes_nothing(
    world: World, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, waiting = await begun(world)
    query = urlencode({"state": waiting.state.reveal(), "error": error, "error_description": "no\r\nway"})
    seen = await browse(f"http://127.0.0.1:{world.port}/?{query}")
    unchanged(world, seen, 400)
    assert "<script>" not in seen.text
    assert len(seen.text) < 3000
    assert "no way" in caplog.messages[-1]
    assert SUCCESS in (await browse(waiting.url)).text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
async def test_other_methods_complete_nothing(world: World, method: str) -> None:
    _, waiting = await begun(world)
    location = await returned(world, waiting)
    seen = await browse(location, method=method)
    assert seen.status == (200 if method == "HEAD" else 405)
    assert not [name for name in seen.headers if name.startswith("Access-Control")]
    assert world.provider.requests == []
    assert SUCCESS in (await browse(location)).text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "evil"])
async def test_another_origin_is_forbidden(world: World, origin: str) -> None:
    _, waiting = await begun(world)
    seen = await browse(await returned(world, waiting), headers={"Origin": origin})
    unchanged(world, seen, 403)
    assert not [name for name in seen.headers if name.startswith("Access-Control")]


async def test_every_page_has_the_strict_headers(world: World) -> None:
    _, waiting = await begun(world)
    base = f"http://127.0.0.1:{world.port}"
    location = await returned(world, waiting)
    pages = [
        *[await browse(base + path, follow=False) for path in ("/", "/x", f"/c/{waiting.state.reveal()}")],
        await browse(base, method="POST"),
        await browse(base, headers={"Host": "evil"}),
        await browse(location),
        await browse(location),
    ]
    assert [seen.status for seen in pages] == [400, 404, 302, 405, 421, 200, 400]
    for seen in pages:
        assert seen.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert seen.headers["Referrer-Policy"] == "no-referrer"
        assert seen.headers["X-Content-Type-Options"] == "nosniff"
        assert seen.headers["Cache-Control"] == "no-store"
        assert seen.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("fault", "status"), [(unavailable(), 502), (refusal("invalid_client", "<b>secret expired</b>"), 400)], ids=repr
)
async def test_a_failed_exchange_is_said_and_the_record_is_as_it_was(world: World, fault: object, status: int) -> None:
    process, waiting = await begun(world)
    await browse(waiting.url)
    before = {name: data for name, data in world.files().items() if name.startswith("accounts/")}
    again = await process.broker.sign_in(ADA, PASSWORD)
    assert again is not None
    world.provider.next(fault)  # type: ignore[arg-type]
    seen = await browse(again.url)
    assert seen.status == status
    assert "<b>" not in seen.text
    after = {name: data for name, data in world.files().items() if name.startswith("accounts/")}
    assert after == before
    third = await process.broker.sign_in(ADA, PASSWORD)
    assert third is not None
    assert third.url != again.url


# ---- listening


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_event_loop], ids=["asyncio", "ours"])
def test_half_a_header_is_closed_and_a_whole_one_waits_for_its_answer(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario() -> None:
        async with World.at(tmp_path / "state") as world:
            world.account()
            process = await world.process(header_s=0.25)
            waiting = await process.broker.sign_in(ADA, PASSWORD)
            assert waiting is not None
            halves = [raw(world.port, b"GET / HTTP/1.1\r\nHost: local"), raw(world.port, b"")]
            assert await asyncio.gather(*halves) == [b"", b""]
            async with process.records.locked(ADA):  # the exchange waits for the account
                exchange = asyncio.create_task(browse(waiting.url))
                assert await raw(world.port, b"") == b""  # closed when its 0.25 s were over
                done, _ = await asyncio.wait({exchange}, timeout=0.1)
                assert not done
            assert SUCCESS in (await exchange).text

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /?code=" + b"A" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n" + b"b" * 99_999,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"canary-code \r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda line: repr(line[:20]),
)
async def test_what_is_no_request_is_closed_and_not_logged(
    world: World, request_line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await begun(world)
    answer = await raw(world.port, request_line)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert "canary-code" not in caplog.text
    assert "A" * 20 not in caplog.text  # four of them may stand in a state


async def test_idle_connections_keep_no_browser_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    process, waiting = await begun(world)
    idle = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(2)]
    async with process.records.locked(ADA):
        tab = asyncio.create_task(browse(waiting.url))  # its exchange waits for the account
        await until(lambda: len(process.consents._finishing._tasks) == 1)
        assert await idle[0][0].read() == b""  # the oldest made room
        assert (await raw(world.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert await idle[1][0].read() == b""
    assert SUCCESS in (await tab).text
    for _, writer in idle:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_only_connections_that_wait_for_answers_are_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 1)
    process, waiting = await begun(world)
    async with process.records.locked(ADA):
        tab = asyncio.create_task(browse(waiting.url))
        await until(lambda: len(process.consents._finishing._tasks) == 1)
        assert await raw(world.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    assert SUCCESS in (await tab).text


async def test_a_fault_of_the_state_folder_is_told_to_the_log_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    _, waiting = await begun(world)
    location = await returned(world, waiting)
    (world.folder / "pending").chmod(0o755)
    seen = await browse(location)
    assert seen.status == 500
    assert str(world.folder) not in seen.text
    assert "chmod 700" in caplog.messages[-1]
    (world.folder / "pending").chmod(0o700)
    assert SUCCESS in (await browse(location)).text
