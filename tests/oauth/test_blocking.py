"""The threads for blocking libraries, and what their session does with trust, time, size and redirects."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.errors import ProviderUnavailable
from emailproxy.oauth.blocking import JOB_S, THREADS, Blocking
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.replies import Unreadable
from tests.e2e.harness.ports import refusing
from tests.fakes.tunnel import tunnel

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SOON_S = 0.3
"""The time limit of jobs whose provider does not answer."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path)


@pytest.fixture
def blocking(authority: Authority) -> Iterator[Blocking]:
    pool = Blocking(ca_file=authority.certificate_file)
    yield pool
    pool.close()


class Server(str):
    """Its URL, and what arrived."""

    heads: list[bytes]


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that reads one request's head, and then does as told."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(reader, writer)
        writer.close()

    # A client that keeps an idle connection answers no close_notify.
    hurry_s = SOON_S if tls else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, ssl_shutdown_timeout=hurry_s)
    url = Server(f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/token")
    url.heads = heads
    yield url
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    while getattr(server, "_active_count", 0):  # handshakes that fail; Python 3.11's wait_closed does not wait
        await asyncio.sleep(0.001)
    await server.wait_closed()


def saying(*parts: str | bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part.encode() if isinstance(part, str) else part)
        await writer.drain()

    return answer


OK = saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def hanging(*parts: str) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(*parts)(reader, writer)
        await asyncio.Event().wait()

    return answer


async def trickling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(SOON_S / 10)


def get(blocking: Blocking, url: str) -> Callable[[], str]:
    return lambda: blocking.session().get(url, timeout=3600, verify=False).text


# ---- the threads


async def test_work_runs_in_a_thread_and_its_error_is_the_callers(blocking: Blocking) -> None:
    assert (await blocking.run(threading.current_thread)).name == "provider-0"
    with pytest.raises(ZeroDivisionError):
        await blocking.run(lambda: 1 / 0)


async def test_callers_that_leave_break_nothing_and_what_they_queued_is_not_done(blocking: Blocking) -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)
    done: list[int] = []
    others = set(threading.enumerate())  # what hung at a provider may end only now

    def held() -> None:
        begun.release()
        gate.wait()

    busy = [asyncio.create_task(blocking.run(held)) for _ in range(THREADS)]
    for _ in busy:
        await asyncio.to_thread(begun.acquire)
    queued = asyncio.create_task(blocking.run(lambda: done.append(1)))
    kept = asyncio.create_task(blocking.run(lambda: done.append(2)))
    await asyncio.sleep(0)
    for task in (*busy, queued):
        task.cancel()
    await asyncio.gather(*busy, queued, return_exceptions=True)
    gate.set()
    await kept
    assert done == [2]
    ours = set(threading.enumerate()) - others
    assert sum(thread.name.startswith("provider-") for thread in ours) == THREADS


async def test_waiting_for_a_thread_counts(blocking: Blocking) -> None:
    gate = threading.Event()
    busy = [asyncio.create_task(blocking.run(gate.wait)) for _ in range(THREADS)]
    late = asyncio.create_task(blocking.run(lambda: None, left_s=0))
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(ProviderUnavailable, match="did not answer in time"):
        await late
    await asyncio.gather(*busy)


async def test_closing_waits_for_no_provider(authority: Authority) -> None:
    blocking = Blocking(ca_file=authority.certificate_file)
    async with serving(hanging()) as url:
        waiting = asyncio.create_task(blocking.run(get(blocking, url)))
        while not url.heads:
            await asyncio.sleep(0.001)
        begun_s = time.monotonic()
        blocking.close()
        assert time.monotonic() - begun_s < JOB_S / 2
        with pytest.raises(Refrain, match="stopping"):
            await blocking.run(lambda: None)
    with pytest.raises(ProviderUnavailable):
        await waiting


async def test_closed_threads_end(authority: Authority) -> None:
    blocking = Blocking(ca_file=authority.certificate_file)
    thread = await blocking.run(threading.current_thread)
    blocking.close()
    assert not thread.is_alive()


def test_a_process_ends_though_a_provider_hangs() -> None:
    program = """
import asyncio, threading
from emailproxy.oauth.blocking import Blocking
async def main():
    blocking = Blocking()
    asyncio.create_task(blocking.run(threading.Event().wait))
    await blocking.run(int)
    blocking.close()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# ---- the session

UNANSWERED: dict[str, tuple[Answer, str, type[ProviderUnavailable]]] = {
    "silence": (hanging(), "did not answer in time", ProviderUnavailable),
    "half a head": (hanging("HTTP/1.1 200 OK\r\nContent-"), "did not answer in time", ProviderUnavailable),
    "half a body": (
        hanging("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"),
        "did not answer in time",
        ProviderUnavailable,
    ),
    "a body that trickles": (trickling, "did not answer in time", ProviderUnavailable),
    "a closed connection": (saying(), "cannot be reached", ProviderUnavailable),
    "no HTTP": (saying("* OK IMAP4rev1\r\n"), "cannot be reached", ProviderUnavailable),
    "a body that ends early": (
        saying("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"),
        "cannot be reached",
        ProviderUnavailable,
    ),
    "more than 64 KiB": (
        hanging(f"HTTP/1.1 200 OK\r\nContent-Length: {10 << 20}\r\n\r\n", " " * ((64 << 10) + 1)),
        "sent more than 64 KiB (HTTP 200)",
        Unreadable,
    ),
    "503": (
        saying("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
        "busy or down (HTTP 503)",
        ProviderUnavailable,
    ),
}


@pytest.mark.parametrize("name", UNANSWERED)
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_request_without_a_reply_says_why(
    blocking: Blocking, authority: Authority, name: str, encrypted: bool
) -> None:
    answer, said, kind = UNANSWERED[name]
    begun_s = time.monotonic()
    tls = authority.issue("127.0.0.1").server_context() if encrypted else None
    async with serving(answer, tls) as url:
        with pytest.raises(ProviderUnavailable) as caught:
            await blocking.run(get(blocking, url), left_s=SOON_S if "in time" in said else 30)
    assert said in str(caught.value)
    assert url.split("/")[2] in str(caught.value)
    assert type(caught.value) is kind
    assert time.monotonic() - begun_s < 10


async def test_a_port_where_nobody_listens_is_no_timeout(blocking: Blocking) -> None:
    with (
        refusing() as port,
        pytest.raises(ProviderUnavailable, match=r"cannot be reached \(Connection refused\)"),
    ):
        await blocking.run(get(blocking, f"http://127.0.0.1:{port}/token"))


async def test_retry_after_is_handed_on(blocking: Blocking) -> None:
    async with serving(saying("HTTP/1.1 429 Slow\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n")) as url:
        with pytest.raises(ProviderUnavailable) as caught:
            await blocking.run(get(blocking, url))
    assert caught.value.retry_after_s == 17


async def test_no_redirect_is_followed(blocking: Blocking) -> None:
    async with serving(OK) as elsewhere:
        moved = saying(f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere}\r\nContent-Length: 2\r\n\r\nno")
        async with serving(moved) as url:
            session = await blocking.run(blocking.session)
            response = await blocking.run(lambda: session.post(url, data={"secret": "canary"}, allow_redirects=True))
            answer = await blocking.run(lambda: session.answer)
    assert (response.status_code, response.text, elsewhere.heads) == (307, "no", [])
    assert answer is None or answer.status == 307  # another thread's own


async def test_a_job_that_outlives_its_time_sends_no_further_request(blocking: Blocking) -> None:
    async with serving(OK) as url:

        def slow() -> None:
            with suppress(OSError):
                get(blocking, hanging_url)()
            get(blocking, url)()

        async with serving(hanging()) as hanging_url:
            with pytest.raises(ProviderUnavailable, match="did not answer in time"):
                await blocking.run(slow, left_s=SOON_S)
    assert url.heads == []


# ---- whom it trusts


def tls_server(authority: Authority, name: str = "127.0.0.1") -> AbstractAsyncContextManager[Server]:
    return serving(OK, authority.issue(name).server_context())


async def test_only_the_ca_file_counts(
    tmp_path: Path, blocking: Blocking, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority.create(tmp_path / "other", "another authority")
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(other.certificate_file))
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(other.certificate_file))  # certifi's
    async with tls_server(authority) as ours, tls_server(other) as theirs, tls_server(authority, "a.example") as named:
        assert await blocking.run(get(blocking, ours)) == "{}"
        for url in (theirs, named):
            with pytest.raises(ProviderUnavailable, match=r"cannot be trusted: .*; check token_url, the clock and"):
                await blocking.run(get(blocking, url))
            assert url.heads == []


async def test_without_one_the_systems_store_counts(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_file))  # OpenSSL's own way to name it
    blocking = Blocking()
    try:
        async with tls_server(authority) as url:
            assert await blocking.run(get(blocking, url)) == "{}"
    finally:
        blocking.close()


async def test_a_ca_file_without_certificates_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    blocking = Blocking(ca_file=tmp_path / "empty.pem")
    with pytest.raises(Refrain, match=r"ca_file .*empty\.pem cannot be used"):
        await blocking.run(blocking.session)
    blocking.close()


# ---- what of the environment it heeds


async def test_the_environments_proxy_is_asked_but_not_for_what_is_local(
    blocking: Blocking, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_server(authority, "login.example") as url, serving(OK) as local:
        port = int(url.rsplit(":")[-1].split("/")[0])
        async with tunnel({("login.example", 443): port}) as proxy:
            for variable in ("https_proxy", "http_proxy", "all_proxy"):
                monkeypatch.setenv(variable, proxy)
            assert await blocking.run(get(blocking, "https://login.example/token")) == "{}"
            assert await blocking.run(get(blocking, local)) == "{}"
            with pytest.raises(ProviderUnavailable, match=r"at elsewhere\.example cannot be reached"):
                await blocking.run(get(blocking, "https://elsewhere.example/"))
        assert proxy.asked == [("login.example", 443), ("elsewhere.example", 443)]


async def test_it_takes_no_password_from_netrc_and_keeps_no_cookie(
    blocking: Blocking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login canary password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    reply = "HTTP/1.1 200 OK\r\nSet-Cookie: canary=1\r\nContent-Length: 2\r\n\r\n{}"
    async with serving(saying(reply)) as url:
        await blocking.run(get(blocking, url))
        await blocking.run(get(blocking, url))
        assert len(url.heads) == 2
        for head in url.heads:
            assert b"authorization" not in head.lower()
            assert b"cookie" not in head.lower()
            assert b"accept-encoding: identity" in head.lower()


async def test_a_session_is_made_when_it_is_needed() -> None:
    """Start-up stays quick: requests is half of msal's and google-auth's import time."""
    program = "import sys, emailproxy.oauth.blocking; print('requests' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"
