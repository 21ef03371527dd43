"""What another proxy keeps, and its files as a whole."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from emailproxy.config import catchall, ini
from emailproxy.config.cached import READERS, is_fernet
from emailproxy.config.model import Cached, Config, FlowName
from emailproxy.errors import ConfigError
from tests.config.samples import ACCOUNT, ACCOUNT_KEYS, GOOD, SERVER, config, faults

CANARY = "canary-" + "z" * 60


def fernet() -> str:
    return Fernet(Fernet.generate_key()).encrypt(b"token").decode()


ACCESS, REFRESH, CLIENT = fernet(), fernet(), fernet()
SALT = b"0123456789abcdef"
SALT_TEXT = base64.b64encode(SALT).decode()
OTHER_SALT = base64.b64encode(b"another salt....").decode()
CACHED = f"""\
token_salt = {SALT_TEXT}
token_iterations = 1200000
access_token = {ACCESS}
access_token_expiry = 1700000000
refresh_token = {REFRESH}
last_activity = 1700000000
"""
HERE = "local_address = 127.0.0.1\n"  # the default of such files differs, which is told
QUIET = SERVER + HERE + ACCOUNT
CATCH_ALLS = f"[emailproxy]\nallow_catch_all_accounts = True\n{SERVER}{HERE}"


def notices(config: Config) -> list[tuple[str, str]]:
    """Line and key of each notice."""
    matches = [re.match(r"[^:]+:(\d+): \[[^\]]+\] (?:(\w+):)?", notice) for notice in config.notices]
    return [(match[1], match[2] or "") for match in matches if match]


def test_cached_values_are_read_in_silence() -> None:
    found = config(QUIET + CACHED)
    assert found.notices == ()
    assert found.cached == {
        "anna@example.com": Cached(
            salt=SALT,
            iterations=1_200_000,
            access_token=ACCESS,
            access_token_expiry_s=1_700_000_000,
            refresh_token=REFRESH,
        )
    }
    assert catchall.cached(found, "Anna@Example.com") == found.cached["anna@example.com"]
    assert catchall.cached(found, "bob@example.com") is None
    assert not any(value in repr(found) for value in (ACCESS, REFRESH, SALT_TEXT, str(SALT)))


SALTED = f"token_salt = {SALT_TEXT}\n"
# as that proxy reads it: what is no base64 counts for nothing
SALTED_ASKEW = f"token_salt = {SALT_TEXT[:9]} {SALT_TEXT[9:]}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SALTED}refresh_token = {REFRESH}\n", Cached(salt=SALT, refresh_token=REFRESH)),
        (f"{SALTED_ASKEW}access_token = {ACCESS}\n", Cached(salt=SALT, access_token=ACCESS)),
        (f"{SALTED}access_token_expiry = 1\nrefresh_token = {REFRESH}\n", Cached(salt=SALT, refresh_token=REFRESH)),
        (f"{SALTED}client_secret_encrypted = {CLIENT}\n", Cached(salt=SALT, client_secret=CLIENT)),
        (f"{SALTED}token_iterations = 7\n", None),
    ],
)
def test_as_much_as_there_is(text: str, expected: Cached | None) -> None:
    found = config(QUIET + text)
    assert found.cached.get("anna@example.com") == expected
    assert found.notices == ()


DAMAGED = [
    (f"token_salt = {CANARY[:3]}\nrefresh_token = {REFRESH}\n", ["token_salt", "refresh_token"]),
    (f"token_salt = {'A' * 400}\nrefresh_token = {REFRESH}\n", ["token_salt", "refresh_token"]),
    (f"refresh_token = {REFRESH}\n", ["refresh_token"]),
    (f"token_salt = {SALT_TEXT}\nrefresh_token = {CANARY}\n", ["refresh_token"]),
    (f"token_salt = {SALT_TEXT}\nrefresh_token = {REFRESH[:-5]}\n", ["refresh_token"]),
    (f"token_salt = {SALT_TEXT}\naccess_token = {CANARY}\n  {CANARY}\n", ["access_token"]),
    (f"token_salt = {SALT_TEXT}\nclient_secret_encrypted = {CANARY}\n", ["client_secret_encrypted"]),
    (CACHED.replace("1200000", "4000000000"), ["token_iterations"]),
    (CACHED.replace("1200000", "10000001"), ["token_iterations"]),
    (CACHED.replace("1200000", CANARY), ["token_iterations"]),
    (CACHED.replace("access_token_expiry = 1700000000", f"access_token_expiry = {CANARY}"), ["access_token_expiry"]),
]


@pytest.mark.parametrize(("text", "keys"), DAMAGED)
def test_what_is_damaged_is_a_notice_that_names_its_line_and_no_value(text: str, keys: list[str]) -> None:
    found = config(QUIET + text)
    lines = {line.partition(" ")[0]: str(number) for number, line in enumerate((QUIET + text).splitlines(), 1)}
    assert notices(found) == [(lines[key], key) for key in sorted(keys, key=lambda key: int(lines[key]))]
    assert CANARY[:12] not in "".join(found.notices)
    assert all("; " in notice for notice in found.notices)


def test_salt_iterations_and_client_secret_are_inherited_and_tokens_never() -> None:
    text = f"{CATCH_ALLS}[@]\n{ACCOUNT_KEYS}{CACHED}client_secret_encrypted = {CLIENT}\n"
    text += f"[anna@example.com]\nrefresh_token = {REFRESH}\n"
    found = config(text)
    assert found.cached["anna@example.com"] == Cached(
        salt=SALT, iterations=1_200_000, refresh_token=REFRESH, client_secret=CLIENT
    )
    everybodys = Cached(salt=SALT, iterations=1_200_000, client_secret=CLIENT)
    assert catchall.cached(found, "bob@example.com") == found.cached["@"] == everybodys


def test_a_client_secret_is_of_no_use_to_whoever_has_another_salt() -> None:
    text = f"{CATCH_ALLS}[@]\n{ACCOUNT_KEYS}token_salt = {SALT_TEXT}\nclient_secret_encrypted = {CLIENT}\n"
    found = config(f"{text}[anna@example.com]\ntoken_salt = {OTHER_SALT}\nrefresh_token = {REFRESH}\n")
    assert found.cached["anna@example.com"].client_secret is None


def test_nothing_is_inherited_where_catch_alls_are_off() -> None:
    text = f"{QUIET}refresh_token = {REFRESH}\n[@]\ntoken_salt = {SALT_TEXT}\n"
    assert config(text).cached == {}


class TestBeside:
    """`--cache-store`: the values are in a file of their own."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "x.ini"
        path.write_text(QUIET)
        path.chmod(0o600)
        return path

    def test_they_are_as_if_in_the_configuration_and_win(self, file: Path) -> None:
        file.write_text(f"{QUIET}token_salt = {OTHER_SALT}\nrefresh_token = {ACCESS}\n")
        store = file.with_name("store")
        store.write_text(f"[Anna@example.com]\n{CACHED}client_id = not read\n")
        store.chmod(0o600)
        found = ini.load(file, cache_store=store)
        assert found.notices == ()
        assert found.cached["anna@example.com"].salt == SALT
        assert found.cached["anna@example.com"].refresh_token == REFRESH
        assert catchall.resolve(found, "anna@example.com").client_id == "abc"

    @pytest.mark.parametrize(
        ("octets", "words"),
        [
            (f"[anna@example.com]\nrefresh_token = {CANARY}\n".encode(), "store:2: [anna@example.com] refresh_token"),
            (f"[bob@example.com]\n{CACHED}".encode(), "store:1: [bob@example.com]: is no account"),
            (b"canary-\n", "store:1: is not KEY = VALUE"),
            (b"\xff", "store:1: is not UTF-8"),
            (b"\0", "NUL"),
        ],
    )
    def test_whatever_is_wrong_with_it_is_a_notice(self, file: Path, octets: bytes, words: str) -> None:
        store = file.with_name("store")
        store.write_bytes(octets)
        store.chmod(0o600)
        [notice] = [notice for notice in ini.load(file, cache_store=store).notices if "cannot be opened" not in notice]
        assert words in notice
        assert "canary" not in notice

    def test_one_that_is_not_there_is_told_and_one_that_cannot_be_read_is_a_fault(self, file: Path) -> None:
        [notice] = ini.load(file, cache_store=file.with_name("none")).notices
        assert "another proxy has kept nothing in it" in notice
        with pytest.raises(ConfigError, match=r"cannot be read: .*leave --cache-store out"):
            ini.load(file, cache_store=file.parent)

    @pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
    def test_either_file_is_for_its_owner_alone(self, file: Path) -> None:
        store = file.with_name("store")
        for path in (file, store):
            path.write_text(QUIET + CACHED)
            path.chmod(0o644)
        told = [notice for notice in ini.load(file, cache_store=store).notices if "chmod 600" in notice]
        assert [notice.partition(":")[0] for notice in told] == [str(file), str(store)]

    def test_it_may_be_the_configuration_itself(self, file: Path) -> None:
        file.write_text(QUIET + CACHED)
        link = file.with_name("link")
        link.symlink_to(file)
        assert ini.load(file, cache_store=link).cached["anna@example.com"].refresh_token == REFRESH

    def test_accounts_of_a_catch_all_need_no_section(self, file: Path) -> None:
        file.write_text(f"{CATCH_ALLS}[@]\n{ACCOUNT_KEYS}token_salt = {SALT_TEXT}\n")
        store = file.with_name("store")
        store.write_text(f"[carol@example.com]\nrefresh_token = {REFRESH}\n")
        store.chmod(0o600)
        found = ini.load(file, cache_store=store)
        assert found.cached["carol@example.com"] == Cached(salt=SALT, refresh_token=REFRESH)
        assert found.notices == ()


class TestSecrets:
    """A client secret that is not in the file."""

    APPLICATION = re.sub("permission_url = .*", "oauth2_flow = client_credentials", GOOD)

    @pytest.mark.parametrize(
        "text",
        [
            f"[emailproxy]\nuse_login_password_as_client_credentials_secret = True\n{APPLICATION}",
            f"[emailproxy]\nencrypt_client_secret_on_first_use = True\n{APPLICATION}",
            f"{APPLICATION}token_salt = {SALT_TEXT}\nclient_secret_encrypted = {CLIENT}\n",
        ],
    )
    def test_it_may_be_elsewhere(self, text: str) -> None:
        account = catchall.resolve(config(text), "anna@example.com")
        assert (account.flow, account.client_secret) == (FlowName.CLIENT_CREDENTIALS, None)

    @pytest.mark.parametrize(
        "text",
        [
            APPLICATION,
            f"{APPLICATION}token_salt = {SALT_TEXT}\nclient_secret_encrypted = {CANARY}\n",
            f"{APPLICATION}client_secret_encrypted = {CLIENT}\n",
        ],
    )
    def test_it_must_be_somewhere(self, text: str) -> None:
        assert [(fault.line, fault.key) for fault in faults(text)] == [(4, "client_secret")]

    def test_a_service_accounts_may_be_sealed_but_is_no_login_password(self) -> None:
        text = f"{SERVER}[anna@example.com]\noauth2_flow = service_account\noauth2_scope = mail\nclient_id = key\n"
        sealed = config(f"{text}token_salt = {SALT_TEXT}\nclient_secret_encrypted = {CLIENT}\n")
        assert catchall.resolve(sealed, "anna@example.com").client_secret is None
        [fault] = faults(f"[emailproxy]\nuse_login_password_as_client_credentials_secret = True\n{text}")
        assert fault.key == "client_secret"


AS_IT_CAME = """\
[Email OAuth 2.0 Proxy configuration file]
documentation = This is a sample.
\tIt has [several] lines.

[Server setup]
documentation = Servers.

[IMAP-1993]
server_address = outlook.office365.com
server_port = 993
local_address = 127.0.0.1

[SMTP-1587]
server_address = smtp.office365.com
server_port = 587
starttls = True

[Account setup]
documentation = Accounts.

[your.office365.address@example.com]
permission_url = https://login.microsoftonline.com/common/oauth2/v2.0/authorize
token_url = https://login.microsoftonline.com/common/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.com/IMAP.AccessAsUser.All offline_access
redirect_uri = http://localhost
client_id = *** your client id here ***
client_secret = *** your client secret here ***

[left@example.com]
token_salt = MDEyMzQ1Njc4OWFiY2RlZg==

"""
FILLED_IN = AS_IT_CAME + ACCOUNT + "use_pkce = True\nredirect_uri = http://localhost\n" + CACHED
ADVANCED = "[emailproxy]\ndelete_account_token_on_password_error = True\nencrypt_client_secret_on_first_use = True\n"


class TestAnotherProxysFile:
    def load(self, folder: Path, text: str, name: str = "emailproxy.config") -> Config:
        file = folder / name
        file.write_text(text)
        file.chmod(0o600)
        return ini.load(file)

    def test_it_is_served_as_it_is_with_nothing_but_notices(self, tmp_path: Path) -> None:
        found = self.load(tmp_path, FILLED_IN + ADVANCED)
        assert [account.name for account in catchall.accounts(found)] == ["anna@example.com"]
        assert found.cached.keys() == {"anna@example.com"}
        assert [server.server_starttls for server in found.servers] == [False, True]
        told = "\n".join(found.notices)
        for words in (
            "[SMTP-1587]: has no local_address: it listens on 127.0.0.1 and ::1",
            "starttls: is read as server_starttls",
            "[your.office365.address@example.com]: is left out: client_id still holds the placeholder",
            "[left@example.com]: is left out: token_url is missing",
            "use_pkce: has no effect",
            "nothing is ever deleted",
        ):
            assert words in told
        assert len(found.notices) == 6
        assert found.placeholders == ()

    def test_by_its_cached_values_it_is_known_under_any_name(self, tmp_path: Path) -> None:
        assert len(self.load(tmp_path, FILLED_IN, "mine.ini").notices) == 5

    def test_ours_must_be_complete(self, tmp_path: Path) -> None:
        text = FILLED_IN.replace(CACHED, "").replace("token_salt = MDEyMzQ1Njc4OWFiY2RlZg==", "client_id = x")
        with pytest.raises(ConfigError) as caught:
            self.load(tmp_path, text, "mine.ini")
        keys = {(fault.section, fault.key) for fault in caught.value.faults}
        assert ("your.office365.address@example.com", "client_id") in keys
        assert ("left@example.com", "token_url") in keys

    def test_one_in_which_nothing_is_filled_in_is_no_configuration_yet(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="still holds the placeholder"):
            self.load(tmp_path, AS_IT_CAME)

    def test_with_catch_alls_nobody_is_left_out_for_they_would_be_served_otherwise(self, tmp_path: Path) -> None:
        text = f"[emailproxy]\nallow_catch_all_accounts = True\n{FILLED_IN}"
        with pytest.raises(ConfigError, match="still holds the placeholder"):
            self.load(tmp_path, text)

    def test_other_faults_stay_faults(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="write https://"):
            self.load(tmp_path, FILLED_IN.replace("https://login.example.com/token", "http://login.example.com/token"))

    def test_a_draft_of_it_lists_what_waits(self, tmp_path: Path) -> None:
        text = AS_IT_CAME.partition("[left@")[0]
        draft = ini.loads(text, tmp_path / "emailproxy.config", allow_placeholders=True)
        assert len(ini.placeholders(draft)) == 2


NEARLY = st.binary(max_size=90).map(lambda octets: base64.urlsafe_b64encode(b"\x80" + octets).decode())
PAIRS = st.tuples(st.sampled_from(sorted(READERS)), st.text(max_size=40) | NEARLY)


@settings(max_examples=150, deadline=None)
@given(st.lists(PAIRS, unique_by=lambda pair: pair[0]))
def test_no_cached_value_keeps_the_server_from_starting(pairs: list[tuple[str, str]]) -> None:
    values = {key: "".join(part if part.isprintable() else "?" for part in value) for key, value in pairs}
    found = config(QUIET + "".join(f"{key} = {value}\n" for key, value in values.items()))
    for cached in found.cached.values():
        assert all(token is None or is_fernet(token) for token in (cached.access_token, cached.refresh_token))
