"""Google's credential files, and what google-auth makes of them: a service account that acts for a mailbox.

A mailbox is opened by domain-wide delegation: the service account signs an assertion whose `sub` is the mailbox's
address (RFC 7523 section 3), with its own key or, where nobody holds the key, by asking IAM to sign it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from emailproxy.config.model import Account
from emailproxy.errors import AccountUnusable, one_line
from emailproxy.oauth.identity import expected

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.auth.transport import Request

MAIL_SCOPE = "https://mail.google.com/"
"""IMAP, POP3 and SMTP."""
TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address, not a secret
OWN_DOMAINS = (".googleapis.com", ".google.com")
UNIVERSE = "googleapis.com"
"""Domain-wide delegation is Google Workspace's, which is in no other "universe" (sovereign cloud)."""

SERVICE_ACCOUNT = "service_account"
EXTERNAL_ACCOUNT = "external_account"
IMPERSONATED = "impersonated_service_account"
AUTHORIZED_USER = "authorized_user"
MEMBERS = {
    SERVICE_ACCOUNT: ("client_email", "private_key"),
    EXTERNAL_ACCOUNT: ("audience", "subject_token_type", "token_url", "credential_source"),
    IMPERSONATED: ("source_credentials", "service_account_impersonation_url"),
    AUTHORIZED_USER: ("client_id", "client_secret", "refresh_token"),
}
"""What a file must say, by its `type`."""
OBJECTS = {"credential_source", "source_credentials"}
AWS_SUBJECT = "urn:ietf:params:aws:token-type:aws4_request"
MACHINE = "the machine's metadata server"
CREATE_A_KEY = "create one in the Google Cloud console (IAM & Admin, Service Accounts, Keys, Add key, JSON)"

# iamcredentials v1: projects/-/serviceAccounts/{email}:generateAccessToken
IMPERSONATION_URL = re.compile(r".*/([^/:]+@[^/:]+):generateAccessToken")


@dataclass(frozen=True, slots=True)
class Source:
    """A credential file's content, and how error texts call it."""

    name: str
    content: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        return str(self.content["type"])


def parsed(account: Account, name: str, text: str | bytes) -> Source:
    """The credentials in a JSON text.

    Raises:
        AccountUnusable: it holds no credentials that serve.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise unusable(account, name, "is not a JSON key of a service account", CREATE_A_KEY)
    return checked(account, Source(name, content))


def checked(account: Account, source: Source) -> Source:
    """The source, if it is of a kind that serves and says what that kind must."""
    kind = source.content.get("type")
    if "installed" in source.content or "web" in source.content:
        raise unusable(
            account,
            source.name,
            "is the secret of an OAuth client, not the key of a service account",
            f"{CREATE_A_KEY}; or sign in with that client: oauth2_flow = authorization_code",
        )
    if not isinstance(kind, str) or kind not in MEMBERS:
        told = f"the type {kind[:40]!r}" if isinstance(kind, str) else "no type"
        raise unusable(account, source.name, f"has {told}, which must be one of {', '.join(MEMBERS)}", CREATE_A_KEY)
    missing = [member for member in MEMBERS[kind] if not says(source.content, member)]
    if missing:
        raise unusable(account, source.name, f"lacks {', '.join(missing)}", "download or generate it again")
    return source


def says(content: Mapping[str, Any], member: str) -> bool:
    value = content.get(member)
    return bool(value) and isinstance(value, dict if member in OBJECTS else str)


def default_file() -> Path | None:
    """Where application default credentials lie: GOOGLE_APPLICATION_CREDENTIALS, or where gcloud puts them."""
    from google.auth import _cloud_sdk, environment_vars

    named = os.environ.get(environment_vars.CREDENTIALS)
    if named:
        return Path(named)
    path = Path(_cloud_sdk.get_application_default_credentials_path())
    return path if path.is_file() else None


def principal_of(account: Account, source: Source | None) -> str:
    """The service account that acts for the mailbox.

    Raises:
        AccountUnusable: neither the configuration nor the source names one.
    """
    named = account.service_account_email
    if named:
        return named
    if source is None:
        raise no_credentials(account)
    named = own_principal(source)
    if not named:
        raise unusable(account, source.name, "names no service account", "set service_account_email to one to act as")
    return named


def own_principal(source: Source) -> str | None:
    """The service account that the credentials are, or ask to impersonate."""
    if source.kind == SERVICE_ACCOUNT:
        return str(source.content["client_email"])
    match = IMPERSONATION_URL.fullmatch(str(source.content.get("service_account_impersonation_url", "")))
    return match[1] if match else None


def delegated(account: Account, source: Source | None, machine: Credentials | None) -> Credentials:
    """google-auth's credentials, whose refresh yields an access token for the mailbox.

    Without a source it is the machine that asks.

    Raises:
        AccountUnusable: the source cannot serve.
    """
    principal = principal_of(account, source)
    scopes = account.scope.split() or [MAIL_SCOPE]
    if source is not None and source.kind == SERVICE_ACCOUNT and source.content["client_email"] == principal:
        return with_key(account, source, scopes=scopes, subject=expected(account))
    from google.auth import impersonated_credentials

    delegates = source.content.get("delegates") if source is not None and source.kind == IMPERSONATED else None
    return impersonated_credentials.Credentials(
        machine if source is None else loaded(account, source),
        target_principal=principal,
        target_scopes=scopes,
        delegates=delegates,
        subject=expected(account),
    )


def loaded(account: Account, source: Source) -> Credentials:
    """Who asks IAM for the service account's signature."""
    match source.kind:
        case "service_account":
            return with_key(account, source)
        case "external_account":
            return federated(account, source)
        case "impersonated_service_account":
            inner = Source(f"source_credentials in {source.name}", source.content["source_credentials"])
            return loaded(account, checked(account, inner))
        case _:
            from google.oauth2.credentials import Credentials as UserCredentials

            try:
                user: Credentials = UserCredentials.from_authorized_user_info(source.content)
            except (ValueError, TypeError, AttributeError):
                raise incomplete(account, source) from None
            return user


def with_key(account: Account, source: Source, **options: Any) -> Credentials:
    """A service account that signs with its own key."""
    from google.oauth2 import service_account

    content = {"token_uri": TOKEN_URL, **source.content, **own_token_url(account), "universe_domain": UNIVERSE}
    if not says(content, "token_uri"):
        raise incomplete(account, source)
    try:
        credentials: Credentials = service_account.Credentials.from_service_account_info(content, **options)
    except Exception:  # cryptography's errors, ValueError and TypeError; their texts may quote the key
        raise unusable(
            account, source.name, "holds a private_key that cannot be read", "download the key again, or create a new"
        ) from None
    return credentials


def own_token_url(account: Account) -> dict[str, str]:
    """`token_url` stands in place of the key's `token_uri` where it leads away from Google's own hosts: that one
    was set on purpose, while Google's are in every template and preset."""
    host = urlsplit(account.token_url).hostname or ""
    return {"token_uri": account.token_url} if host and not f".{host}".endswith(OWN_DOMAINS) else {}


def federated(account: Account, source: Source) -> Credentials:
    """A workload whose own platform vouches for it (workload identity federation, RFC 8693)."""
    from google.auth import aws, identity_pool

    if "executable" in source.content["credential_source"]:
        raise unusable(
            account, source.name, "takes its subject token from a program", "use token_command, or a file or URL source"
        )
    named = source.content["credential_source"].get("file")
    if isinstance(named, str) and (mode := mode_of(named)) is not None and not stat.S_ISREG(mode):
        raise unusable(account, source.name, f"names {one_line(named)}, which is no file", "mend the file or its name")
    kind = aws if source.content["subject_token_type"] == AWS_SUBJECT else identity_pool
    try:
        credentials: Credentials = kind.Credentials.from_info(source.content)
    except (ValueError, TypeError, AttributeError):  # google-auth's MalformedError and InvalidValue are ValueErrors
        raise incomplete(account, source) from None
    return credentials


def mode_of(path: str) -> int | None:
    """What it is that is there (stat(2)); google-auth would wait for ever at a FIFO, and read a device without end."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None


def machine_of(account: Account, request: Request) -> Credentials:
    """The service account of the machine or container that we run on, if its metadata server answers.

    Raises:
        AccountUnusable: there is none.
    """
    import google.auth
    from google.auth import compute_engine, exceptions

    try:
        credentials: Credentials = google.auth.default(request=request)[0]
    except exceptions.DefaultCredentialsError:
        raise no_credentials(account) from None
    if isinstance(credentials, compute_engine.Credentials):
        credentials = credentials.with_universe_domain(UNIVERSE)  # else it is asked for, past our session's limits
    return credentials


def no_credentials(account: Account) -> AccountUnusable:
    return unusable(
        account,
        "client_secret",
        "is not set, and there are no application default credentials of a service account",
        "give the path of a JSON key in client_secret, or set GOOGLE_APPLICATION_CREDENTIALS or service_account_email",
    )


def incomplete(account: Account, source: Source) -> AccountUnusable:
    return unusable(account, source.name, f"is no complete {source.kind} file", "download or generate it again")


def unusable(account: Account, name: str, what: str, mend: str) -> AccountUnusable:
    return AccountUnusable(f"{account.name}: {name} {what}; {mend}")
