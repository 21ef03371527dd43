"""Speaks to a running server through its control socket: for commands, so with neither asyncio nor aiohttp."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from emailproxy.admin import peers
from emailproxy.admin.paths import client_places
from emailproxy.config.model import MINUTES
from emailproxy.errors import EmailProxyError, ServiceError, system_words

ANSWER_S = 1 * MINUTES  # a reload opens every listener anew, and a password is derived behind others

Facts = dict[str, Any]


class NotRunning(ServiceError):
    """No server runs that has this state folder."""


class NotPermitted(ServiceError):
    """One runs, but may not be controlled by this user."""


class Refused(EmailProxyError):
    """The server says no; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class LocalConnection(http.client.HTTPConnection):
    """HTTP over a socket that is connected already."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected


class Client:
    """The server that has this state folder."""

    def __init__(self, state_dir: Path, runtime_dir: Path | None = None) -> None:
        """`runtime_dir` is the configuration's setting."""
        self._state_dir = state_dir
        self._places = client_places(state_dir, runtime_dir) if hasattr(socket, "AF_UNIX") else ()

    def ask(self, method: str, path: str, message: Mapping[str, object] | None = None, **query: str) -> Facts:
        """The server's answer.

        Raises:
            NotRunning, NotPermitted: there is no server that may be asked.
            Refused: it says no, and why.
            ServiceError: it does not answer sensibly.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        with self._connected() as connected:
            connection = LocalConnection(connected)
            try:
                connection.request(method, target, None if message is None else json.dumps(message).encode())
                reply = connection.getresponse()
                facts = json.loads(reply.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ServiceError(f"the running server does not answer ({system_words(error)}); see its log") from None
        if not isinstance(facts, dict):
            raise ServiceError("the running server does not answer sensibly; is it another version?")
        if reply.status != http.client.OK:
            raise Refused(reply.status, str(facts.get("error", f"the server answered {reply.status}")))
        return facts

    def _connected(self) -> socket.socket:
        denied: Path | None = None
        for place in self._places:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connected.setblocking(False)
            try:
                connected.connect(os.fspath(place))
                self._check(place, connected)
            except PermissionError:
                denied = denied or place
            except BlockingIOError:  # its backlog is full
                connected.close()
                raise ServiceError("the running server is too busy to answer; try again") from None
            except OSError:  # nobody is there, a dead server's, or a path that is too long
                pass
            except BaseException:
                connected.close()
                raise
            else:
                connected.settimeout(ANSWER_S)
                return connected
            connected.close()
        if denied is not None:
            raise NotPermitted(
                f"the running server's control socket {denied} is {owner_of(denied)}'s alone; run this as that user or "
                "as root"
            )
        raise NotRunning(
            f"no emailproxy server runs for the state folder {self._state_dir}; start it with emailproxy serve, or "
            "name the configuration of the one that runs with --config"
        )

    def _check(self, place: Path, connected: socket.socket) -> None:
        """Passwords go there: it must be root's, ours, or of who has the state folder anyway."""
        uid = peers.user_of(connected)
        if not peers.is_trusted(uid, *_owners(self._state_dir)):
            raise NotPermitted(
                f"the control socket {place} is of user {uid}, who has no business with this state folder"
            )


def _owners(folder: Path) -> tuple[int, ...]:
    try:
        return (folder.stat().st_uid,)
    except OSError:
        return ()


def owner_of(place: Path) -> str:
    """Who may: the owner of the socket, or of the folder that hides it."""
    for path in (place, *place.parents):
        try:
            uid = path.stat().st_uid
        except OSError:
            continue
        return user_name(uid)
    return "another user"


def user_name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"
