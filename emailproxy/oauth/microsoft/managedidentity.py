"""Azure's managed identities, by msal: the platform knows who runs here, and hands out tokens for that.

msal finds the platform: App Service and Functions, Service Fabric, Machine Learning and Azure Arc by environment
variables, and else the virtual machine's metadata service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from emailproxy.config.model import Account
from emailproxy.errors import AccountUnusable, LoginRefused, ProviderUnavailable, one_line
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.blocking import Blocking, unavailable_behind
from emailproxy.oauth.breaker import Refrain
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import TokenSet
from emailproxy.oauth.replies import ERROR_CODE, Unreadable, refused, validated
from emailproxy.secret import Secret

SYSTEM = "system"
"""The value of `managed_identity` for the one that belongs to the machine."""
ALL_OF_IT = "/.default"
"""What makes a scope of a resource (Microsoft's v2 endpoints); managed identities know resources only."""
SECRET_VARIABLES = ("IDENTITY_HEADER", "MSI_SECRET")
"""What the platform gave to its processes to show."""


class ManagedIdentity:
    """Tokens for the identity that the account names."""

    def __init__(self, blocking: Blocking, attempts: Attempts, clock: Clock) -> None:
        self._blocking = blocking
        self._attempts = attempts
        self._clock = clock

    async def acquire(self, account: Account) -> TokenSet:
        """Raises what `Flow.acquire` does."""
        resource = resource_of(account)

        async def attempt(left_s: float) -> TokenSet:
            try:
                return await self._blocking.run(lambda: self._granted(account, resource), left_s=left_s)
            except (Refrain, Unreadable):
                raise
            except ProviderUnavailable as error:
                raise ProviderUnavailable(
                    f"{error}; managed_identity works on Azure and Azure Arc only", retry_after_s=error.retry_after_s
                ) from None

        return await self._attempts.run(f"managed identity {account.managed_identity} {resource}", attempt)

    def _granted(self, account: Account, resource: str) -> TokenSet:
        """Blocks: a token for the resource."""
        import msal

        session = self._blocking.session()
        identity = (
            msal.SystemAssignedManagedIdentity()
            if account.managed_identity == SYSTEM
            else msal.UserAssignedManagedIdentity(client_id=account.managed_identity)
        )
        client = msal.ManagedIdentityClient(identity, http_client=session)
        now_s = self._clock.now_s()

        def complain(what: str) -> LoginRefused:
            answer = session.answer
            place = f"at {answer.host} sent {what} (HTTP {answer.status})" if answer else f"sent {what}"
            return Unreadable(f"the managed identity endpoint {place}; tokens are kept, try again later")

        try:
            granted = client.acquire_token_for_client(resource=resource)
        except msal.ManagedIdentityError as error:
            raise unusable(account, one_line(str(error)), "see to the platform's agent") from None
        except Exception as error:  # msal takes replies at their word: KeyError, TypeError and more
            if unavailable_behind(error) is not None:
                raise
            if isinstance(error, OSError):  # Azure Arc proves by a file of its agent that it may be asked
                said = f"{error.filename} cannot be read ({error.strerror})"
                raise unusable(account, said, "let emailproxy's user into the group himds") from None
            raise complain(f"an answer that cannot be read ({type(error).__name__})") from None
        if "error" in granted:
            raise refusal(granted, session.answer.host if session.answer else "this machine", complain)
        return validated(granted, now_s=now_s, complain=complain)


def resource_of(account: Account) -> str:
    """What the token is to be for, from `oauth2_scope`.

    Raises:
        AccountUnusable: there is no scope.
    """
    scope = next(iter(account.scope.split()), None)
    if scope is None:
        raise AccountUnusable(
            f"account {account.name} has no oauth2_scope; add https://outlook.office365.com/.default "
            f"to [{account.section}]"
        )
    return scope.removesuffix(ALL_OF_IT)


def unusable(account: Account, reason: str, mend: str) -> AccountUnusable:
    return AccountUnusable(f"the managed_identity of {account.name} cannot be used: {reason}; {mend}")


def refusal(answer: Mapping[str, object], host: str, complain: Callable[[str], LoginRefused]) -> LoginRefused:
    """The platform's error, which msal puts into the words of RFC 6749 section 5.2."""
    code, said = answer["error"], answer.get("error_description")
    if not (isinstance(code, str) and ERROR_CODE.fullmatch(code)):
        return complain("neither a token nor an error")
    sent = [Secret(os.environ[name]) for name in SECRET_VARIABLES if name in os.environ]
    return refused(host, code, said if isinstance(said, str) else "", sent)
