"""Which provider an account has, and the endpoints that Microsoft's tenants have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from emailproxy.config.model import FlowName, ProviderName

Values = Mapping[str, Any]
"""An account's settings by key, as the readers of `config.keys` make them."""

MICROSOFT_HOSTS = (
    "login.microsoftonline.com",
    "login-us.microsoftonline.com",
    "login.microsoft.com",
    "login.windows.net",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
    "login.microsoftonline.us",
    "login.sovcloud-identity.fr",
    "login.sovcloud-identity.de",
    "login.sovcloud-identity.sg",
)
"""Where Microsoft's clouds sign people and applications in, the national ones included."""

PUBLIC_CLOUD_HOSTS = frozenset({"login.microsoftonline.com", "login.microsoft.com", "login.windows.net"})
PUBLIC_CLOUD = "https://login.microsoftonline.com"

FIXED_PROVIDERS = {
    FlowName.SERVICE_ACCOUNT: ProviderName.GOOGLE,
    FlowName.PASSWORD: ProviderName.GENERIC,  # msal takes scopes only, no resource
    FlowName.TOKEN_COMMAND: ProviderName.GENERIC,
}
"""Flows that one provider's code serves, whoever the provider is."""


def is_microsoft(values: Values) -> bool:
    """Whether an account is at Microsoft: because it says so, or by the host of its `token_url`."""
    if "provider" in values:
        return bool(values["provider"] == ProviderName.MICROSOFT)
    if "token_url" in values:
        return is_microsoft_host(values["token_url"])
    return "tenant" in values or "managed_identity" in values


def host_of(url: str) -> str:
    """The host of a URL, empty where there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # a draft may hold what is no URL yet
        return ""


def is_microsoft_host(url: str) -> bool:
    host = host_of(url)
    return any(host == known or host.endswith(f".{known}") for known in MICROSOFT_HOSTS)


def provider_of(values: Values, flow: FlowName) -> ProviderName:
    """Which library speaks with an account's provider."""
    if flow in FIXED_PROVIDERS:
        return FIXED_PROVIDERS[flow]
    if is_microsoft(values):
        return ProviderName.MICROSOFT
    return ProviderName(values.get("provider", ProviderName.GENERIC))


def tenant_endpoint(values: Values, name: str) -> str | None:
    """The endpoint of that name in an account's Microsoft tenant; None where no tenant, or no Microsoft, is known.

    The cloud is that of the URLs that are there, the tenant `tenant`, or else the one they name.
    """
    if not is_microsoft(values):
        return None
    cloud, tenant = PUBLIC_CLOUD, values.get("tenant")
    known = next(
        (url for key in ("token_url", "permission_url") if is_microsoft_host(url := values.get(key, ""))), None
    )
    if known:
        parts = urlsplit(known)
        cloud = f"{parts.scheme}://{parts.netloc}"
        tenant = tenant or parts.path.strip("/").partition("/")[0]
    return f"{cloud}/{tenant}/oauth2/v2.0/{name}" if tenant else None
