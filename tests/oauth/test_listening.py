"""Where the redirect listener listens, beside other accounts and other processes."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from emailproxy.oauth.redirect import listener
from tests.e2e.harness.ports import free_ports
from tests.oauth.test_redirect import SUCCESS, begun, raw
from tests.oauth.world import ADA, PASSWORD, World, browse


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this host has no ::1")
async def test_localhost_means_both_loopbacks(world: World) -> None:
    _, waiting = await begun(world, redirect_uri=f"http://localhost:{world.port}/")
    request = b"GET / HTTP/1.1\r\nHost: [::1]:1\r\n\r\n"
    assert (await raw(world.port, request, "::1")).startswith(b"HTTP/1.1 400")
    assert SUCCESS in (await browse(waiting.url)).text


async def test_two_accounts_share_one_address(world: World) -> None:
    process, first = await begun(world)
    world.account("bob@example.org")
    second = await process.broker.sign_in("bob@example.org", PASSWORD)
    assert second is not None
    assert "for bob@example.org" in (await browse(second.url)).text
    assert SUCCESS in (await browse(first.url)).text


async def test_an_address_in_use_is_another_process_that_completes_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await begun(world)
    other = await world.process()
    login = asyncio.create_task(other.login())
    waiting = await other.broker.sign_in(ADA, PASSWORD)
    assert waiting is not None
    assert SUCCESS in (await browse(waiting.url)).text  # the first process answered
    world.provider.verify(await login)
    assert sum("in use" in message for message in caplog.messages) == 1


def test_of_two_processes_that_bind_at_once_one_has_the_address() -> None:
    (port,) = free_ports(1)
    with listener("127.0.0.1", port), pytest.raises(OSError, match="in use"):
        listener("127.0.0.1", port)


async def test_an_address_is_looked_up_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    process, _ = await begun(world)

    async def black_hole(_address: str) -> list[tuple[str, int]]:
        raise AssertionError("looked up again")

    monkeypatch.setattr("emailproxy.oauth.redirect.addresses", black_hole)
    await process.listener.ensure(world.accounts[ADA])


async def test_an_address_that_is_not_ours_is_only_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await begun(world, redirect_listen_address="192.0.2.1:80")
    assert "redirect_listen_address" in caplog.text


def test_aiohttp_is_imported_only_when_a_listener_or_a_provider_is_needed() -> None:
    program = "import sys, emailproxy.oauth.broker, emailproxy.oauth.generic, emailproxy.oauth.redirect;"
    program += "print(sorted({'aiohttp', 'msal', 'google.auth'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
