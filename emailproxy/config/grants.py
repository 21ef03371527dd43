"""Which flow an account's settings mean, what that flow needs, and which settings have no effect on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emailproxy.config import values as kinds
from emailproxy.config.keys import family
from emailproxy.config.model import FlowName, ProviderName
from emailproxy.config.parameters import SHARED_TENANTS
from emailproxy.config.providers import Values, is_microsoft, is_microsoft_host, tenant_endpoint
from emailproxy.config.references import json_object
from emailproxy.config.sources import SecretSource
from emailproxy.secret import Secret

MISSING = "is missing"
GOOGLE_MAIL = "https://mail.google.com/"
"""Google's scope for IMAP, POP and SMTP; none of those that its device codes may have."""
KEY_FILE = "file"  # client_id of a service account: client_secret is the path of its key
KEY_JSON = "key"  # ... or the key itself
UNSET = "an empty one unsets an inherited one"

WAYS = ("oauth2_flow", "permission_url", "token_command", "tenant", "provider")
"""Keys of which the flow follows."""

BASICS = ("token_url", "oauth2_scope", "client_id")
NEEDS = {
    FlowName.AUTHORIZATION_CODE: BASICS,
    FlowName.DEVICE: BASICS,
    FlowName.CLIENT_CREDENTIALS: BASICS,
    FlowName.PASSWORD: BASICS,
    FlowName.SERVICE_ACCOUNT: (),
    FlowName.TOKEN_COMMAND: ("token_command",),
}

SECRET_KEYS = family("client_secret")
CREDENTIALS = (*SECRET_KEYS, "jwt_certificate_path", "client_assertion_file", "managed_identity")
"""How a client proves who it is; of those that an account has, the first is used."""

CLIENT_FLOWS = (FlowName.AUTHORIZATION_CODE, FlowName.DEVICE, FlowName.CLIENT_CREDENTIALS, FlowName.PASSWORD)
SERVES = {
    "oauth2_resource": (FlowName.PASSWORD,),
    "token_command": (FlowName.TOKEN_COMMAND,),
    "token_command_timeout": (FlowName.TOKEN_COMMAND,),
    "service_account_email": (FlowName.SERVICE_ACCOUNT,),
    "managed_identity": (FlowName.CLIENT_CREDENTIALS,),
    "prompt": (FlowName.AUTHORIZATION_CODE,),
    "login_hint": (FlowName.AUTHORIZATION_CODE,),
    "authorize_params": (FlowName.AUTHORIZATION_CODE,),
    **dict.fromkeys(
        ("jwt_certificate_path", "jwt_key_path", "client_assertion_file", *family("jwt_key_passphrase")), CLIENT_FLOWS
    ),
}
"""The flows on which a key has an effect, for keys that have none on others."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where an account's client secret may be, if not in the configuration."""

    sealed: bool = False
    """In its record here, or in another proxy's cache: `encrypt_client_secret_on_first_use`."""
    login: bool = False
    """Every login brings it: `use_login_password_as_client_credentials_secret`."""


NOWHERE = Elsewhere()


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an account cannot be used, or what was decided about it."""

    key: str
    what: str
    mend: str
    others: tuple[str, ...] = ()
    """Keys that would have solved it, too; one of them being wrong, that is told first."""


def flow_of(values: Values) -> tuple[FlowName | None, Problem | None]:
    """The flow that a whole account's settings mean, and what its owner should know about that.

    With a `permission_url` a person signs in, whatever `oauth2_flow` says, but for two cases: `device`, and
    `client_credentials` with a scope that ends in ``/.default``, which only applications ask for.
    """
    wanted = FlowName(values["oauth2_flow"]) if "oauth2_flow" in values else None
    permission_url = "permission_url" in values
    if wanted is None:
        return _flow_without_name(values)
    if wanted is FlowName.AUTHORIZATION_CODE:
        if permission_url or tenant_endpoint(values, "authorize"):
            return FlowName.AUTHORIZATION_CODE, None
        mend = "add the provider's authorization endpoint"
        return None, Problem("permission_url", "is missing, which authorization_code needs", mend)
    application = str(values.get("oauth2_scope", "")).endswith("/.default")
    alone = wanted is FlowName.DEVICE or (wanted is FlowName.CLIENT_CREDENTIALS and application)
    if alone or not permission_url:
        return wanted, None
    return FlowName.AUTHORIZATION_CODE, _browser_instead_of(wanted)


def _flow_without_name(values: Values) -> tuple[FlowName | None, Problem | None]:
    if "permission_url" in values:
        return FlowName.AUTHORIZATION_CODE, None
    if "token_command" in values:
        return FlowName.TOKEN_COMMAND, None
    if "tenant" in values and is_microsoft(values):
        return FlowName.AUTHORIZATION_CODE, None
    mend = "add permission_url to sign in with a browser, or oauth2_flow = client_credentials or another flow"
    return None, Problem("oauth2_flow", "neither it nor permission_url is set", mend, WAYS)


def _browser_instead_of(wanted: FlowName) -> Problem:
    what = f"{wanted} does not apply beside permission_url: authorization_code is used, so a person signs in"
    if wanted is not FlowName.CLIENT_CREDENTIALS:
        mend = f"to use {wanted} remove permission_url ({UNSET}); to sign in with a browser remove oauth2_flow"
        return Problem("oauth2_flow", what, mend)
    mend = (
        "for access as an application remove permission_url and use the scope that ends in /.default "
        "(e.g. https://outlook.office365.com/.default); to sign in as a person remove oauth2_flow"
    )
    return Problem("oauth2_flow", f"{what} (this scope does not end in /.default)", mend)


def problems(values: Values, elsewhere: Elsewhere = NOWHERE) -> list[Problem]:
    """Everything that keeps a whole account's settings from being used."""
    flow, problem = flow_of(values)
    if flow is None and problem:
        basics = [Problem(key, MISSING, f"add {key}", WAYS) for key in BASICS if key not in values]
        return [*basics, problem]
    assert flow is not None
    found = [_lacking(key, values, flow) for key in NEEDS[flow] if key not in values]
    found += _CHECKS[flow](values, elsewhere) if flow in _CHECKS else ()
    found += _provider_problems(values, flow)
    return [problem for problem in found if problem]


def credential(values: Values, flow: FlowName) -> str | None:
    """The key by which a client proves who it is; None: it is a public one."""
    present = [key for key in CREDENTIALS if key in values and flow in SERVES.get(key, CLIENT_FLOWS)]
    return present[0] if present else None


def source(values: Values, name: str) -> SecretSource | None:
    """Where a secret comes from, whichever key of its family says so."""
    found: SecretSource | None = next((values[key] for key in family(name) if key in values), None)
    return found


def _lacking(key: str, values: Values, flow: FlowName) -> Problem | None:
    """What to say of a basic key that is not there; None where something else stands for it."""
    if key == "token_url":
        if tenant_endpoint(values, "token") or credential(values, flow) == "managed_identity":
            return None
        mend = "add tenant, its ID or domain, or token_url" if is_microsoft(values) else "add token_url"
        return Problem(key, MISSING, mend, ("tenant", "provider", "managed_identity"))
    if key == "oauth2_scope" and flow is FlowName.PASSWORD:
        mend = "add oauth2_scope, or oauth2_resource where the provider wants that"
        return None if "oauth2_resource" in values else Problem(key, MISSING, mend, ("oauth2_resource",))
    if key == "client_id" and credential(values, flow) == "managed_identity":
        return None
    if key == "token_command":
        return Problem(key, f"is missing, which {flow} needs", 'add e.g. token_command = ["/usr/bin/my-token", "mail"]')
    return Problem(key, MISSING, f"add {key}")


def _device(values: Values, _elsewhere: Elsewhere) -> Iterator[Problem]:
    if GOOGLE_MAIL in values.get("oauth2_scope", "").split():
        mend = (
            "remove it, with permission_url = https://accounts.google.com/o/oauth2/auth, to sign in with a browser; "
            "without one on this machine use emailproxy authorize --paste"
        )
        yield Problem("oauth2_flow", "is device, by which Google gives no access to mail", mend)
    elif "permission_url" not in values and not is_microsoft(values):
        mend = "add the provider's device authorization endpoint"
        yield Problem("permission_url", "is missing, which device needs", mend)


def _client_credentials(values: Values, elsewhere: Elsewhere) -> Iterator[Problem]:
    known = credential(values, FlowName.CLIENT_CREDENTIALS) is not None or elsewhere.sealed or elsewhere.login
    if not known and "jwt_key_path" not in values:
        mend = "add client_secret, or jwt_certificate_path, client_assertion_file or managed_identity"
        yield Problem("client_secret", "is missing, which client_credentials needs", mend, CREDENTIALS)
    if is_microsoft(values) and values.get("tenant") in SHARED_TENANTS:
        what = f"is {values['tenant']}, which has no tokens for applications"
        yield Problem("tenant", what, "write the ID or the domain of the tenant that the mailboxes are in")


def _service_account(values: Values, elsewhere: Elsewhere) -> Iterator[Problem]:
    secret, client_id = source(values, "client_secret"), str(values.get("client_id", "")).casefold()
    if client_id not in (KEY_FILE, KEY_JSON, ""):
        mend = f"write {KEY_FILE}, with the key's path as client_secret, or {KEY_JSON}, with its JSON ({UNSET})"
        yield Problem("client_id", f"is neither {KEY_FILE} nor {KEY_JSON}, as service_account needs it", mend)
    elif secret is None and client_id and not elsewhere.sealed:
        mend = "add client_secret: the key's path" if client_id == KEY_FILE else "add client_secret: the key's JSON"
        yield Problem("client_secret", f"is missing, which client_id = {client_id} needs", mend, SECRET_KEYS)
    elif secret is not None and not client_id:
        mend = f"write client_id = {KEY_FILE}, if client_secret is a path, or client_id = {KEY_JSON}, if it is JSON"
        yield Problem("client_id", "is missing, which service_account needs beside client_secret", mend)
    elif isinstance(secret, Secret):
        yield from _service_account_key(client_id, secret.reveal())


def _service_account_key(client_id: str, text: str) -> Iterator[Problem]:
    is_json = json_object(text) is not None
    if client_id == KEY_JSON and not is_json:
        mend = f"paste the whole key, from {{ to }}, its lines indented; for the path of a file: client_id = {KEY_FILE}"
        yield Problem("client_secret", f"is no JSON, which client_id = {KEY_JSON} needs", mend)
    elif client_id == KEY_FILE and is_json:
        yield Problem("client_secret", "is JSON, where a path is needed", f"write client_id = {KEY_JSON}")
    elif client_id == KEY_FILE and not kinds.is_path(text):
        yield Problem("client_secret", "is no path", "write the path of the key file")


_CHECKS = {
    FlowName.DEVICE: _device,
    FlowName.CLIENT_CREDENTIALS: _client_credentials,
    FlowName.SERVICE_ACCOUNT: _service_account,
}


def _provider_problems(values: Values, flow: FlowName) -> Iterator[Problem]:
    said = values.get("provider", ProviderName.GOOGLE)
    if flow is FlowName.SERVICE_ACCOUNT and said != ProviderName.GOOGLE:
        yield Problem(
            "provider", f"is {said}, and service_account is Google's", f"write google, or remove it ({UNSET})"
        )
    if credential(values, flow) == "managed_identity" and not is_microsoft(values):
        key = "provider" if "provider" in values else "token_url"
        yield Problem(key, "is not Microsoft's, and managed_identity is", f"remove it ({UNSET})")
    elsewhere = {key: value for key, value in values.items() if key != "tenant"}
    said, known = tenant_endpoint(values, "token"), tenant_endpoint(elsewhere, "token")
    if "tenant" in values and is_microsoft_host(values.get("token_url", "")) and said != known:
        yield Problem("tenant", "is not the one that token_url names", "keep one of the two")
    without_secret = flow in CLIENT_FLOWS and credential(values, flow) not in SECRET_KEYS
    if without_secret and "jwt_key_path" in values and "jwt_certificate_path" not in values:
        yield Problem("jwt_certificate_path", "is missing, which jwt_key_path needs", "add the certificate of that key")


def without_effect(values: Values, flow: FlowName) -> Iterator[Problem]:
    """The settings that an account has in vain."""
    for key, flows in SERVES.items():
        if key in values and flow not in flows:
            yield Problem(key, f"has no effect with {flow}", "remove it, or choose its flow by oauth2_flow")
    used = credential(values, flow)
    for key in CREDENTIALS:
        if key in values and key not in (used, *SECRET_KEYS) and flow in SERVES[key]:
            yield Problem(key, f"is not used, for {used} is there", f"remove one of the two ({UNSET})")
    if "tenant" in values and not is_microsoft(values):
        mend = "add provider = microsoft, if it is Microsoft, or remove it"
        yield Problem("tenant", "has no effect: the provider is not Microsoft", mend)
    path = str(values.get("permission_url", "")).partition("?")[0].rstrip("/")
    if flow is FlowName.DEVICE and not is_microsoft(values) and path.endswith(("/authorize", "/auth")):
        what = "looks like a page to sign in at, and device needs the device authorization endpoint"
        yield Problem("permission_url", what, "write that one, as the provider documents it")
