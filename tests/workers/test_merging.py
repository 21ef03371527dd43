"""What several workers know, as `status` shows it."""

from __future__ import annotations

from typing import Any

from emailproxy.workers.merging import merged

ADA, BOB = "ada@example.org", "bob@example.org"


def listener(section: str, sessions: int, *, retired: bool = False, port: int = 1993) -> dict[str, Any]:
    return {
        "section": section,
        "addresses": [f"127.0.0.1:{port}"],
        "sessions": sessions,
        "logged_in": sessions - 1,
        "prewarmed": 1,
        "retired": retired,
    }


def account(name: str) -> dict[str, Any]:
    return {"account": name, "state": "live", "unlocked": False, "storage": "ok", "sessions": 0}


def test_sums_and_whatever_one_of_them_knows() -> None:
    one = {
        "listeners": [listener("IMAP-1993", 3), listener("SMTP-1465", 1, retired=True)],
        "sessions": {ADA: 2, BOB: 1},
        "unlocked": [ADA],
        "degraded": [],
        "refused": {"wrong login": 2, "unavailable": 1},
    }
    other = {
        "listeners": [
            listener("IMAP-1993", 2),
            listener("SMTP-1465", 5, retired=True),
            listener("SMTP-1465", 2, retired=True, port=1466),
        ],
        "sessions": {ADA: 3},
        "unlocked": [ADA, BOB],
        "degraded": [BOB],
        "refused": {"wrong login": 4},
    }
    status = {"version": "1", "accounts": [account(ADA), account(BOB)], "listeners": [], "degraded": [], "refused": {}}
    assert merged(status, [one, other]) == {
        "version": "1",
        "accounts": [
            account(ADA) | {"unlocked": True, "sessions": 5},
            account(BOB) | {"unlocked": True, "storage": "degraded", "sessions": 1},
        ],
        "listeners": [
            listener("IMAP-1993", 5) | {"logged_in": 3, "prewarmed": 2},
            listener("SMTP-1465", 6, retired=True) | {"logged_in": 4, "prewarmed": 2},
            listener("SMTP-1465", 2, retired=True, port=1466),
        ],
        "degraded": [BOB],
        "refused": {"unavailable": 1, "wrong login": 6},
    }
