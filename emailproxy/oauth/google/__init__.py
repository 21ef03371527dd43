"""Google's service accounts, by google-auth: keys, impersonation, workload identity federation (RFC 7523, RFC 8693)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emailproxy.config.grants import KEY_FILE, KEY_JSON
from emailproxy.config.model import SECONDS, Account, FlowName
from emailproxy.config.sources import FromFile
from emailproxy.errors import EmailProxyError, one_line
from emailproxy.oauth.attempts import Attempts
from emailproxy.oauth.blocking import Blocking, unavailable_behind
from emailproxy.oauth.clock import Clock
from emailproxy.oauth.flow import Approval, Flow, Grant, TokenSet
from emailproxy.oauth.google.keys import (
    MACHINE,
    Source,
    default_file,
    delegated,
    machine_of,
    parsed,
    principal_of,
    unusable,
)
from emailproxy.oauth.replies import Unreadable
from emailproxy.oauth.secrets import Secrets, content_of

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import Request

METADATA_S = 5 * SECONDS  # a metadata server is next door, and where there is none nobody may answer at all


def grants(blocking: Blocking, secrets: Secrets, attempts: Attempts, *, clock: Clock) -> Mapping[FlowName, Flow]:
    """What google-auth does for us."""
    return {FlowName.SERVICE_ACCOUNT: ServiceAccount(blocking, secrets, attempts, clock=clock)}


class ServiceAccount:
    """A service account with domain-wide delegation: no person is asked.

    Whom it signs in as, the assertion's `sub`, is `token_owner` or else the account's own name. Its credentials are
    read anew every time, from

    - `client_secret`: a JSON file's path where `client_id = file`, the JSON itself where `client_id = key`;
    - application default credentials, where there is no `client_secret`: the file in GOOGLE_APPLICATION_CREDENTIALS,
      gcloud's own, or the machine's metadata server.

    `service_account_email` is the service account to act as, where the credentials are not its own key: they need the
    role "Service Account Token Creator" on it, since IAM signs the assertion then.
    """

    approval = Approval.NONE

    def __init__(self, blocking: Blocking, secrets: Secrets, attempts: Attempts, *, clock: Clock) -> None:
        self._blocking = blocking
        self._secrets = secrets
        self._attempts = attempts
        self._clock = clock
        self._request: Request | None = None

    async def acquire(self, account: Account, grant: Grant | None = None) -> TokenSet:
        source = await self._source(account)
        principal = principal_of(account, source)
        machine = await self._machine(account) if source is None else None

        async def attempt(left_s: float) -> TokenSet:
            return await self._blocking.run(lambda: self._granted(account, source, machine), left_s=left_s)

        return await self._attempts.run(f"google {principal}", attempt)

    async def refresh(self, account: Account, tokens: TokenSet) -> TokenSet:
        return await self.acquire(account)

    async def _source(self, account: Account) -> Source | None:
        """The configured credentials; None for those of the machine."""
        secret = account.client_secret
        if secret is None:
            path, what = await self._blocking.run(default_file), "the application default credentials"
            if path is None:
                return None
        elif account.client_id == KEY_FILE and isinstance(secret, FromFile):
            path, what = secret.path, "the key file"
        elif account.client_id in (KEY_FILE, KEY_JSON):
            text = await self._secrets.read(secret, owner=account.name, key="client_secret")
            if account.client_id == KEY_JSON:
                return parsed(account, "client_secret", text.reveal())
            path, what = Path(text.reveal()), "the key file"
        else:
            raise unusable(account, "client_id", f"is neither {KEY_FILE} nor {KEY_JSON}", "say what client_secret is")
        return parsed(account, f"the file {path}", await content_of(path, f"{what} of {account.name}"))

    async def _machine(self, account: Account) -> Credentials:
        return await self._blocking.run(lambda: machine_of(account, self._transport()), left_s=METADATA_S)

    def _transport(self) -> Request:
        from google.auth.transport.requests import Request

        if self._request is None:
            self._request = Request(self._blocking.session())
        return self._request

    def _granted(self, account: Account, source: Source | None, machine: Credentials | None) -> TokenSet:
        """Blocks: a token for the mailbox."""
        from google.auth.exceptions import GoogleAuthError

        from emailproxy.oauth.google.http import Exchange

        name = source.name if source else MACHINE
        exchange = Exchange(self._transport(), self._clock, self._attempts.skew, owner=f"{account.name}: {name}")
        try:
            delegated(account, source, machine).refresh(exchange)
        except EmailProxyError:
            raise
        except GoogleAuthError as error:
            if unavailable_behind(error) is not None:
                raise
            reason = one_line(str(error.args[0]) if error.args else type(error).__name__)
            mend = "see that what it names is there, and what it should be"
            raise unusable(account, name, f"cannot be used ({reason.rstrip('.')})", mend) from None
        except OSError as error:
            what = f"names {error.filename}, which cannot be read ({error.strerror})"
            raise unusable(account, name, what, "mend the file or its name") from None
        except Exception as error:  # google-auth takes replies and files at their word: KeyError, TypeError and more
            raise Unreadable(
                f"{account.name}: {name}: an answer that cannot be read ({type(error).__name__})"
            ) from None
        assert exchange.granted is not None  # delegation ends at a token endpoint, whoever signs
        return exchange.granted
