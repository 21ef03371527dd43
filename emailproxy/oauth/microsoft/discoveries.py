"""What a tenant's endpoints are, once it was asked for (OpenID Connect Discovery section 4)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from emailproxy.config.model import HOURS

MAX_AGE_S = 24 * HOURS  # msal's own figure; endpoints stay for years
MAX_DOCUMENTS = 64  # tenants; the oldest goes first


class Discoveries:
    """Documents by URL. Threads share it."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._now_s = monotonic_s
        self._lock = threading.Lock()
        self._documents: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def get(self, url: str) -> str | None:
        with self._lock:
            until_s, document = self._documents.get(url, (0.0, None))
        return document if self._now_s() < until_s else None

    def put(self, url: str, document: str) -> None:
        with self._lock:
            self._documents.pop(url, None)
            self._documents[url] = self._now_s() + MAX_AGE_S, document
            if len(self._documents) > MAX_DOCUMENTS:
                self._documents.popitem(last=False)
