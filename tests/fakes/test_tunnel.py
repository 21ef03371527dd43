"""The tunnel leads where it is told to, for both libraries that use it, and nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
import requests

from emailproxy.demo.certificates import Authority
from tests.fakes.google import TOKEN_HOST, FakeGoogle
from tests.fakes.tunnel import tunnel


async def test_a_name_leads_to_a_local_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.create(tmp_path)
    url = f"https://{TOKEN_HOST}/nothing"
    async with FakeGoogle(authority) as google, tunnel(google.targets) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.get(url, ssl=authority.client_context()) as reply,
        ):
            assert reply.status == 404
        blocking = await asyncio.to_thread(requests.get, url, verify=str(authority.certificate_file), timeout=10)
        assert blocking.status_code == 404
        blocking.close()
        with pytest.raises(requests.exceptions.ProxyError, match="502"):
            await asyncio.to_thread(requests.get, "https://elsewhere.test/", timeout=10)
    assert proxy.asked == [(TOKEN_HOST, 443), (TOKEN_HOST, 443), ("elsewhere.test", 443)]
    assert [asked.path for asked in google.asked] == ["/nothing", "/nothing"]


async def test_it_knows_nothing_but_connect() -> None:
    async with tunnel({}) as proxy:
        port = int(proxy.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET http://elsewhere.test/ HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
        writer.close()
    assert proxy.asked == []
