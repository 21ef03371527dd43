"""What a hostile, broken or careless provider, file or environment may not do to anybody else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from emailproxy.check.endpoints import ask
from emailproxy.check.finding import Grade
from emailproxy.config.model import Account, FlowName, ProviderName
from emailproxy.config.sources import FromEnvironment, FromFile
from emailproxy.demo.certificates import Authority
from emailproxy.errors import AccountUnusable, LoginRefused, ProviderRefused, ProviderUnavailable
from emailproxy.oauth.blocking import THREADS, Blocking
from emailproxy.oauth.certificate import certificate_of
from emailproxy.oauth.clientauth import authentication
from emailproxy.oauth.commands import Commands
from emailproxy.oauth.flows import Flows
from emailproxy.oauth.http import Form
from emailproxy.oauth.replies import refused
from emailproxy.oauth.rounds import MAX_ROUNDS, rounds_in, rounds_in_pem
from emailproxy.oauth.secrets import Secrets
from emailproxy.oauth.sessions import HttpSessions
from emailproxy.secret import Secret
from tests.oauth.certificates import made, written
from tests.oauth.test_blocking import SOON_S, Answer, get, hanging, serving

NOT_ON_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither FIFOs nor octets in variables")
FEW, MANY = bytes.fromhex("0203011170"), bytes.fromhex("02037fffff")  # INTEGER 70,000 and 8,388,607


# ---- a provider that never ends its reply


async def head_that_trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(SOON_S / 10)


async def nothing_but_promises(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(SOON_S / 10)


@pytest.mark.parametrize("answer", [head_that_trickles, nothing_but_promises])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_no_reply_holds_a_thread_beyond_its_time(
    tmp_path: Path, answer: Answer, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emailproxy.oauth.blocking.BEYOND_S", 60.0)  # it is not the caller who gives up
    authority = Authority.create(tmp_path)
    blocking = Blocking(ca_file=authority.certificate_file)
    begun_s = time.monotonic()
    async with serving(answer, authority.issue("127.0.0.1").server_context() if encrypted else None) as url:
        with pytest.raises(ProviderUnavailable, match="did not answer in time"):
            await blocking.run(get(blocking, url), left_s=SOON_S)
        await blocking.run(int)  # the thread is free
    assert time.monotonic() - begun_s < 30
    blocking.close()


async def test_what_heeds_no_time_limit_is_not_waited_for() -> None:
    """As looking up a name does."""
    blocking, gate = Blocking(), threading.Event()
    with pytest.raises(ProviderUnavailable, match="did not answer in time"):
        await blocking.run(lambda: gate.wait(30), left_s=0.01)
    assert not gate.is_set()
    gate.set()
    blocking.close()


async def test_an_error_of_the_work_itself_stays_what_it_is() -> None:
    def late() -> None:
        raise TimeoutError("its own")

    blocking = Blocking()
    with pytest.raises(TimeoutError, match="its own"):
        await blocking.run(late)
    blocking.close()


async def test_a_dead_provider_holds_up_nobody_at_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    authority = Authority.create(tmp_path)
    commands = Commands()
    flows = Flows(Secrets(commands), commands, ca_file=authority.certificate_file)
    async with serving(hanging(), authority.issue("127.0.0.1").server_context()) as url:
        microsoft = Account(
            name="a@example.org",
            section="a@example.org",
            flow=FlowName.CLIENT_CREDENTIALS,
            provider=ProviderName.MICROSOFT,
            token_url=f"{url.removesuffix('/token')}/tenant/oauth2/v2.0/token",
            client_id="client",
            client_secret=Secret("canary"),
            scope="https://outlook.office365.com/.default",
        )
        google = replace(microsoft, flow=FlowName.SERVICE_ACCOUNT, provider=ProviderName.GOOGLE, client_secret=None)
        dead = [asyncio.create_task(flows(microsoft).acquire(microsoft, None)) for _ in range(THREADS + 2)]
        while len(url.heads) < THREADS:
            await asyncio.sleep(0.001)
        with pytest.raises(AccountUnusable, match=r"missing\.json"):
            await asyncio.wait_for(flows(google).acquire(google, None), 10)
        for task in dead:
            task.cancel()
        await asyncio.gather(*dead, return_exceptions=True)
        await flows.close()


# ---- secrets in words and representations


@pytest.mark.parametrize("echo", ["p+w/d=x y%", "p%2Bw%2Fd%3Dx+y%25", "p%2Bw%2Fd%3Dx%20y%25"])
def test_a_secret_is_not_quoted_as_the_form_had_it_either(echo: str) -> None:
    said = str(refused("login.example", "invalid_request", f"what is password={echo}?", [Secret("p+w/d=x y%")]))
    assert "password=***?" in said


def test_a_secret_is_not_quoted_as_the_error_code() -> None:
    error = refused("login.example", "canary-secret", "no", [Secret("canary-secret")])
    assert isinstance(error, ProviderRefused)
    assert "canary" not in str(error) + error.code


async def test_requests_do_not_show_their_secrets() -> None:
    account = Account(
        name="a",
        section="a",
        flow=FlowName.CLIENT_CREDENTIALS,
        token_url="https://login.example/token",
        client_secret=Secret("canary"),
    )
    proof = await authentication(account, Secrets(Commands()), 0)
    assert proof.parameters == {"client_secret": "canary"}
    assert "canary" not in repr(proof) + repr(Form("client_secret=canary", ()))


@NOT_ON_WINDOWS
async def test_octets_that_are_no_text_are_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_SECRET", os.fsdecode(b"canary\xff"))
    with pytest.raises(AccountUnusable, match="env:HOSTILE_SECRET, which is not UTF-8 text") as caught:
        await Secrets(Commands()).read(FromEnvironment("HOSTILE_SECRET"), owner="a", key="client_secret")
    assert "canary" not in str(caught.value)


# ---- files that would never end


@NOT_ON_WINDOWS
async def test_a_token_file_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    key_file = tmp_path / "pool.json"
    key_file.write_text(
        json.dumps(
            {
                "type": "external_account",
                "audience": "//iam.googleapis.com/pool",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": "https://sts.googleapis.com/v1/token",
                "credential_source": {"file": str(tmp_path / "fifo")},
            }
        )
    )
    account = Account(
        name="a@example.org",
        section="a@example.org",
        flow=FlowName.SERVICE_ACCOUNT,
        provider=ProviderName.GOOGLE,
        client_id="file",
        client_secret=FromFile(key_file),
        service_account_email="mail@project.iam.gserviceaccount.com",
    )
    commands = Commands()
    flows = Flows(Secrets(commands), commands, ca_file=None)
    with pytest.raises(LoginRefused, match=r"fifo, which is no file"):
        await asyncio.wait_for(flows(account).acquire(account, None), 10)
    await flows.close()


def account_with(folder: Path, content: bytes, key: bytes | None = None) -> Account:
    settings = written(folder, made())
    settings["certificate"].write_bytes(content)
    if key is not None:
        settings["certificate_key"].write_bytes(key)
    return Account(
        name="a",
        section="a",
        flow=FlowName.CLIENT_CREDENTIALS,
        token_url="https://login.example/token",
        key_passphrase=Secret("canary"),
        **settings,
    )


def pfx_of_70_000_rounds() -> bytes:
    how = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(70_000)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(b"canary")
    )
    pair = made()
    return pkcs12.serialize_key_and_certificates(None, pair.key, pair.certificate, None, how)


async def test_a_pfx_that_would_be_hashed_for_ever_is_refused(tmp_path: Path) -> None:
    pfx = pfx_of_70_000_rounds()
    assert rounds_in(pfx) == 70_000
    assert (await certificate_of(account_with(tmp_path, pfx), Secrets(Commands()))).x5t
    assert pfx.count(FEW) >= 2  # those of the key or the certificate, and those of the MAC
    for at in (pfx.index(FEW), pfx.rindex(FEW)):
        bomb = pfx[:at] + MANY + pfx[at + len(FEW) :]
        with pytest.raises(AccountUnusable, match=f"hashed 8388607 times, .*, {MAX_ROUNDS} at most"):
            await certificate_of(account_with(tmp_path, bomb), Secrets(Commands()))


async def test_a_pem_key_that_would_be_hashed_for_ever_is_refused(tmp_path: Path) -> None:
    der = bytes.fromhex("301b06092a864886f70d01050c300e0408") + b"saltsalt" + MANY
    pem = (
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    with pytest.raises(AccountUnusable, match=r"jwt_key_path .* hashed 8388607 times"):
        await certificate_of(account_with(tmp_path, made().certificate_pem, pem), Secrets(Commands()))


def test_rounds_are_sought_in_anything() -> None:
    usual = made().key_pem("canary")
    assert 0 < rounds_in_pem(usual) <= 1_000_000
    assert rounds_in_pem(made().key_pem()) == 0
    assert rounds_in_pem(b"-----BEGIN X-----\n=\n-----END X-----") == 0
    pfx = made().pfx("canary")
    for end in range(len(pfx)):
        assert rounds_in(pfx[:end]) <= 1_000_000
    assert rounds_in(b"\x04\x82" * 30_000) == 0
    indefinite = b"\x30\x80\x30\x80\x04\x01s" + MANY + bytes(4)
    assert rounds_in(indefinite) == 8_388_607


async def test_a_certificate_is_loaded_anew_only_where_it_changed(tmp_path: Path) -> None:
    account, secrets = account_with(tmp_path, made().certificate_pem), Secrets(Commands())
    first = await certificate_of(account, secrets)
    assert await certificate_of(account, secrets) is first
    written(tmp_path, made("another"))
    assert (await certificate_of(account, secrets)).sha256 != first.sha256


# ---- what `check` makes of a slow endpoint


async def test_an_answer_in_pieces_is_read_whole() -> None:
    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"error": "invalid_request"}'
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body))
        for octet in body:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.001)

    async with serving(in_pieces) as url:
        sessions = HttpSessions()
        finding = await ask(sessions, url, "token_url of a")
        await sessions.close()
    assert finding.grade is Grade.OK, finding.text
