"""Node.js and its packages, as scripts/test installs them."""

from __future__ import annotations

from pathlib import Path

NODE_MODULES = Path(__file__).parents[3] / ".venv" / "node" / "node_modules"
PROGRAMS = NODE_MODULES / ".bin"
"""Has npm's own Node.js where the system's is too old."""
