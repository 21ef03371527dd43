"""An account's state here, what it proves itself with, and the token that a login would get."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from emailproxy.check.finding import SOON_S, Finding, Grade, Link, refused, span
from emailproxy.config import catchall
from emailproxy.config.model import Account, Config, ProviderName
from emailproxy.errors import LoginRefused, StateError, one_line
from emailproxy.oauth.advice import without_action
from emailproxy.oauth.certificate import certificate_of
from emailproxy.oauth.clock import rfc3339
from emailproxy.oauth.flow import Approval, OwnPassword
from emailproxy.oauth.identity import claims_of, expected, identities_of, is_owner
from emailproxy.oauth.secrets import Secrets
from emailproxy.secret import Secret
from emailproxy.service import Authority
from emailproxy.store.base import Pending, Record
from emailproxy.wire.events import LOCAL, Login

EXCHANGE = ("outlook", "webmail.apps.mil", "00000002-0000-0ff1-ce00-000000000000")
"""How Microsoft's tokens for mail name what they are for (RFC 7519 section 4.1.3); the last is Exchange's own ID."""
MAX_WORDS = 20  # scopes, roles and audiences of a token that are told


async def credential(account: Account, secrets: Secrets) -> Finding | None:
    """The application's secret, where the configuration says only where it is; or its certificate."""
    if account.client_secret is not None and not isinstance(account.client_secret, Secret):
        about = f"client_secret of {account.name}"
        try:
            await secrets.read(account.client_secret, owner=account.name, key="client_secret")
        except LoginRefused as error:
            return refused(Link.CREDENTIAL, about, error)
        return Finding(Link.CREDENTIAL, about, Grade.OK, "the secret can be read")
    if account.certificate is None:
        return None
    about = f"jwt_certificate_path of {account.name}"
    try:
        certificate = await certificate_of(account, secrets)
    except LoginRefused as error:
        return refused(Link.CREDENTIAL, about, error)
    ends_s = certificate.not_after.timestamp()
    left_s = ends_s - time.time()
    facts = {"expires": rfc3339(ends_s), "sha1": certificate.sha1.hex().upper()}
    mend = "have a new one issued, and register it with the provider"
    if left_s <= 0:
        text = f"the certificate ended {span(left_s)} ago"
        return Finding(Link.CREDENTIAL, about, Grade.FAILED, text, mend, facts)
    text = f"the certificate and its key belong together, and are good for {span(left_s)}"
    soon = left_s < SOON_S
    return Finding(Link.CREDENTIAL, about, Grade.WARNING if soon else Grade.OK, text, mend if soon else "", facts)


def is_kept_elsewhere(config: Config, account: Account) -> bool:
    """Whether another proxy keeps tokens of the account, which its first login here takes over."""
    kept = catchall.cached(config, account.key)
    return kept is not None and bool(kept.refresh_token or kept.access_token)


async def state(config: Config, account: Account, authority: Authority) -> Finding:
    """What can be told without the local password."""
    try:
        record = await authority.records.load(account.key)
        pending = await authority.pending.by_account(account.key)
    except StateError as error:
        return Finding(Link.TOKEN, account.name, Grade.FAILED, str(error))
    if record is None and is_kept_elsewhere(config, account):
        text = "no login yet: the first one, with the password that another proxy knows, takes over what that one keeps"
        return Finding(Link.TOKEN, account.name, Grade.OK, text, facts={"local_passwords": 0})
    if record is None:
        return without_record(account, pending, authority.flows(account).approval)
    facts: dict[str, Any] = {"local_passwords": len(record.lockbox.slots), "needs_sign_in": record.needs_sign_in}
    if record.scope:
        facts["scope"] = record.scope
    if record.expires_at_s is not None:
        facts["expires"] = rfc3339(record.expires_at_s)
    if record.needs_sign_in:
        why = without_action(record.last_error) or "the provider does not know its tokens any more"
        text = f"its owner must sign in again: {why}"
        return Finding(Link.TOKEN, account.name, Grade.NEEDS_PERSON, text, sign_in(account, pending), facts)
    if record.last_error:
        text = f"{token_age(record)}; the last renewal failed: {record.last_error}"
        return Finding(Link.TOKEN, account.name, Grade.WARNING, text, "the next login tries again", facts)
    return Finding(Link.TOKEN, account.name, Grade.OK, token_age(record), facts=facts)


def without_record(account: Account, pending: Pending | None, approval: Approval) -> Finding:
    facts = {"local_passwords": 0}
    if pending is not None:
        text = f"a sign-in waits for its person until {rfc3339(pending.expires_s)}"
        return Finding(Link.TOKEN, account.name, Grade.NEEDS_PERSON, text, sign_in(account, pending), facts)
    match approval:
        case Approval.PERSON:
            text = "nobody has signed in yet"
            return Finding(Link.TOKEN, account.name, Grade.NEEDS_PERSON, text, sign_in(account, None), facts)
        case Approval.PASSWORD:
            text = "no login yet: the first one brings the mailbox's own password"
        case Approval.NONE:
            text = "no login yet: the first one, or 'emailproxy authorize', sets the local password"
    return Finding(Link.TOKEN, account.name, Grade.OK, text, facts=facts)


def sign_in(account: Account, pending: Pending | None) -> str:
    owner = expected(account)
    command = f"run 'emailproxy authorize {account.name}'" + ("" if owner == account.name else f" as {owner}")
    if pending is None:
        return command
    if pending.user_code:
        return f"open {pending.device_url} and enter the code {pending.user_code}, or {command}"
    return f"open the URL that 'emailproxy logs --consent' shows, or {command}"


def token_age(record: Record) -> str:
    if record.expires_at_s is None:
        return "signed in; the provider does not say how long the access token is good for"
    left_s = record.expires_at_s - time.time()
    if left_s > 0:
        return f"signed in; the access token is good for {span(left_s)}"
    return f"signed in; the access token ended {span(left_s)} ago, and is renewed at the next login"


async def token(account: Account, authority: Authority, password: Secret, *, known: bool) -> Finding:
    """The access token that a login with this password gets. One that is known here is unlocked, and renewed where it
    is due; of one that is not, the provider is asked, and nothing is stored."""
    try:
        if known:
            found = await authority.broker.token(Login(account.name, password), LOCAL)
            access = found.token
        else:
            flow = authority.flows(account)
            own = OwnPassword(password) if flow.approval is Approval.PASSWORD else None
            access = (await flow.acquire(account, own)).access_token
    except LoginRefused as error:
        return refused(Link.TOKEN, account.name, error)
    return contents(account, claims_of(access.reveal()), identities_of(access.reveal()))


def contents(account: Account, claims: Mapping[str, Any], identities: tuple[str, ...]) -> Finding:
    """What a token says of itself, where it is a JWT."""
    if not claims:
        text = "a token was given; it is opaque, and says nothing of itself"
        return Finding(Link.TOKEN, account.name, Grade.OK, text)
    audiences, scopes = words(claims.get("aud")), [*words(claims.get("scp") or claims.get("scope"))]
    scopes += words(claims.get("roles"))
    facts: dict[str, Any] = {"audience": audiences, "scopes": scopes}
    told = [f"for {', '.join(audiences)}" if audiences else "", f"with {', '.join(scopes)}" if scopes else ""]
    expires_s = claims.get("exp")
    if isinstance(expires_s, int | float) and 0 < expires_s < float("inf"):
        facts["expires"] = rfc3339(expires_s)
        told.append(f"good for {span(expires_s - time.time())}" if expires_s > time.time() else "ended already")
    if identities:
        facts["identities"] = list(identities)
        told.append(f"of {identities[0]}")
    text = f"a token was given: {', '.join(filter(None, told))}"
    action = mismatch(account, audiences, identities)
    return Finding(Link.TOKEN, account.name, Grade.WARNING if action else Grade.OK, text, action, facts)


def mismatch(account: Account, audiences: Iterable[str], identities: tuple[str, ...]) -> str:
    """What to change where the token is for something or somebody else."""
    if not is_owner(account, identities):
        owner = expected(account)
        whom = "the mailbox" if owner == account.name else owner
        again = f"run 'emailproxy authorize {account.name}' and sign in as {whom}"
        return f"it is not {owner}'s: {again}, or change token_owner"
    named = [audience.casefold() for audience in audiences]
    if (
        account.provider is ProviderName.MICROSOFT
        and named
        and not any(mark in one for one in named for mark in EXCHANGE)
    ):
        return "it is not for mail: ask for scopes of https://outlook.office.com in oauth2_scope, and sign in again"
    return ""


def words(claim: object) -> list[str]:
    """A claim that is a list, or words in one text."""
    found = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return [one_line(word) for word in found[:MAX_WORDS] if isinstance(word, str)]
