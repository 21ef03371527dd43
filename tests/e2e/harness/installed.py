"""Where scripts/test puts programs that are not the operating system's: those from npm, and those from PyPI."""

from __future__ import annotations

from pathlib import Path

NODE_MODULES = Path(__file__).parents[3] / ".venv" / "node" / "node_modules"
PROGRAMS = NODE_MODULES / ".bin"
"""Has npm's own Node.js where the system's is too old."""
PROGRAMS_OF_PYPI = NODE_MODULES.parents[1] / "programs"
"""Programs with virtual environments of their own: ``other-proxy``."""
