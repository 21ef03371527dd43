"""Whether there is memory to go on with, where the process has a limit (RLIMIT_AS, RLIMIT_DATA).

Python says that there is none, and a login fails; libraries in C end the process. So the last of it is left alone: new
connections are turned away first, then new TLS fails.
"""

from __future__ import annotations

import mmap

MIB = 1024 * 1024
FOR_CONNECTIONS = 32 * MIB  # to let one in: 500 logins under way take 64 KiB each
FOR_TLS = 12 * MIB  # to begin a handshake: what Python and the sessions that stand may still ask for
PIECE = 4 * 1024  # octets: of such are sessions made
# Shared memory is none of RLIMIT_DATA's business.
PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def is_there(octets: int) -> bool:
    """Whether the kernel lets the process have so much more. It takes 5 microseconds to ask: nothing is touched."""
    try:
        mmap.mmap(-1, octets, **PRIVATE).close()
    except (OSError, MemoryError):
        return False
    return True


def require(octets: int) -> None:
    """The kernel's, or what ended sessions have left in the process; to look for that takes some milliseconds.

    Raises:
        MemoryError: there is not so much.
    """
    if not is_there(octets):
        try:
            _ = [bytes(PIECE) for _ in range(octets // PIECE)]
        except MemoryError:
            raise MemoryError(f"less than {octets // MIB} MiB are left") from None


class Room:
    """How many connections there is memory for."""

    def __init__(self) -> None:
        self._most: int | None = None

    def is_for_one_more(self, standing: int) -> bool:
        """Whether so many connections may become one more.

        When memory runs out, as many as stand then may stand from there on: what one leaves serves the next one, though
        the process does not give it back.
        """
        if is_there(FOR_CONNECTIONS):
            self._most = None
            return True
        if self._most is None:
            self._most = standing
        return standing < self._most
