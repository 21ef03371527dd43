"""What a server at rest has in memory: libraries that no login has needed yet stay out of it."""

from __future__ import annotations

import json
import subprocess
import sys

SERVER = ("cli.main", "cli.serve", "service", "admin.control", "admin.server")
"""What is imported by the time that `emailproxy serve` accepts."""
LATER = {"aiohttp", "cryptography", "filelock", "google", "jwt", "msal", "oauthlib", "requests", "rich", "yaml"}


def test_a_server_at_rest_has_imported_no_library_that_it_does_not_use() -> None:
    program = (
        "import importlib, json, sys\n"
        f"for name in {SERVER!r}:\n    importlib.import_module('emailproxy.' + name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert LATER & set(json.loads(ran.stdout)) == set()
