"""The configuration as frozen models. `config.ini` makes them from a file, and checks every value on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from emailproxy.config.hosts import host_and_port, is_local_address, is_loopback
from emailproxy.config.sources import FromEnvironment, Hook, SecretSource
from emailproxy.errors import Fault
from emailproxy.secret import Secret

SECONDS = 1
MINUTES = 60 * SECONDS
HOURS = 60 * MINUTES
DAYS = 24 * HOURS
KIB = 1024
MIB = 1024 * KIB

DEFAULT_LISTEN_ADDRESS = "127.0.0.1:8801"
DEFAULT_REDIRECT_URI = "http://localhost:8801/"
DEFAULT_DRAIN_TIMEOUT_S = 30.0 * SECONDS
MAX_PREWARM = 100  # connections that wait for logins; a provider may think otherwise of far fewer
HTTP_PORT = 80
ANYBODY = "*"
"""The `token_owner` of an account whose sign-in is not compared with anything: user names differ from mail addresses in
many organisations, and a whole domain of accounts has one section."""


Networks = tuple[IPv4Network | IPv6Network, ...]
"""Where peers may come from; empty: from anywhere, or from nowhere, as the key says."""


class Bounds(NamedTuple):
    """What a number in the file may be."""

    low: float
    high: float
    above_low: bool = False
    """Whether it must be more than `low`."""


BOUNDS = "bounds"
"""Where a field's metadata has its `Bounds`, for `config.keys`."""


def number(default: float | None, *, ge: float | None = None, gt: float | None = None, le: float) -> Any:
    """A field of a number that the file may set, within bounds."""
    low = gt if ge is None else ge
    assert low is not None
    return field(default=default, metadata={BOUNDS: Bounds(low, le, above_low=ge is None)})


class MailProtocol(StrEnum):
    """The values are the section prefixes: ``[IMAP-2993]``."""

    IMAP = "IMAP"
    POP = "POP"
    SMTP = "SMTP"


class FlowName(StrEnum):
    """The values of `oauth2_flow`."""

    AUTHORIZATION_CODE = "authorization_code"
    DEVICE = "device"
    CLIENT_CREDENTIALS = "client_credentials"
    PASSWORD = "password"  # noqa: S105 - a name, not a secret
    SERVICE_ACCOUNT = "service_account"
    TOKEN_COMMAND = "token_command"  # noqa: S105 - a name, not a secret


class ProviderName(StrEnum):
    """Which library speaks with the provider."""

    GENERIC = "generic"
    """oauthlib: what the RFCs say."""
    MICROSOFT = "microsoft"
    """msal."""
    GOOGLE = "google"
    """google-auth, for service accounts; whatever else Google offers is as the RFCs say."""


class FirstLogin(StrEnum):
    """The values of `first_login`: what happens when an account logs in that has no password here yet."""

    TRUST = "trust"
    """Its password becomes the account's first."""
    DENY = "deny"
    """It is refused, with the command to run."""


class LocalStartTls(StrEnum):
    """The values of `local_starttls`."""

    OFF = "off"
    """With a certificate, TLS from the first octet; without one, plaintext."""
    OFFERED = "offered"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server as a connection to it needs it."""

    address: str
    port: int
    starttls: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where an account's logins go, and how many of its sessions may stand at once."""

    account: str
    """The account's key: sessions are counted by it."""
    server: MailServer | None = None
    """The account's own, for listeners that have none."""
    max_connections: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One listening section and the mail server behind it, or none: then each account names its own."""

    section: str
    protocol: MailProtocol
    local_port: int
    """0 lets the operating system choose; a file cannot say so."""
    local_address: str | None = None
    """None: the loopbacks that this host has."""
    server_address: str | None = None
    """None: where the account says (`imap_server`, `pop_server`, `smtp_server`)."""
    server_port: int | None = None
    server_starttls: bool = False
    ca_file: Path | None = None
    """In place of the system's trust store."""
    ehlo_name: str | None = None
    local_certificate: Path | None = None
    """`local_certificate_path`: PEM, the chain included. With it the port speaks TLS."""
    local_key: Path | None = None
    """`local_key_path`; None: the key is in the certificate's file."""
    local_starttls: LocalStartTls = LocalStartTls.OFF
    first_login: FirstLogin | None = None
    """None: trust on loopbacks, deny elsewhere."""
    allow_from: Networks = ()
    """Empty: from anywhere."""
    allow_plaintext_from: Networks = ()
    """Who may do without TLS on an address that is no loopback."""
    proxy_protocol_from: Networks = ()
    """Whose connections begin with a PROXY protocol header; all others' must not."""
    max_connections_per_account: int | None = number(None, ge=1, le=1_000_000)
    """In place of the `[emailproxy]` section's."""
    prewarm: int | None = number(None, ge=0, le=MAX_PREWARM)
    """Connections to the mail server that are opened ahead of logins. The reader fills in the `[emailproxy]` section's
    where this one has none."""
    login_as: str | None = None
    """SMTP only: the account of clients that send mail without logging in."""
    login_as_password: SecretSource | None = None
    """That account's local password."""

    @property
    def target(self) -> MailServer | None:
        """The mail server behind the port; None where each account names its own."""
        if self.server_address is None or self.server_port is None:
            return None
        return MailServer(self.server_address, self.server_port, self.server_starttls)

    @property
    def on_loopback(self) -> bool:
        """Whether it is certain that nothing but this host's loopbacks is listened on."""
        return is_local_address(self.local_address)

    @property
    def for_this_host(self) -> bool:
        """Whether clients are certain to be on this host: a load balancer in front brings others."""
        return self.on_loopback and not self.proxy_protocol_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account's OAuth 2.0 settings, inherited ones included."""

    name: str
    """As its own section or, for a catch-all, the login spells it."""
    section: str
    """The most specific section that its settings come from."""
    flow: FlowName
    provider: ProviderName = ProviderName.GENERIC
    tenant: str | None = None
    """Microsoft's: an ID or a domain; where it is None, `token_url` says it."""
    token_url: str = ""
    """Empty where the flow or the provider has no use for one (token command, service account, managed identity)."""
    permission_url: str | None = None
    """The authorization endpoint; for the device flow, the device authorization endpoint."""
    scope: str = ""
    resource: str | None = None
    """`oauth2_resource`, in place of a scope, for the password flow."""
    client_id: str = ""
    client_secret: SecretSource | None = None
    """For service_account: the key file's path (`client_id = file`) or its JSON (`client_id = key`)."""
    certificate: Path | None = None
    """`jwt_certificate_path`: PEM, or PFX with its key. The client authenticates with a signed assertion (RFC 7523)."""
    certificate_key: Path | None = None
    """`jwt_key_path`."""
    key_passphrase: SecretSource | None = None
    """`jwt_key_passphrase`, of the key or the PFX."""
    client_assertion_file: Path | None = None
    """A federated assertion that somebody else renews (workload identity); read anew at every use."""
    managed_identity: str | None = None
    """Azure's: ``system``, or the client ID of a user-assigned identity."""
    service_account_email: str | None = None
    """The service account to act as, where there is no key: impersonation, workload identity federation."""
    token_command: tuple[str, ...] = ()
    token_command_timeout: float = number(30.0, gt=0, le=10 * MINUTES)
    """Seconds."""
    prompt: str | None = None
    """OpenID Connect Core section 3.1.2.1: none, login, consent, select_account."""
    login_hint: str | None = None
    """In place of the account's name; an empty one sends none."""
    authorize_params: tuple[tuple[str, str], ...] = ()
    """Further parameters of the authorization request, names and values."""
    token_owner: str | None = None
    """Whose consent serves this mailbox, where it is not its own name's: shared mailboxes. Their passwords here and
    their tokens are the owner's. ``*``: whoever signs in."""
    auth_as: str | None = None
    """The SASL user upstream, in place of the account's name."""
    smtp_auth_as: str | None = None
    """The same for SMTP only, before `auth_as`."""
    imap_server: MailServer | None = None
    pop_server: MailServer | None = None
    smtp_server: MailServer | None = None
    first_login: FirstLogin | None = None
    """None: as the listener says."""
    allow_from: Networks = ()
    """Empty: from anywhere."""
    max_connections: int | None = number(None, ge=1, le=1_000_000)
    """`max_connections_per_account`, in place of the listener's and the `[emailproxy]` section's."""
    redirect_uri: str = DEFAULT_REDIRECT_URI
    redirect_listen_address: str | None = None

    @property
    def key(self) -> str:
        """The name by which state is kept: account names compare without regard to case.

        That of the owner, where one consent serves many mailboxes.
        """
        owner = self.token_owner
        return (self.name if owner is None or owner == ANYBODY else owner).casefold()

    def server_for(self, protocol: str) -> MailServer | None:
        """The account's own mail server; `protocol` is ``IMAP``, ``POP`` or ``SMTP``."""
        servers = {"IMAP": self.imap_server, "POP": self.pop_server, "SMTP": self.smtp_server}
        return servers[protocol]

    @property
    def listen_address(self) -> str:
        """Where the redirect listener of this account listens, as ``host:port``.

        `redirect_listen_address`, or else `redirect_uri` itself where it is plain HTTP on a loopback; any
        other `redirect_uri` is a reverse proxy's, which finds us at ``127.0.0.1:8801``.
        """
        address = self.redirect_listen_address
        parts = urlsplit(address if address and "://" in address else f"//{address}" if address else "")
        if not parts.hostname:
            parts = urlsplit(self.redirect_uri)
            if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
                return DEFAULT_LISTEN_ADDRESS
        return host_and_port(parts.hostname or "", HTTP_PORT if parts.port is None else parts.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """What another proxy keeps of an account, in its section or in its `--cache-store` file: read, never written.

    The values are Fernet tokens (AES-128-CBC and HMAC-SHA256) under PBKDF2-HMAC-SHA256 of the login password.
    """

    salt: bytes = field(repr=False)
    """`token_salt`, as a rule 16 octets; where a section lacks it, its catch-all's."""
    iterations: int | None = None
    """`token_iterations`; None: not told."""
    access_token: str | None = field(default=None, repr=False)
    access_token_expiry_s: int | None = None
    """Seconds since the epoch."""
    refresh_token: str | None = field(default=None, repr=False)
    client_secret: str | None = field(default=None, repr=False)
    """`client_secret_encrypted`; the account's own, or inherited with its salt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The `[emailproxy]` section."""

    ca_file: Path | None = None
    state_dir: Path
    log_file: Path
    log_size_mib: int = number(10, ge=1, le=10_240)
    log_files: int = number(5, ge=1, le=1000)
    """How many rotated files are kept beside the current one."""
    consent_wait: float = number(20.0, ge=0, le=1 * HOURS)
    """Seconds that a login waits for a person before its client is told to come back."""
    login_timeout: float = number(60.0, gt=0, le=1 * HOURS)
    """Seconds that a client has to log in; longer only while a consent is awaited."""
    drain_timeout: float = number(DEFAULT_DRAIN_TIMEOUT_S, ge=0, le=1 * HOURS)
    """Seconds that sessions have for what is under way, once the server is told to end."""
    max_connections: int = number(1000, ge=1, le=1_000_000)
    max_connections_per_address: int = number(200, ge=1, le=1_000_000)
    max_connections_per_account: int | None = number(None, ge=1, le=1_000_000)
    """Sessions of one account and protocol at once; None: no limit but what a provider is known for."""
    max_unauthenticated: int = number(500, ge=1, le=1_000_000)
    """Connections at once, of all listeners, whose login is not decided yet."""
    login_queue: float = number(30.0, ge=0, le=1 * HOURS)
    """Seconds that a login waits for another of its account's sessions to end, where there are too many."""
    workers: int = number(1, ge=1, le=64)
    """Processes that share the ports."""
    prewarm: int = number(0, ge=0, le=MAX_PREWARM)
    """Connections to each section's mail server that are opened ahead of logins."""
    runtime_dir: Path | None = None
    """Where the control socket lies; None: the system's place for such."""
    upstream_proxy: Secret | None = None
    """An HTTP CONNECT or SOCKS5 proxy for all connections outwards, as a URL; it may hold a password."""
    no_proxy: tuple[str, ...] = ()
    """Hosts, domains and networks that are reached without it."""
    refresh_margin: float = number(10.0 * MINUTES, ge=0, le=1 * DAYS)
    """Seconds before its end that an access token is renewed; half its life at most."""
    keep_alive: float = number(20.0 * DAYS, gt=0, le=365 * DAYS)
    """Seconds after which a refresh token is used at the latest, so that it does not die of idleness."""
    on_consent_required: Hook | None = None
    on_sign_in_needed: Hook | None = None
    on_token_refreshed: Hook | None = None
    on_login_failed: Hook | None = None
    hook_timeout: float = number(30.0, gt=0, le=10 * MINUTES)
    """Seconds."""
    hook_secret: SecretSource | None = None
    """Signs what is posted to a hook's URL (HMAC-SHA256)."""
    allow_catch_all_accounts: bool = False
    delete_account_token_on_password_error: bool = False
    encrypt_client_secret_on_first_use: bool = False
    use_login_password_as_client_credentials_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration file."""

    path: Path
    settings: Settings
    servers: tuple[Server, ...]
    sections: Mapping[str, Mapping[str, Any]]
    """The account sections as `config.keys` reads them, keyed by case-folded name; `config.catchall` resolves them."""
    spellings: Mapping[str, str] = field(default_factory=dict)
    """The names of those sections as the file spells them, keyed the same."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further login names, case-folded, to the case-folded names of the account sections that list them."""
    cached: Mapping[str, Cached] = field(default_factory=dict)
    """What another proxy keeps of the accounts, by case-folded name."""
    notices: tuple[str, ...] = ()
    """Repairs and warnings, each naming file, line, key and mend."""
    placeholders: tuple[Fault, ...] = ()
    """Values that still wait to be filled in; `serve` refuses a file that has any."""

    _resolved: dict[str, Account] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `config.catchall` has resolved, by login name."""

    @property
    def prewarmed(self) -> int:
        """How many connections to mail servers are opened ahead, of all sections together."""
        return sum(server.prewarm or 0 for server in self.servers if server.target is not None)

    @property
    def variables(self) -> frozenset[str]:
        """The environment variables that hold secrets, which no child may see."""
        values = [value for section in self.sections.values() for value in section.values()]
        sources = [*values, self.settings.hook_secret, *(server.login_as_password for server in self.servers)]
        return frozenset(source.name for source in sources if isinstance(source, FromEnvironment))
