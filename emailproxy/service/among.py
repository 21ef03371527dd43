"""What a server has of the others, where several processes serve one configuration (`emailproxy.workers`)."""

from __future__ import annotations

from dataclasses import dataclass

from emailproxy.net.activation import Activated
from emailproxy.net.places import Places
from emailproxy.oauth.signins import Listener


@dataclass(slots=True)
class Among:
    """In place of what a server that is alone opens and counts itself."""

    sockets: Activated
    places: Places
    redirects: Listener
    """Whoever of them listens for the provider's redirects."""
    quiet: bool
    """Another one says where all of them listen."""
