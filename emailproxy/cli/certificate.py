"""`emailproxy certificate`: a certificate for clients that insist on TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emailproxy.cli import trust
from emailproxy.cli.options import config_option, json_option, state_place
from emailproxy.config.hosts import canonical_host

if TYPE_CHECKING:
    from emailproxy.cli.authority import Issued

DEFAULT_DAYS = 397  # what public authorities may at most (CA/Browser Forum's Baseline Requirements section 6.3.2)
MAX_DAYS = 824  # Apple's systems refuse a server's certificate of more than 825 days, a private authority's too
MAX_HOSTS = 100  # more makes a handshake larger than some clients take
FOLDER = "tls"

EPILOG = """\b
Examples:
  emailproxy certificate --hosts=mail.lan,192.168.1.5
  emailproxy certificate                                renew it, for the same hosts
"""


def _hosts(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """The names and addresses of a list, each once."""
    found: dict[str, None] = {}
    for text in (part.strip() for value in given for part in value.split(",")):
        host = canonical_host(text)
        if host is None:
            raise click.BadParameter(f"{text!r} is neither a host name nor an IP address, e.g. mail.lan,192.168.1.5")
        found[host.casefold()] = None
    if len(found) > MAX_HOSTS:
        raise click.BadParameter(f"these are {len(found)} hosts; a certificate is good for {MAX_HOSTS} at most")
    return tuple(found)


@click.command(epilog=EPILOG)
@click.option("--hosts", multiple=True, callback=_hosts, metavar="HOST,...",
              help="The names and IP addresses that clients connect to. Default: those of the certificate that is "
              "there.")  # fmt: skip
@click.option("--dir", "folder", type=click.Path(file_okay=False, readable=False, path_type=Path),
              help=f"Where the files are. Default: {FOLDER}, beside the state folder.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=DEFAULT_DAYS, show_default=True,
              help="How long the certificate is good.")  # fmt: skip
@json_option
@config_option
def certificate(
    hosts: tuple[str, ...], folder: Path | None, days: int, as_json: bool, config_path: Path | None
) -> None:
    """Make a certificate for the local side, or renew it, and tell how clients are made to trust it.

    The first time this makes a private authority, which clients then trust. Every later run renews the certificate
    by the same authority: clients go on trusting it, and a running server takes it up by itself.
    """
    from emailproxy.cli import authority

    place = (folder or state_place(config_path, None).parent / FOLDER).absolute()
    issued = authority.issue(place, hosts, days)
    click.echo(json.dumps(_facts(issued), indent=2) if as_json else _told(issued))


def _facts(issued: Issued) -> dict[str, object]:
    return {
        "hosts": list(issued.hosts),
        "certificate": str(issued.certificate_file),
        "key": str(issued.key_file),
        "ends": issued.ends.isoformat(),
        "authority": str(issued.authority_file),
        "authority_ends": issued.authority_ends.isoformat(),
        "authority_sha256": issued.authority_sha256,
        "authority_is_new": issued.authority_is_new,
    }


def _told(issued: Issued) -> str:
    kept = "is new" if issued.authority_is_new else "is the one that clients trust already"
    lines = [
        f"Wrote {issued.certificate_file}: good for {', '.join(issued.hosts)} until {issued.ends:%Y-%m-%d}.",
        f"Its authority, {issued.authority_file}, {kept}; good until {issued.authority_ends:%Y-%m-%d}, SHA-256",
        f"  {issued.authority_sha256}",
        "",
        "In each section of the configuration whose port is to speak TLS:",
        f"  local_certificate_path = {issued.certificate_file}",
        f"  local_key_path = {issued.key_file}",
        "and, where clients begin TLS by STARTTLS:",
        "  local_starttls = required",
        "Then start the server, or have it read them: emailproxy reload",
    ]
    if issued.authority_is_new:
        lines += ["", "Make clients trust the authority, once; copy it to where they can read it:"]
        lines += [f"  {where:<21} {step}" for where, step in trust.steps(issued.authority_file)]
        lines += [
            "",
            f"Keep {issued.folder / 'ca.key'} to yourself: who has it can pose as any server to those clients.",
        ]
    lines += ["", "To renew, run 'emailproxy certificate' again; a running server takes the new one up by itself."]
    if issued.ends == issued.authority_ends:
        lines += ["The authority itself ends then: move the folder away before, and have clients trust a new one."]
    return "\n".join(lines)
