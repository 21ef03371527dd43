"""A `ca_file` that is rewritten in place: what it says counts from the next reload on, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from emailproxy.demo.certificates import Authority
from emailproxy.errors import ServiceError
from emailproxy.net import tls
from tests.net.stubs import LOGIN, Proxy, proxy_to, upstream_server
from tests.net.test_prewarm import Bank, happen, pool, stand
from tests.net.test_resuming import Server


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    (tmp_path / "other").mkdir()
    return Authority.create(tmp_path / "other")


@pytest.fixture
def ca_file(tmp_path: Path, authority: Authority) -> Path:
    path = tmp_path / "rewritten.pem"
    path.write_bytes(authority.certificate_file.read_bytes())
    return path


def reload(ca_file: Path) -> None:
    tls.trust(tls.changed([ca_file]))


async def log_in(proxy: Proxy) -> bytes:
    """The reply."""
    reader, writer = await proxy.connect()
    await reader.readline()
    writer.write(LOGIN)
    reply = await reader.readline()
    writer.close()
    return reply


async def test_the_new_authority_counts_and_the_old_one_no_longer(
    authority: Authority, other: Authority, ca_file: Path
) -> None:
    """Not even for a server that would resume a session of before."""
    context = authority.issue("localhost").server_context()
    async with Server(context).running() as server, proxy_to(server.port, ca_file) as proxy:
        for _ in range(2):
            assert b"OK" in await log_in(proxy)
        ca_file.write_bytes(other.certificate_file.read_bytes())
        assert b"OK" in await log_in(proxy)  # as it was: a file that is half written must harm nobody
        reload(ca_file)
        assert b"the certificate of localhost is not valid" in await log_in(proxy)
        assert server.resumed == [False, True, True]
        renewed = other.issue("localhost")
        context.load_cert_chain(renewed.certificate_file, renewed.key_file)
        for _ in range(2):
            assert b"OK" in await log_in(proxy)
        reload(ca_file)  # nothing has changed: nothing is forgotten
        assert b"OK" in await log_in(proxy)
        assert server.resumed == [False, True, True, False, True, True]


async def test_no_login_gets_a_connection_that_stood_before(
    authority: Authority, other: Authority, ca_file: Path
) -> None:
    bank = Bank()
    async with (
        upstream_server(bank, authority.issue("localhost").server_context()) as port,
        proxy_to(port, ca_file, prewarm=1) as proxy,
    ):
        await stand(proxy, 1)
        ca_file.write_bytes(other.certificate_file.read_bytes())
        reload(ca_file)
        assert pool(proxy).take() is None
        await happen(bank, standing=0)


def test_a_file_that_holds_no_certificate_any_more_changes_nothing(ca_file: Path) -> None:
    before = tls.client_context(ca_file)
    ca_file.write_text("half")
    with pytest.raises(ServiceError, match=r"rewritten\.pem cannot be used"):
        reload(ca_file)
    assert tls.client_context(ca_file) is before
