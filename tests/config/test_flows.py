"""Every flow: what it needs, what it makes of an account's settings, and what is said of those it has no use for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emailproxy.config import catchall, ini
from emailproxy.config.model import Account, Config, FlowName, ProviderName
from emailproxy.config.sources import FromCommand, FromEnvironment, FromFile
from emailproxy.errors import ConfigError
from emailproxy.secret import Secret
from tests.config.samples import PATH, SERVER

GUID = "11111111-2222-3333-4444-555555555555"
DEFAULT_SCOPE = "https://outlook.office365.com/.default"
TOKEN = {"token_url": "https://login.example.com/token"}
CLIENT = {"oauth2_scope": "mail", "client_id": "abc"}
BASICS = {**TOKEN, **CLIENT}
TENANT = {"tenant": "contoso.com", **CLIENT}
APPLICATION = {"oauth2_flow": "client_credentials"}
ENTRA = "https://login.microsoftonline.com/contoso.com/oauth2/v2.0"
KEY = '{"type": "service_account",\n  "private_key": "x"}'


def account_text(*settings: dict[str, str], name: str = "anna@example.com") -> str:
    merged: dict[str, str] = {key: value for part in settings for key, value in part.items()}
    lines = [f"{key} = {value}".replace("\n", "\n  ") for key, value in merged.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def load(*settings: dict[str, str], path: Path = PATH) -> Config:
    return ini.loads(SERVER + account_text(*settings), path, state_dir=Path("/state"), log_file=Path("/log"))


def account(*settings: dict[str, str], path: Path = PATH) -> Account:
    return catchall.resolve(load(*settings, path=path), "anna@example.com")


ACCOUNTS: list[tuple[list[dict[str, str]], FlowName, ProviderName, dict[str, Any]]] = [
    (
        [BASICS, {"permission_url": "https://login.example.com/authorize", "prompt": "login  consent"}],
        FlowName.AUTHORIZATION_CODE,
        ProviderName.GENERIC,
        {"prompt": "login consent", "login_hint": None, "authorize_params": (), "client_secret": None},
    ),
    (
        [TENANT, {"authorize_params": "?domain_hint=a%26b.example&hd=", "login_hint": "", "token_owner": "boss@x"}],
        FlowName.AUTHORIZATION_CODE,
        ProviderName.MICROSOFT,
        {
            "token_url": f"{ENTRA}/token",
            "permission_url": f"{ENTRA}/authorize",
            "tenant": "contoso.com",
            "authorize_params": (("domain_hint", "a&b.example"), ("hd", "")),
            "login_hint": "",
            "token_owner": "boss@x",
        },
    ),
    (
        [TENANT, {"oauth2_flow": "authorization_code", "login_hint": "boss@example.com"}],
        FlowName.AUTHORIZATION_CODE,
        ProviderName.MICROSOFT,
        {"permission_url": f"{ENTRA}/authorize", "login_hint": "boss@example.com"},
    ),
    (
        [BASICS, {"oauth2_flow": "device", "permission_url": "https://login.example.com/device"}],
        FlowName.DEVICE,
        ProviderName.GENERIC,
        {"permission_url": "https://login.example.com/device"},
    ),
    (
        [TENANT, {"oauth2_flow": "device"}],
        FlowName.DEVICE,
        ProviderName.MICROSOFT,
        {"token_url": f"{ENTRA}/token", "permission_url": f"{ENTRA}/devicecode"},
    ),
    (
        [CLIENT, {"oauth2_flow": "device", "token_url": f"{ENTRA}/token", "permission_url": f"{ENTRA}/authorize"}],
        FlowName.DEVICE,
        ProviderName.MICROSOFT,
        {"permission_url": f"{ENTRA}/devicecode", "tenant": None},
    ),
    (
        [BASICS, APPLICATION, {"client_secret": "hush"}],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.GENERIC,
        {"client_secret": Secret("hush"), "permission_url": None},
    ),
    (
        [TENANT, APPLICATION, {"jwt_certificate_path": "c.pem", "jwt_key_path": "k.pem", "jwt_key_passphrase": "hush"}],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {
            "certificate": PATH.parent / "c.pem",
            "certificate_key": PATH.parent / "k.pem",
            "key_passphrase": Secret("hush"),
            "client_secret": None,
        },
    ),
    (
        [TENANT, APPLICATION, {"client_assertion_file": "later/token"}],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {"client_assertion_file": PATH.parent / "later/token"},
    ),
    (
        [APPLICATION, {"oauth2_scope": DEFAULT_SCOPE, "managed_identity": "System"}],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {"managed_identity": "system", "token_url": "", "client_id": ""},
    ),
    (
        [APPLICATION, {"oauth2_scope": DEFAULT_SCOPE, "managed_identity": GUID, "provider": "Microsoft"}],
        FlowName.CLIENT_CREDENTIALS,
        ProviderName.MICROSOFT,
        {"managed_identity": GUID},
    ),
    (
        [BASICS, {"oauth2_flow": "password"}],
        FlowName.PASSWORD,
        ProviderName.GENERIC,
        {"scope": "mail", "resource": None},
    ),
    (
        [
            {"token_url": "https://login.partner.microsoftonline.cn/common/oauth2/token", "client_id": "abc"},
            {"oauth2_flow": "password", "oauth2_resource": "https://partner.outlook.cn/"},
        ],
        FlowName.PASSWORD,
        ProviderName.GENERIC,
        {"scope": "", "resource": "https://partner.outlook.cn/"},
    ),
    (
        [{"oauth2_flow": "service_account", "client_id": "File", "client_secret": "keys/g.json"}],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"client_id": "file", "client_secret": FromFile(PATH.parent / "keys/g.json"), "token_url": ""},
    ),
    (
        [{"oauth2_flow": "service_account", "client_id": "key", "client_secret": KEY, "oauth2_scope": "mail"}],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"client_id": "key", "client_secret": Secret(KEY.replace("\n  ", "\n")), "scope": "mail"},
    ),
    (
        [{"oauth2_flow": "service_account", "client_id": "key", "client_secret": "env:KEY", "provider": "google"}],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"client_secret": FromEnvironment("KEY")},
    ),
    (
        [{"oauth2_flow": "service_account", "service_account_email": "p@x.iam.gserviceaccount.com"}],
        FlowName.SERVICE_ACCOUNT,
        ProviderName.GOOGLE,
        {"service_account_email": "p@x.iam.gserviceaccount.com", "client_secret": None, "client_id": ""},
    ),
    (
        [{"token_command": '["./token",\n"a b"]', "token_command_timeout": "2 min"}],
        FlowName.TOKEN_COMMAND,
        ProviderName.GENERIC,
        {"token_command": (str(PATH.parent / "token"), "a b"), "token_command_timeout": 120.0},
    ),
    (
        [{"oauth2_flow": "token_command", "token_command": '["token"]', "provider": "microsoft"}],
        FlowName.TOKEN_COMMAND,
        ProviderName.GENERIC,
        {"token_command": ("token",), "token_command_timeout": 30.0},
    ),
]


@pytest.mark.parametrize(("settings", "flow", "provider", "expected"), ACCOUNTS)
def test_each_flow_can_be_configured(
    tmp_path: Path,
    settings: list[dict[str, str]],
    flow: FlowName,
    provider: ProviderName,
    expected: dict[str, Any],
) -> None:
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).touch()
    found = load(*settings, path=tmp_path / "emailproxy.ini")
    assert found.notices == ()
    resolved = catchall.resolve(found, "anna@example.com")
    assert (resolved.flow, resolved.provider) == (flow, provider)
    assert {name: getattr(resolved, name) for name in expected} == {
        name: _moved(value, tmp_path) for name, value in expected.items()
    }


def _moved(value: Any, folder: Path) -> Any:
    """An expected value whose paths begin at the configuration's folder."""
    match value:
        case Path() if value.is_relative_to(PATH.parent):
            return folder / value.relative_to(PATH.parent)
        case FromFile(path):
            return FromFile(_moved(path, folder))
        case (str(first), *others) if first.startswith(str(PATH.parent)):
            return (str(_moved(Path(first), folder)), *others)
    return value


FAULTS = [
    ([{"oauth2_flow": "device", **BASICS}], "permission_url", "device authorization endpoint"),
    (
        [BASICS, {"oauth2_flow": "device", "oauth2_scope": "openid https://mail.google.com/"}],
        "oauth2_flow",
        "sign in with a browser",
    ),
    ([BASICS, {"oauth2_flow": "authorization_code"}], "permission_url", "authorization endpoint"),
    ([BASICS, {"provider": "microsoft"}], "oauth2_flow", "neither it nor permission_url"),
    ([CLIENT, {"provider": "microsoft", "oauth2_flow": "device"}], "token_url", "add tenant"),
    ([TENANT, APPLICATION], "client_secret", "client_assertion_file or managed_identity"),
    ([TENANT, APPLICATION, {"client_secret": "x", "tenant": "common"}], "tenant", "no tokens for applications"),
    ([TENANT, APPLICATION, {"jwt_key_path": __file__}], "jwt_certificate_path", "which jwt_key_path needs"),
    ([TENANT, {"jwt_key_path": __file__}], "jwt_certificate_path", "which jwt_key_path needs"),
    ([TENANT, {"jwt_certificate_path": "no.pem"}], "jwt_certificate_path", "No such file"),
    ([TENANT, APPLICATION, {"jwt_certificate_path": "no.pem"}], "jwt_certificate_path", "name a file that this user"),
    ([TENANT, {"jwt_certificate_path": "/"}], "jwt_certificate_path", "is not a file"),
    ([APPLICATION, {"managed_identity": "system"}], "oauth2_scope", "is missing"),
    ([APPLICATION, BASICS, {"managed_identity": "system"}], "token_url", "is not Microsoft's"),
    ([APPLICATION, CLIENT, {"managed_identity": "mine"}], "managed_identity", "write system, or the client ID"),
    ([TENANT, {"token_url": f"{ENTRA}/token".replace("contoso", "fabrikam")}], "tenant", "not the one that token_url"),
    ([{"oauth2_flow": "password", **TOKEN, "client_id": "x"}], "oauth2_scope", "oauth2_resource"),
    ([{"oauth2_flow": "service_account", "client_id": "abc"}], "client_id", "neither file nor key"),
    ([{"oauth2_flow": "service_account", "client_id": "file"}], "client_secret", "the key's path"),
    ([{"oauth2_flow": "service_account", "client_id": "key"}], "client_secret", "the key's JSON"),
    ([{"oauth2_flow": "service_account", "client_secret": "k.json"}], "client_id", "write client_id = file"),
    (
        [{"oauth2_flow": "service_account", "client_id": "key", "client_secret": "k.json"}],
        "client_secret",
        "client_id = file",
    ),
    ([{"oauth2_flow": "service_account", "client_id": "file", "client_secret": KEY}], "client_secret", "is JSON"),
    ([{"oauth2_flow": "service_account", "client_id": "file", "client_secret": "~x-/k"}], "client_secret", "no path"),
    ([{"oauth2_flow": "service_account", "provider": "microsoft"}], "provider", "is Google's"),
    ([{"oauth2_flow": "token_command"}], "token_command", "is missing"),
    ([{"oauth2_flow": "token_comand", "token_command": '["x"]'}], "oauth2_flow", "did you mean token_command?"),
    ([{"oauth2_flow": "token_command", "token_comand": '["x"]'}], "token_comand", "did you mean token_command?"),
    ([{"oauth2_flow": "token_command", "token_command": "mytool --now"}], "token_command", '["/usr/bin/pass"'),
    ([CLIENT, {"tenant": "my tenant"}], "tenant", "ID or domain"),
    ([CLIENT, {"tenant": "comon"}], "tenant", "did you mean common?"),
    ([CLIENT, {"tenant": "127.0.0.1"}], "tenant", "ID or domain"),
    ([TENANT, {"provider": "azure"}], "provider", "write one of: generic, microsoft, google"),
    ([TENANT, {"prompt": "concent"}], "prompt", "did you mean consent?"),
    ([TENANT, {"prompt": "none login"}], "prompt", "write none alone"),
    ([TENANT, {"service_account_email": "me"}], "service_account_email", "gserviceaccount.com"),
    ([TENANT, {"authorize_params": "hd"}], "authorize_params", "NAME=VALUE"),
    ([TENANT, {"authorize_params": "a=1&a=2"}], "authorize_params", "there twice"),
    ([TENANT, {"authorize_params": "=1"}], "authorize_params", "without a name"),
    ([TENANT, {"authorize_params": "a=%ff"}], "authorize_params", "not a query string"),
    ([TENANT, {"authorize_params": "&".join(f"p{n}=1" for n in range(99))}], "authorize_params", "not a query string"),
    ([TENANT, {"authorize_params": "prompt=login"}], "authorize_params", "prompt = VALUE on a line of its own"),
    ([TENANT, {"authorize_params": "login_hint=x"}], "authorize_params", "a key of its own"),
    *(
        ([TENANT, {"authorize_params": f"hd=x&{name}=y"}], "authorize_params", f"remove {name}")
        for name in (
            "client_id",
            "redirect_uri",
            "response_type",
            "response_mode",
            "state",
            "scope",
            "code_challenge",
            "code_challenge_method",
        )
    ),
    ([TENANT, {"authorize_params": "%73tate=y"}], "authorize_params", "remove state"),
]


@pytest.mark.parametrize(("settings", "key", "words"), FAULTS)
def test_what_a_flow_lacks_is_one_fault_with_its_mend(settings: list[dict[str, str]], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*settings)
    (fault,) = caught.value.faults
    assert (fault.section, fault.key, fault.line is not None) == ("anna@example.com", key, True)
    assert words in str(fault)


NOTICES = [
    ([TENANT, {"oauth2_resource": "x"}], "oauth2_resource", "has no effect with authorization_code"),
    ([BASICS, {"oauth2_flow": "password", "prompt": "login"}], "prompt", "has no effect with password"),
    ([{"token_command": '["x"]', "managed_identity": "system"}], "managed_identity", "no effect with token_command"),
    ([TENANT, {"token_command_timeout": "3"}], "token_command_timeout", "no effect with authorization_code"),
    ([TENANT, {"client_secret": "x", "jwt_certificate_path": __file__}], "jwt_certificate_path", "client_secret is"),
    (
        [TENANT, {"client_secret_file": "x", "client_assertion_file": "y"}],
        "client_assertion_file",
        "client_secret_file",
    ),
    (
        [BASICS, {"oauth2_flow": "password", "tenant": "common", "provider": "generic"}],
        "tenant",
        "add provider = microsoft",
    ),
    (
        [BASICS, {"oauth2_flow": "device", "permission_url": "https://accounts.google.com/o/oauth2/auth"}],
        "permission_url",
        "device authorization endpoint",
    ),
    (
        [BASICS, {"oauth2_flow": "token_command", "permission_url": "https://x.example/a"}],
        "oauth2_flow",
        "to use token_command remove permission_url (an empty one unsets an inherited one)",
    ),
]


@pytest.mark.parametrize(("settings", "key", "words"), NOTICES)
def test_what_has_no_effect_is_told(settings: list[dict[str, str]], key: str, words: str) -> None:
    (notice,) = load(*settings).notices
    assert f"[anna@example.com] {key}: " in notice
    assert words in notice


CATCH_ALL = "[emailproxy]\nallow_catch_all_accounts = True\n" + account_text(
    BASICS,
    {"permission_url": "https://login.example.com/authorize", "client_secret_command": '["pass"]', "prompt": "login"},
    name="@",
)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"client_secret": "own"}, Secret("own")),
        ({"client_secret_file": "own"}, FromFile(PATH.parent / "own")),
        ({"client_secret_command": '["own"]'}, FromCommand(("own",))),
        ({"client_secret": ""}, None),
        ({"client_secret_file": ""}, None),
        ({"redirect_uri": "http://localhost:1/"}, FromCommand(("pass",))),
    ],
)
def test_a_section_s_secret_takes_the_place_of_every_wider_one(settings: dict[str, str], expected: object) -> None:
    found = ini.loads(SERVER + CATCH_ALL + account_text(settings), PATH)
    assert catchall.resolve(found, "anna@example.com").client_secret == expected


@pytest.mark.parametrize(
    ("settings", "flow", "token_url"),
    [
        ({"tenant": "contoso.com"}, FlowName.AUTHORIZATION_CODE, f"{ENTRA}/token"),
        ({"tenant": "contoso.com", "oauth2_flow": "device"}, FlowName.DEVICE, f"{ENTRA}/token"),
        ({"oauth2_flow": "password", "permission_url": ""}, FlowName.PASSWORD, TOKEN["token_url"]),
        ({"oauth2_flow": "password"}, FlowName.AUTHORIZATION_CODE, TOKEN["token_url"]),
    ],
)
def test_inherited_endpoints_give_way_to_a_tenant(settings: dict[str, str], flow: FlowName, token_url: str) -> None:
    found = ini.loads(SERVER + CATCH_ALL + account_text(settings), PATH)
    anna = catchall.resolve(found, "anna@example.com")
    assert (anna.flow, anna.token_url) == (flow, token_url)
    assert not any("prompt" in notice for notice in found.notices)  # of an inherited key nothing is told


def test_an_inherited_tenant_gives_way_to_a_token_url() -> None:
    base = "[emailproxy]\nallow_catch_all_accounts = True\n" + account_text(TENANT, name="@")
    own = {"token_url": "https://login.example.com/token", "permission_url": "https://login.example.com/authorize"}
    anna = catchall.resolve(ini.loads(SERVER + base + account_text(own), PATH), "anna@example.com")
    assert (anna.provider, anna.tenant, anna.token_url) == (ProviderName.GENERIC, None, own["token_url"])


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://login.microsoftonline.com/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://LOGIN.Microsoftonline.com./x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://login-us.microsoftonline.com/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://eastus.login.microsoft.com/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://login.windows.net/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://login.partner.microsoftonline.cn/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://login.chinacloudapi.cn/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://login.microsoftonline.us/x/oauth2/v2.0/token", ProviderName.MICROSOFT),
        ("https://notlogin.microsoftonline.com/x/oauth2/v2.0/token", ProviderName.GENERIC),
        ("https://login.microsoftonline.com.evil.example/x/oauth2/v2.0/token", ProviderName.GENERIC),
        ("https://xlogin.microsoft.com/x/oauth2/v2.0/token", ProviderName.GENERIC),
        ("https://oauth2.googleapis.com/token", ProviderName.GENERIC),
    ],
)
def test_microsoft_is_known_by_its_hosts(url: str, provider: ProviderName) -> None:
    settings = {**CLIENT, "token_url": url, "permission_url": "https://login.example.com/authorize"}
    assert account(settings).provider is provider
    assert account(settings, {"provider": "generic"}).provider is ProviderName.GENERIC
    assert account(settings, {"provider": "microsoft"}).provider is ProviderName.MICROSOFT
    assert account(settings, {"provider": "google"}).provider is ProviderName.GOOGLE


def test_the_endpoints_of_a_tenant_stay_in_their_cloud() -> None:
    cloud = "https://login.microsoftonline.us/contoso.com/oauth2/v2.0"
    settings = {**CLIENT, "token_url": f"{cloud}/token", "oauth2_flow": "authorization_code"}
    assert account(settings).permission_url == f"{cloud}/authorize"
    settings = {**TENANT, "permission_url": f"{cloud}/authorize"}
    assert account(settings).token_url == f"{cloud}/token"
