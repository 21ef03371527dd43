"""A proxy for connections outwards, from its URL; and what is said where one does not do its work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from emailproxy.config.hosts import canonical_host, host_and_port
from emailproxy.errors import EmailProxyError, one_line
from emailproxy.secret import Secret

MAX_SOCKS_FIELD = 255  # octets of user name and of password: RFC 1929 section 2
MAX_WORDS = 80  # characters of a proxy's own words that an error text repeats
VISIBLE = re.compile(r"[\x21-\x7E\xA0-\U0010FFFF]+\Z")
FORMS = "http://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT, with USER:PASSWORD@ before the host if need be"
LOGIN_WANTED = frozenset({407, 401})  # RFC 9110 section 15.5.8; tinyproxy says 401 to a wrong password
FAR_AWAY = frozenset({502, 503, 504, 3, 4, 5, 6})
"""HTTP's status codes and SOCKS' replies (RFC 1928 section 6) of proxies that do not get to where they are to."""


CLOSED = ("Connection closed unexpectedly", "Invalid proxy response")
"""What python-socks says where nothing comes, or not enough."""


class UnusableProxy(EmailProxyError):
    """A proxy's URL cannot be used; the text names the setting, and nothing of what may be a password."""


class ProxyFailed(EmailProxyError):
    """A proxy does not do its work. The text is what is to be said of whom it was to reach; `again` says that it may
    do it yet, if asked once more."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class Scheme(StrEnum):
    """How a proxy is spoken to, and who looks names up; as curl has them."""

    HTTP = "http"
    """CONNECT (RFC 9110 section 9.3.6); the proxy looks names up."""
    SOCKS5 = "socks5"
    """RFC 1928; we look names up."""
    SOCKS5H = "socks5h"
    """The same; the proxy does."""


SCHEMES = {**{scheme.value: scheme for scheme in Scheme}, "socks": Scheme.SOCKS5H}  # desktops say "socks"
PORTS = {Scheme.HTTP: 80, Scheme.SOCKS5: 1080, Scheme.SOCKS5H: 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP or SOCKS5 proxy. As text it is its URL without user and password."""

    scheme: Scheme
    host: str
    port: int
    source: str
    """The setting that names it, for error texts."""
    user: str = field(default="", repr=False)
    password: Secret = field(default=Secret(""), repr=False)

    @classmethod
    def parsed(cls, url: Secret, source: str) -> Self:
        """The proxy that a URL means; one without a scheme is an HTTP proxy's.

        Raises:
            UnusableProxy: it means none.
        """
        text = url.reveal().strip()
        if not VISIBLE.match(text):
            raise UnusableProxy(
                f"{source} holds white space or control characters; percent-encode them, or write {FORMS}"
            )
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port, host = parts.port, canonical_host(parts.hostname or "")
        except ValueError:
            port, host, parts = None, None, SplitResult("", "", "", "", "")
        scheme = SCHEMES.get(parts.scheme)
        if scheme is None or host is None or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
            raise UnusableProxy(
                f"{source} is no proxy's URL; write {FORMS}, and percent-encode what is special in the password"
            )
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        fault = wrong_login(scheme, user, password)
        if fault:
            raise UnusableProxy(f"{source} cannot be used: {fault}")
        return cls(scheme, host, port or PORTS[scheme], source, user, Secret(password))

    @property
    def looks_names_up(self) -> bool:
        return self.scheme is not Scheme.SOCKS5

    @property
    def url(self) -> Secret:
        """For libraries; with user and password."""
        login = f"{quote(self.user, safe='')}:{quote(self.password.reveal(), safe='')}@" if self.user else ""
        return Secret(f"{self.scheme}://{login}{host_and_port(self.host, self.port)}")

    def __str__(self) -> str:
        return f"{self.scheme}://{host_and_port(self.host, self.port)}"

    # ---- why nothing is reached through it

    def unreachable(self, reason: str) -> ProxyFailed:
        return ProxyFailed(f"cannot be reached: its proxy {self} cannot be reached ({reason}); check {self.source}")

    def hinders(self, reason: str) -> ProxyFailed:
        """Something went wrong there or beyond."""
        return ProxyFailed(
            f"cannot be reached through the proxy {self} ({reason}); check {self.source} and the network"
        )

    def silent(self) -> ProxyFailed:
        return ProxyFailed(f"cannot be reached: its proxy {self} does not answer in time; check {self.source}")

    def closed(self) -> ProxyFailed:
        return ProxyFailed(f"cannot be reached: the proxy {self} closed the connection; check {self.source}")

    def babbles(self) -> ProxyFailed:
        kind = "an HTTP proxy" if self.scheme is Scheme.HTTP else "a SOCKS5 proxy"
        place, mend = host_and_port(self.host, self.port), f"check scheme and port in {self.source}"
        return ProxyFailed(f"cannot be reached: what answers at {place} is not {kind}; {mend}", again=False)

    def wants_login(self) -> ProxyFailed:
        if self.user:
            said = f"does not take user name and password; correct them in {self.source}"
        else:
            place = host_and_port(self.host, self.port)
            said = f"wants user name and password; set {self.source} to {self.scheme}://USER:PASSWORD@{place}"
        return ProxyFailed(f"cannot be reached: the proxy {self} {said}", again=False)

    def refused(self, status: int, words: str) -> ProxyFailed:
        """`status` is HTTP's code or SOCKS' reply; `words` are the proxy's own."""
        if status in LOGIN_WANTED:
            return self.wants_login()
        said = one_line(words, MAX_WORDS)
        if status not in FAR_AWAY:
            mend = "have whoever runs it allow this, or name the host in no_proxy"
            return ProxyFailed(f"cannot be reached: the proxy {self} refuses to connect ({said}); {mend}", again=False)
        mend = "check the host's name and port" + ("" if self.looks_names_up else ", or try socks5h in place of socks5")
        return ProxyFailed(f"cannot be reached: the proxy {self} does not get there ({said}); {mend}")

    def answered(self, status: int | None, words: str) -> ProxyFailed:
        """What python-socks makes of a reply; it has a status where the proxy itself says no."""
        if status is not None:
            return self.refused(int(status), words)
        if "authentication" in words.lower():  # RFC 1928 section 3 and RFC 1929 section 2 have no codes of their own
            return self.wants_login()
        return self.closed() if words in CLOSED else self.babbles()


def wrong_login(scheme: Scheme, user: str, password: str) -> str:
    """Why a proxy cannot be told this user name and password; empty: it can."""
    if any(not character.isprintable() for character in user + password):
        return "its user name or password holds control characters"
    if password and not user:
        return "it has a password and no user name"
    if scheme is Scheme.HTTP:  # RFC 7617 section 2; what encoding it is in is not agreed on
        if ":" in user:
            return "a user name for an HTTP proxy has no colon"
        return "" if (user + password).isascii() else "user name and password for an HTTP proxy must be ASCII"
    if not user:
        return ""
    within = all(text.isascii() and 0 < len(text) <= MAX_SOCKS_FIELD for text in (user, password))
    return "" if within else f"a SOCKS5 proxy takes user name and password, {MAX_SOCKS_FIELD} ASCII characters at most"
