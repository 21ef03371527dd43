"""Mail providers by name: their servers and OAuth 2.0 endpoints, as they document them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from emailproxy.config.model import FlowName, MailProtocol, MailServer, ProviderName
from emailproxy.config.providers import PUBLIC_CLOUD_HOSTS, Values, host_of, is_microsoft


@dataclass(frozen=True, slots=True)
class Provider:
    """What `register --provider` fills in."""

    servers: Mapping[MailProtocol, MailServer]
    token_url: str
    permission_url: str
    scope: str
    needs_secret: bool
    """Whether its token endpoint wants a client secret even of programs on a person's own machine."""
    application_token_url: str | None = None
    """Where applications get tokens without a person (RFC 6749 section 4.4); None: it has no such grant."""
    application_scope: str | None = None
    device_url: str | None = None
    """The device authorization endpoint (RFC 8628 section 3.1); None: it has none."""
    service_accounts: bool = False

    def endpoints(self, flow: str | None) -> dict[str, str]:
        """The keys of an account that follow from the provider; `flow` is None where none is named."""
        match flow:
            case FlowName.CLIENT_CREDENTIALS if self.application_token_url and self.application_scope:
                return {"token_url": self.application_token_url, "oauth2_scope": self.application_scope}
            case FlowName.DEVICE:
                device = {"permission_url": self.device_url} if self.device_url else {}
                return {"token_url": self.token_url, **device, "oauth2_scope": self.scope}
            case FlowName.PASSWORD:
                return {"token_url": self.application_token_url or self.token_url, "oauth2_scope": self.scope}
            case FlowName.SERVICE_ACCOUNT:
                return {"oauth2_scope": self.scope}
            case FlowName.TOKEN_COMMAND:
                return {}
            case _:
                return {
                    "token_url": self.token_url,
                    "permission_url": self.permission_url,
                    "oauth2_scope": self.scope,
                }


def _tls(imap: str, pop: str, smtp: str) -> Mapping[MailProtocol, MailServer]:
    """Servers on the ports of implicit TLS (RFC 8314 section 7.3)."""
    return MappingProxyType(
        {
            MailProtocol.IMAP: MailServer(imap, 993),
            MailProtocol.POP: MailServer(pop, 995),
            MailProtocol.SMTP: MailServer(smtp, 465),
        }
    )


GOOGLE = Provider(
    servers=_tls("imap.gmail.com", "pop.gmail.com", "smtp.gmail.com"),
    token_url="https://oauth2.googleapis.com/token",  # noqa: S106 - an address
    permission_url="https://accounts.google.com/o/oauth2/auth",
    scope="https://mail.google.com/",
    needs_secret=True,
    service_accounts=True,  # and no device_url: Google's device codes give no access to mail
)

_TENANTS = "https://login.microsoftonline.com"
ANY_TENANT = "common"
TENANT = "TENANT_ID"
"""A placeholder; Microsoft's endpoints have one for each tenant."""

MICROSOFT = Provider(
    servers=MappingProxyType(
        {
            MailProtocol.IMAP: MailServer("outlook.office365.com", 993),
            MailProtocol.POP: MailServer("outlook.office365.com", 995),
            MailProtocol.SMTP: MailServer("smtp.office365.com", 587, starttls=True),
        }
    ),
    token_url=f"{_TENANTS}/{ANY_TENANT}/oauth2/v2.0/token",
    permission_url=f"{_TENANTS}/{ANY_TENANT}/oauth2/v2.0/authorize",
    # not of outlook.office365.com, which personal accounts are refused
    scope=(
        "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/POP.AccessAsUser.All "
        "https://outlook.office.com/SMTP.Send offline_access"
    ),
    needs_secret=False,
    # applications belong to one tenant: `common` has no tokens for them
    application_token_url=f"{_TENANTS}/{TENANT}/oauth2/v2.0/token",
    application_scope="https://outlook.office365.com/.default",
    device_url=f"{_TENANTS}/{ANY_TENANT}/oauth2/v2.0/devicecode",
)

FASTMAIL = Provider(
    servers=_tls("imap.fastmail.com", "pop.fastmail.com", "smtp.fastmail.com"),
    token_url="https://api.fastmail.com/oauth/refresh",  # noqa: S106 - an address
    permission_url="https://api.fastmail.com/oauth/authorize",
    scope=(
        "https://www.fastmail.com/dev/protocol-imap https://www.fastmail.com/dev/protocol-pop "
        "https://www.fastmail.com/dev/protocol-smtp"
    ),
    needs_secret=False,
)

YAHOO = Provider(
    servers=_tls("imap.mail.yahoo.com", "pop.mail.yahoo.com", "smtp.mail.yahoo.com"),
    token_url="https://api.login.yahoo.com/oauth2/get_token",  # noqa: S106 - an address
    permission_url="https://api.login.yahoo.com/oauth2/request_auth",
    scope="mail-w",
    needs_secret=True,
)


def of_tenant(endpoints: Mapping[str, str], tenant: str) -> dict[str, str]:
    """Microsoft's endpoints, those of one tenant."""
    found = dict(endpoints)
    for key in ("token_url", "permission_url"):
        for other in (ANY_TENANT, TENANT):
            if key in found:
                found[key] = found[key].replace(f"{_TENANTS}/{other}/", f"{_TENANTS}/{tenant}/")
    return found


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {"google": GOOGLE, "microsoft": MICROSOFT, "fastmail": FASTMAIL, "yahoo": YAHOO}
)

HOSTS: Mapping[str, Provider] = MappingProxyType(
    {
        **{urlsplit(known.token_url).hostname or "": known for known in PROVIDERS.values()},
        "accounts.google.com": GOOGLE,
        "www.googleapis.com": GOOGLE,
    }
)
"""Whose a token endpoint is, by its host; Google has had several."""

SERVER_KEYS: Mapping[MailProtocol, str] = MappingProxyType(
    {protocol: f"{protocol.lower()}_server" for protocol in MailProtocol}
)
"""The keys by which an account names mail servers of its own."""


def provider_of(values: Values) -> Provider | None:
    """The provider that an account's settings are at; None where it is not one of these.

    Microsoft's national clouds have mail servers of their own, which only their customers know.
    """
    if is_microsoft(values):
        hosts = {host for key in ("token_url", "permission_url") if (host := host_of(values.get(key, "")))}
        return MICROSOFT if hosts <= PUBLIC_CLOUD_HOSTS else None
    if values.get("provider") == ProviderName.GOOGLE or values.get("oauth2_flow") == FlowName.SERVICE_ACCOUNT:
        return GOOGLE
    return HOSTS.get(host_of(values.get("token_url", "")))


def mail_server(values: Values, protocol: MailProtocol) -> MailServer | None:
    """The mail server of an account: the one that it names, or its provider's."""
    own: MailServer | None = values.get(SERVER_KEYS[protocol])
    if own:
        return own
    provider = provider_of(values)
    return provider.servers[protocol] if provider else None
