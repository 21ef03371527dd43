"""Builds everything from a configuration, starts it, puts another one in force, drains it, stops it."""

from emailproxy.service.authority import Authority
from emailproxy.service.loops import new_event_loop, settled
from emailproxy.service.reloading import Reloaded
from emailproxy.service.server import Service

__all__ = ["Authority", "Reloaded", "Service", "new_event_loop", "settled"]
