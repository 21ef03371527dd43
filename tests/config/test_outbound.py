"""Which proxy a connection outwards takes, and what its URL may be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from emailproxy.config.model import Settings
from emailproxy.config.outbound import MAIL, Outbound, exempt
from emailproxy.config.proxies import Proxy, Scheme, UnusableProxy
from emailproxy.secret import Secret

OURS = Secret("socks5h://ada:canary@proxy.example:1081")
ALL = {"http_proxy": "http://h", "https_proxy": "http://s", "all_proxy": "socks5://a"}

CHOICES: list[tuple[Mapping[str, str], str, str | None]] = [
    ({}, "https", None),
    (ALL, "https", "http://s:80"),
    (ALL, "http", "http://h:80"),
    (ALL, MAIL, "socks5://a:1080"),
    ({"https_proxy": "http://s"}, MAIL, None),
    ({"https_proxy": "http://s"}, "http", None),
    ({"all_proxy": "socks5://a"}, "https", "socks5://a:1080"),
    ({"ALL_PROXY": "socks5://a", "HTTPS_PROXY": "s:8080"}, "https", "http://s:8080"),
    ({"https_proxy": "", "HTTPS_PROXY": "http://s"}, "https", None),  # small letters count, even where there is nothing
    ({"https_proxy": " http://s/ "}, "https", "http://s:80"),
    (ALL | {"no_proxy": "other.example, .example.com"}, "https", None),
    (ALL | {"NO_PROXY": "example.com"}, MAIL, None),
    (ALL | {"no_proxy": "*"}, MAIL, None),
    (ALL | {"no_proxy": "example.org"}, MAIL, "socks5://a:1080"),
]


@pytest.mark.parametrize(("environ", "scheme", "chosen"), CHOICES)
def test_the_environment_says_which_as_curl_reads_it(
    environ: Mapping[str, str], scheme: str, chosen: str | None
) -> None:
    proxy = Outbound(environ=environ).proxy_for(scheme, "mail.example.com")
    assert (None if proxy is None else str(proxy)) == chosen


@pytest.mark.parametrize("scheme", ["https", "http", MAIL])
def test_upstream_proxy_counts_for_everything_and_before_the_environment(scheme: str, tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path, log_file=tmp_path, upstream_proxy=OURS, no_proxy=("example.com", "10.0.0.0/8")
    )
    outbound = Outbound.of(settings, ALL | {"no_proxy": "*"})
    assert str(outbound.proxy_for(scheme, "mail.example.org")) == "socks5h://proxy.example:1081"
    for host in ("example.com", "imap.example.com", "10.1.2.3"):
        assert outbound.proxy_for(scheme, host) is None


def test_without_no_proxy_the_environments_counts() -> None:
    outbound = Outbound(OURS, environ={"no_proxy": "example.com"})
    assert outbound.proxy_for(MAIL, "example.com") is None
    assert outbound.proxy_for(MAIL, "example.org") is not None


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "169.254.170.2", "fe80::1", "[fe80::1]", "metadata.google.internal", "fd00:ec2::254"]
)
def test_what_a_clouds_metadata_service_says_is_no_proxys_business(host: str) -> None:
    assert Outbound(OURS, environ=ALL).proxy_for("http", host) is None
    assert Outbound(OURS).proxy_for("http", f"{host.strip('[]')}.example") is not None


def test_a_variable_that_is_set_later_counts() -> None:
    environ: dict[str, str] = {}
    outbound = Outbound(environ=environ)
    assert outbound.proxy_for(MAIL, "x") is None
    environ["all_proxy"] = "http://a"
    assert outbound.proxy_for(MAIL, "x") is not None


EXEMPT = [
    ("localhost", "localhost", True),
    ("Mail.Example.COM.", "example.com", True),
    ("mail.example.com", ".example.com", True),
    ("example.com", ".example.com", True),
    ("mail.example.com", "*.example.com", True),
    ("notexample.com", "example.com", False),
    ("example.com", "mail.example.com", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3", "10.1.0.0/30", False),
    ("10.1.2.3", "2.3", False),
    ("::1", "[::1]", True),
    ("[2001:db8::1]", "2001:db8::/32", True),
    ("2001:DB8:0::1", "2001:db8::1", True),
    ("anything", "*", True),
    ("anything", "", False),
    ("anything", ".", False),
]


@pytest.mark.parametrize(("host", "entry", "found"), EXEMPT)
def test_who_needs_no_proxy(host: str, entry: str, found: bool) -> None:
    assert exempt(host, [entry]) is found


# ---- the URL

URLS = [
    ("http://proxy.example:3128", Scheme.HTTP, "http://proxy.example:3128"),
    ("proxy.example:3128", Scheme.HTTP, "http://proxy.example:3128"),
    ("HTTP://Proxy.Example/", Scheme.HTTP, "http://proxy.example:80"),
    ("socks5://[::1]:9", Scheme.SOCKS5, "socks5://[::1]:9"),
    ("socks5h://127.0.0.1", Scheme.SOCKS5H, "socks5h://127.0.0.1:1080"),
    ("socks://127.0.0.1:8080/", Scheme.SOCKS5H, "socks5h://127.0.0.1:8080"),
]


@pytest.mark.parametrize(("url", "scheme", "text"), URLS)
def test_a_url_is_read(url: str, scheme: Scheme, text: str) -> None:
    proxy = Proxy.parsed(Secret(url), "upstream_proxy")
    assert (proxy.scheme, str(proxy), proxy.url.reveal()) == (scheme, text, text)
    assert proxy.looks_names_up == (scheme is not Scheme.SOCKS5)


def test_user_and_password_are_percent_decoded_and_never_shown() -> None:
    proxy = Proxy.parsed(Secret("http://ada%40x:can%3Aary%2F@p:1"), "upstream_proxy")
    assert (proxy.user, proxy.password.reveal()) == ("ada@x", "can:ary/")
    assert proxy.url.reveal() == "http://ada%40x:can%3Aary%2F@p:1"
    outbound = Outbound(OURS, environ={"all_proxy": "http://u:canary@p"})
    failures = [proxy.unreachable("r"), proxy.silent(), proxy.closed(), proxy.babbles(), proxy.wants_login()]
    failures += [proxy.refused(status, "no") for status in (403, 407, 502)]
    for shown in (repr(proxy), str(proxy), repr(outbound), *map(str, failures)):
        assert "canary" not in shown
        assert "can:ary" not in shown
        assert "ada" not in shown


UNUSABLE = [
    "ftp://u:canary@p",
    "socks4://u:canary@p",
    "https://u:canary@p",
    "http://",
    "http://u:canary@",
    "http://u:canary@p:0",
    "http://u:canary@p:99999",
    "http://u:canary@p:x",
    "http://u:canary/x@p:1",
    "http://u:canary#x@p:1",
    "http://u:canary@p/path",
    "http://u:canary@p?query",
    "http://u:canary@[::1",
    "http://u:canary @p",
    "http://u:canary%0a@p",
    "http://u:can%C3%A4ary@p",
    "http://u%3Ax:canary@p",
    "http://:canary@p",
    "socks5://canary@p",
    "socks5://u:canary%C3%A4@p",
    f"socks5://u:{'canary' * 50}@p",
]


@pytest.mark.parametrize("url", UNUSABLE)
def test_a_url_that_is_none_is_told_without_what_may_be_a_password(url: str) -> None:
    with pytest.raises(UnusableProxy) as caught:
        Outbound(Secret(url)).proxy_for(MAIL, "x")
    assert str(caught.value).startswith("upstream_proxy ")
    assert "canary" not in str(caught.value)


def test_an_unusable_variable_is_named() -> None:
    with pytest.raises(UnusableProxy, match=r"^ALL_PROXY in the environment is no proxy's URL; write http://HOST"):
        Outbound(environ={"ALL_PROXY": "gopher://x"}).proxy_for(MAIL, "x")
