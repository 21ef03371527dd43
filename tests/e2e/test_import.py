"""What other programs wrote is imported by the real command, and served: nobody signs in again."""

from __future__ import annotations

import asyncio
import imaplib
import json
from pathlib import Path

import pytest

from emailproxy.demo.ledger import Family
from tests.e2e.harness import otherproxy
from tests.e2e.harness.proxy import emailproxy
from tests.e2e.harness.world import (
    CLIENT_ID,
    CLIENT_SECRET,
    PASSWORD,
    SCOPE,
    USER,
    World,
    imap_login,
    pop_login,
    smtp_login,
    write_config,
)

BOB, CAROL, DAVE, EVE = "bob@example.com", "carol@example.com", "dave@example.com", "eve@example.com"
CHOSEN = "the password that the imported tokens come under"
ENDED = "2020-01-01 00:00 UTC"


def granted(world: World, account: str) -> str:
    """A refresh token that the provider gave to the other program once."""
    return world.provider._ledger.new_refresh_token(Family(CLIENT_ID, account, SCOPE))


def token_files(world: World) -> list[Path]:
    """As mutt_oauth2, oama and sasl-xoauth2 keep tokens, and pizauth's and their own configurations."""
    provider, client = world.provider, {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    endpoints = {"authorize_endpoint": provider.permission_url, "token_endpoint": provider.token_url}
    mutt = {
        "registration": {**endpoints, "redirect_uri": world.redirect_uri, "scope": SCOPE},
        "authflow": "localhostauthcode",
        "email": BOB,
        "access_token": "ended",
        "access_token_expiration": "2020-01-01T00:00:00",
        "refresh_token": granted(world, BOB),
        **client,
    }
    oama = {
        "email": CAROL,
        "service": "ours",
        "access_token": "ended",
        "exp_date": ENDED,
        "refresh_token": granted(world, CAROL),
    }
    services = {
        "auth_endpoint": provider.permission_url,
        "token_endpoint": provider.token_url,
        "auth_scope": SCOPE,
        "redirect_uri": world.redirect_uri,
        **client,
    }
    sasl = {
        "user": DAVE,
        "access_token": "ended",
        "expiry": "0",
        "refresh_token": granted(world, DAVE),
        "token_endpoint": provider.token_url,
        "scope": SCOPE,
        **client,
    }
    pizauth = (
        f'account "ours" {{ auth_uri = "{provider.permission_url}"; token_uri = "{provider.token_url}";\n'
        f'  client_id = "{CLIENT_ID}"; client_secret = "{CLIENT_SECRET}"; redirect_uri = "{world.redirect_uri}";\n'
        f'  scopes = ["{SCOPE.replace(" ", chr(34) + ", " + chr(34))}"]; login_hint = "{EVE}"; }}\n'
    )
    texts = {
        "bob.tokens": json.dumps(mutt),
        "carol.oama": json.dumps(oama),
        "config.yaml": json.dumps({"encryption": {"tag": "KEYRING"}, "services": {"ours": services}}),
        "dave.json": json.dumps(sasl),
        "pizauth.conf": pizauth,
    }
    folder = world.folder / "theirs"
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


@pytest.mark.system("dovecot", otherproxy.NAME)
async def test_what_other_programs_kept_is_served_and_nobody_signs_in_again(world: World) -> None:
    files = [await otherproxy.signed_in(world), *token_files(world)]
    authorizations, before = len(world.provider.authorizations), [file.read_bytes() for file in files]
    ours = write_config(world.folder / "ours.ini", {"emailproxy": world.globals | {"consent_wait": 0}})
    command: tuple[str | Path, ...] = ("import", *files, "--json", "--password-file", "-", "--config", ours)

    text = ours.read_bytes()
    would = await emailproxy(*command, "--dry-run", home=world.folder, stdin=CHOSEN.encode())
    assert would.code == 0, would.output
    assert (ours.read_bytes(), world.state.exists()) == (text, False)
    did = await emailproxy(*command, home=world.folder, stdin=CHOSEN.encode())
    assert did.code == 0, did.output
    facts = json.loads(did.output)
    assert facts == json.loads(would.output) | {"written": True}
    assert {one["name"]: one["outcome"] for one in facts["sections"] if "@" in one["name"]} == dict.fromkeys(
        (USER, BOB, CAROL, DAVE, EVE), "added"
    )
    assert {one["account"]: one["stored"] for one in facts["tokens"]} == dict.fromkeys((BOB, CAROL, DAVE), True)
    assert [file.read_bytes() for file in files] == before
    [left] = facts["placeholders"]  # sasl-xoauth2 needs no page to sign in at, and has none to give
    assert f"[{DAVE}] permission_url: still holds the placeholder" in left
    ours.write_text(ours.read_text().replace("<authorization endpoint>", world.provider.permission_url))

    async with world.proxy(ours):
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            await asyncio.to_thread(imap_login, world.local.imap, BOB, PASSWORD)
        for user, password in ((USER, PASSWORD), (BOB, CHOSEN), (CAROL, CHOSEN), (DAVE, CHOSEN)):
            await asyncio.to_thread(imap_login, world.local.imap, user, password)
        await asyncio.to_thread(pop_login, world.local.pop)
        await asyncio.to_thread(smtp_login, world.local.smtp, BOB, CHOSEN)
        assert len(world.provider.authorizations) == authorizations
        with pytest.raises(imaplib.IMAP4.error, match="must be signed in"):  # pizauth keeps its tokens to itself
            await asyncio.to_thread(imap_login, world.local.imap, EVE, PASSWORD)
    assert [file.read_bytes() for file in files] == before
