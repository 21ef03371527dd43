"""Changes to a file: what survives them, and how they reach the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emailproxy.config import edit
from tests.config.samples import ACCOUNT_KEYS, FILLED_IN, GOOD, SECRET, SERVER, config

posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")

COMMENTED = """\
; the first line
[emailproxy]
# about waiting
consent_wait : 20

# about the server
[IMAP-2993]  # behind
server_address: imap.example.com
# about the port
SERVER_PORT=993
starttls = False

; the last line
"""


def test_comments_order_and_other_sections_survive() -> None:
    wanted = {"server_address": "mail.example.com", "server_port": "143", "server_starttls": "True"}
    text, removed = edit.set_keys(COMMENTED, "IMAP-2993", wanted, replace=True)
    text, kept = edit.set_keys(text, "emailproxy", {"allow_catch_all_accounts": "True"})
    assert (removed, kept) == (["starttls"], [])
    comments = [line for line in COMMENTED.splitlines() if line.startswith(("#", ";"))]
    assert [line for line in text.splitlines() if line.startswith(("#", ";"))] == comments
    assert "[IMAP-2993]  # behind\n" in text
    assert "consent_wait : 20\nallow_catch_all_accounts = True\n\n# about the server" in text
    found = config(text + f"[@]\n{ACCOUNT_KEYS}")
    assert (found.servers[0].server_address, found.servers[0].server_port) == ("mail.example.com", 143)
    assert found.servers[0].server_starttls
    assert found.settings.allow_catch_all_accounts


@pytest.mark.parametrize("text", ["", "# c\n", GOOD, GOOD.rstrip("\n"), f"{SERVER}  ; c\n\n\n"])
def test_a_new_section_goes_to_the_end(text: str) -> None:
    new = edit.append_section(text, "bob@example.com", {"client_id": "x", "client_secret": ""}, "one\ntwo")
    assert new.startswith(text.rstrip("\n"))
    assert new.endswith("# one\n# two\n[bob@example.com]\nclient_id = x\nclient_secret =\n")


def test_secrets_are_masked_and_placeholders_are_not() -> None:
    text = f"{FILLED_IN}[a@b]\nCLIENT_SECRET: {SECRET}\n   {SECRET}\nrefresh_token = {SECRET}\n[b@b]\n"
    text = edit.masked(text + "client_secret = CLIENT_SECRET\n")
    assert SECRET not in text
    assert text.count(edit.MASK) == 3
    assert text.endswith("client_secret = CLIENT_SECRET\n")


@given(st.text(st.characters(min_codepoint=33, exclude_categories=["C", "Z"]), min_size=1))
def test_what_is_written_is_what_is_read(secret: str) -> None:
    text = edit.append_section(f"{SERVER}", "a@b", {"client_secret": secret, "oauth2_flow": "client_credentials"})
    text = edit.set_keys(text, "a@b", {"token_url": "https://a.example/", "oauth2_scope": "s", "client_id": "x"})[0]
    text = edit.set_keys(text, "a@b", {"client_secret": secret})[0]
    lines = [line for line in text.splitlines() if line.startswith("client_secret")]
    assert lines == [f"client_secret = {secret}"]


@posix
def test_a_file_is_private_from_the_first_byte(tmp_path: Path) -> None:
    file = tmp_path / "new" / "emailproxy.ini"
    umask = os.umask(0)
    try:
        edit.write(file, "[@]\n")
    finally:
        os.umask(umask)
    assert file.read_text() == "[@]\n"
    assert (file.stat().st_mode & 0o7777, file.parent.stat().st_mode & 0o7777) == (0o600, 0o700)
    assert os.listdir(file.parent) == [file.name]


@posix
@pytest.mark.parametrize(("before", "after"), [(0o644, 0o640), (0o640, 0o640), (0o666, 0o640), (0o600, 0o600)])
def test_only_the_group_may_go_on_reading(tmp_path: Path, before: int, after: int) -> None:
    file = tmp_path / "emailproxy.ini"
    file.write_text("old")
    file.chmod(before)
    edit.write(file, "new")
    assert (file.read_text(), file.stat().st_mode & 0o7777) == ("new", after)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can change owners")
def test_root_keeps_the_owner(tmp_path: Path) -> None:
    file = tmp_path / "emailproxy.ini"
    file.write_text("old")
    os.chown(file, 12345, 23456)
    edit.write(file, "new")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.ini", tmp_path / "emailproxy.ini"
    target.write_text("old")
    link.symlink_to(target)
    edit.write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "emailproxy.ini"
    file.write_text("old")
    real_open = os.open

    def onto_a_full_disk(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        if flags & os.O_EXCL:
            full = real_open("/dev/full", os.O_WRONLY)
            os.dup2(full, descriptor)
            os.close(full)
        return descriptor

    monkeypatch.setattr(os, "open", onto_a_full_disk)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)  # the device is not ours to change
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    with pytest.raises(OSError) as caught:
        edit.write(file, "new")
    assert caught.value.errno == errno.ENOSPC
    assert (file.read_text(), os.listdir(tmp_path)) == ("old", [file.name])
