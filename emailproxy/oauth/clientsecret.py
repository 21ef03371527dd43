"""Client secrets that are not in the configuration: sealed into the account's record, or the login's own password.

A sealed one (`encrypt_client_secret_on_first_use`, or another proxy's `client_secret_encrypted`) stands in for a
`client_secret` that the configuration does not hold (any more). Until the record's key is known, the account has
`FromRecord` in its place: it tells whose approval the grant needs, and refuses to be read.
"""

from __future__ import annotations

from dataclasses import replace

from emailproxy.config.model import Account, FlowName
from emailproxy.config.sources import FromRecord
from emailproxy.errors import AccountUnusable, ProviderRefused
from emailproxy.oauth.flow import Approval, Flow, FlowOf, Grant, OwnPassword, TokenSet
from emailproxy.oauth.records import CLIENT_SECRET
from emailproxy.secret import Secret
from emailproxy.store.base import Record

WRONG_SECRET = frozenset({"invalid_client", "unauthorized_client"})
"""RFC 6749 section 5.2: what a provider says of a client secret that is wrong."""


def has_credential(account: Account) -> bool:
    """Whether the configuration says how the account's client authenticates."""
    return (
        (account.client_secret is not None and not isinstance(account.client_secret, FromRecord))
        or account.client_assertion_file is not None
        or account.certificate is not None
        or account.managed_identity is not None
    )


def completed(account: Account, record: Record | None) -> Account:
    """The account as its record completes it: with a client secret that waits for the record's key."""
    if record is None or CLIENT_SECRET not in record.sealed or has_credential(account):
        return account
    return replace(account, client_secret=FromRecord())


def lent(account: Account, secret: Secret | None) -> Account:
    """The account with the client secret of its record, where it has none of its own."""
    if secret is None or has_credential(account):
        return account
    return replace(account, client_secret=secret)


def require_credential(account: Account) -> None:
    """Client credentials are for clients that authenticate (RFC 6749 section 4.4).

    Raises:
        AccountUnusable: this one has nothing to authenticate with.
    """
    if account.client_secret is None and not has_credential(account):
        raise AccountUnusable(
            f"account {account.name} has nothing to authenticate with; add client_secret, jwt_certificate_path or "
            f"client_assertion_file to [{account.section}]"
        )


class PasswordAsSecret:
    """Client credentials whose client secret is the login's password: the provider says whether it is right."""

    approval = Approval.PASSWORD

    def __init__(self, grant: Flow) -> None:
        self._grant = grant

    async def acquire(self, account: Account, grant: Grant | None) -> TokenSet:
        if not isinstance(grant, OwnPassword):
            raise TypeError("the login's password is the client secret")
        try:
            return await self._grant.acquire(lent(account, grant.password), None)
        except ProviderRefused as error:
            if error.code not in WRONG_SECRET:
                raise
            raise ProviderRefused(str(error), code="invalid_grant", words=error.words) from None

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        raise ProviderRefused(
            f"only a login brings the client secret of {account.name}, which is its password", code="invalid_grant"
        )


class Lending:
    """The same grants, but the login's password for whoever has no other client credential, where that is wanted
    (`use_login_password_as_client_credentials_secret`)."""

    def __init__(self, flows: FlowOf) -> None:
        self._flows = flows
        self.login_passwords = False

    def __call__(self, account: Account) -> Flow:
        flow = self._flows(account)
        lends = self.login_passwords and account.flow is FlowName.CLIENT_CREDENTIALS
        bare = account.client_secret is None and not has_credential(account)
        return PasswordAsSecret(flow) if lends and bare else flow
