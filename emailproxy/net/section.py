"""A listening section as its sessions see it: they keep the settings that they began with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emailproxy.config.model import LocalStartTls, Route, Server
from emailproxy.errors import AccountUnusable
from emailproxy.net.admission import NotAdmitted, Seldom, is_loopback, within
from emailproxy.net.localtls import LocalCertificate
from emailproxy.net.prewarm import Prewarmed
from emailproxy.net.tls import client_context
from emailproxy.wire import events as ev

if TYPE_CHECKING:
    from emailproxy.config.model import MailServer
    from emailproxy.net.shared import Shared
    from emailproxy.net.tokens import TokenSource

OPTIONS = {"IMAP": "imap_server", "POP": "pop_server", "SMTP": "smtp_server"}
SWITCH_ON_TLS = "this port takes no passwords in plaintext from your network; it offers no TLS either"


@dataclass(frozen=True)
class Section:
    """One listening section, what belongs to it, and what it shares with the others."""

    server: Server
    shared: Shared
    tokens: TokenSource
    certificate: LocalCertificate | None
    prewarmed: Prewarmed
    """The connections to its mail server that are opened ahead, if any."""
    complaints: Seldom = field(default_factory=Seldom)

    @classmethod
    def of(cls, server: Server, shared: Shared, tokens: TokenSource | None) -> Section:
        """Reads the section's files.

        Raises:
            ServiceError: ca_file, the certificate or its key is unusable.
        """
        if server.ca_file is not None:  # the system's trust store is there anyway, and takes 25 ms to read
            client_context(server.ca_file)
        certificate = None
        if server.local_certificate is not None:
            certificate = LocalCertificate(server.section, server.local_certificate, server.local_key)
        return cls(server, shared, tokens or shared.tokens, certificate, Prewarmed(server, shared))

    @property
    def context(self) -> ssl.SSLContext:
        """For the way to the mail server."""
        return client_context(self.server.ca_file)

    @property
    def is_tls_only(self) -> bool:
        """TLS from the first octet, and nothing else."""
        return self.certificate is not None and self.server.local_starttls is LocalStartTls.OFF

    def local_tls(self, peer: str, *, on_loopback: bool) -> ev.LocalTls:
        """What TLS there is for a connection that begins in plaintext.

        `peer` is the connection's own other end, where a proxy is between it and the client: what counts is the way
        that the octets take to us.

        Raises:
            NotAdmitted: this peer may not do without it, and there is none.
        """
        exempt = within(peer, self.server.allow_plaintext_from)
        harmless = exempt or on_loopback or is_loopback(peer)
        if self.certificate is None:
            if not harmless:
                raise NotAdmitted(SWITCH_ON_TLS)
            return ev.LocalTls.NONE
        if exempt or (harmless and self.server.local_starttls is not LocalStartTls.REQUIRED):
            return ev.LocalTls.OFFERED
        return ev.LocalTls.REQUIRED

    def terms(self, target: MailServer | None, local_tls: ev.LocalTls) -> ev.Terms:
        """What a dialogue must know; without a `target` the login will tell it."""
        server, seen = self.server, self.shared.seen
        if target is None:
            return ev.Terms(
                seen=seen.common(server.protocol),
                ehlo_name=server.ehlo_name or ev.DEFAULT_EHLO_NAME,
                advise=self.tokens.advise,
                routed=True,
                local_tls=local_tls,
                login_as=server.login_as or "",
            )
        return ev.Terms(
            starttls=target.starttls,
            seen=seen.of(server.protocol, target),
            host=target.address,
            port=target.port,
            ehlo_name=server.ehlo_name or ev.DEFAULT_EHLO_NAME,
            advise=self.tokens.advise,
            local_tls=local_tls,
            login_as=server.login_as or "",
        )

    def target_of(self, route: Route, login: ev.Login) -> MailServer:
        """Where this login's mail server is.

        Raises:
            AccountUnusable: neither the section nor the account names one.
        """
        target = self.server.target or route.server
        if target is None:
            option = OPTIONS[self.server.protocol]
            raise AccountUnusable(
                f"{login.user} has no {option}: set it in the account's section (host:port), or server_address in "
                f"[{self.server.section}]"
            )
        return target
