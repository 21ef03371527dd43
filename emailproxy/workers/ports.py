"""The addresses that the workers listen on, opened by the process that starts them."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from emailproxy.config.model import Server
from emailproxy.errors import ServiceError
from emailproxy.net.activation import Activated
from emailproxy.net.binding import bind
from emailproxy.net.sharing import SPREADS, SharedAddress


@dataclass(eq=False)
class Section:
    """A listening section's addresses."""

    shared: list[SharedAddress]

    def close(self) -> None:
        for address in self.shared:
            address.close()


class Ports:
    """All sections' addresses, by section."""

    def __init__(self, activated: Activated) -> None:
        """`activated` are the sockets that the service manager passed."""
        self._activated = activated
        self._sections: dict[str, Section] = {}

    @property
    def addresses(self) -> dict[str, list[tuple[str, int]]]:
        """Where each section listens: its name to (address, port) pairs."""
        return {name: [shared.address for shared in section.shared] for name, section in self._sections.items()}

    async def opened(self, servers: Iterable[Server]) -> dict[str, Section]:
        """The addresses of these sections, all of them or none, for `add`.

        Raises:
            ServiceError: one is in use, is not this host's, or is not permitted.
        """
        sections: dict[str, Section] = {}
        try:
            for server in servers:
                sections[server.section] = await self._opened(server)
        except BaseException:
            self.drop(sections)
            raise
        return sections

    async def _opened(self, server: Server) -> Section:
        section = Section([])
        passed = self._activated.claim(server.section, server.local_port, section)
        sockets, spread = passed or await bind(server), SPREADS and not passed
        try:
            while sockets:
                section.shared.append(SharedAddress(sockets.pop(0), spread=spread))
        except BaseException:
            for sock in sockets:
                sock.close()
            self.drop({server.section: section})
            raise
        return section

    def drop(self, sections: Mapping[str, Section]) -> None:
        """Gives addresses back that were not added."""
        for section in sections.values():
            section.close()
            self._activated.release(section)

    def add(self, sections: Mapping[str, Section], ended: Iterable[str] = ()) -> None:
        """They are in force from now on, and those of the sections that ended are not."""
        self.drop({name: self._sections.pop(name) for name in ended if name in self._sections})
        self._sections |= sections

    def take(self, sections: Mapping[str, Section] | None = None) -> Iterator[tuple[str, list[socket.socket]]]:
        """For one worker: the sockets of these sections, or of all that are in force. Whoever takes closes them.

        Raises:
            ServiceError: the system gives none.
        """
        for name, section in (self._sections if sections is None else sections).items():
            sockets: list[socket.socket] = []
            try:
                for shared in section.shared:
                    sockets.append(shared.take())
            except ServiceError:
                for sock in sockets:
                    sock.close()
                raise
            yield name, sockets

    def notices(self) -> list[str]:
        return self._activated.notices()

    def close(self) -> None:
        """At the end of the process."""
        self.drop(self._sections)
        self._sections = {}
        self._activated.close()
