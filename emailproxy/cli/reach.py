"""What commands know of the place that they work on, and how they reach the server that runs there, if one does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emailproxy.admin.client import Client, Facts, NotPermitted, NotRunning, Refused
from emailproxy.cli.options import state_place
from emailproxy.config import catchall, ini
from emailproxy.config.model import Config
from emailproxy.errors import AccountUnusable, ConfigError, LoginRefused


@dataclass(frozen=True, slots=True)
class Place:
    """A state folder, and its configuration where that is to be had."""

    state_dir: Path
    config: Config | None
    """None where it is wrong (`serve` and `check` say how), or another folder's."""

    @classmethod
    def of(cls, config_path: Path | None, state_dir: Path | None) -> Place:
        where = state_place(config_path, state_dir)
        try:
            config = ini.load(ini.find(config_path))
        except ConfigError:
            return cls(where, None)
        return cls(where, config if config.settings.state_dir.absolute() == where.absolute() else None)

    def client(self) -> Client:
        return Client(self.state_dir, None if self.config is None else self.config.settings.runtime_dir)

    def key(self, account: str) -> str:
        """The name by which an account's state is kept."""
        if self.config is not None:
            with suppress(LoginRefused):  # not configured any more; its state may be there all the same
                return catchall.resolve(self.config, account).key
        return account.casefold()

    def check_configured(self, account: str) -> None:
        """
        Raises:
            UnknownAccount: the configuration is to be had, and has no such account.
        """
        if self.config is not None:
            with suppress(AccountUnusable):  # another matter
                catchall.resolve(self.config, account)

    def tell(self, path: str, message: dict[str, object]) -> Facts | None:
        """What the server answers; None where there is none that may be told, or it has nothing to do with it."""
        try:
            return self.client().ask("POST", path, message)
        except (NotRunning, NotPermitted, Refused):
            return None

    def cached_in(self, key: str) -> Path | None:
        """The configuration that holds another proxy's tokens of the account."""
        kept = None if self.config is None else catchall.cached(self.config, key)
        return self.config.path if self.config and kept and (kept.access_token or kept.refresh_token) else None
