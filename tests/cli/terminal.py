"""A person at a terminal who answers what a command asks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def answered(arguments: Sequence[str], answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Runs a command at a pseudo-terminal of its own; each answer goes to the next prompt that holds its words.

    Returns:
        The exit status, and all that the terminal showed.
    """
    master, slave = os.openpty()
    code = "from emailproxy.cli.main import main; main()"

    def take_the_terminal() -> None:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=take_the_terminal,
    )
    os.close(slave)
    shown = ""
    try:
        for prompt, answer in answers:
            while prompt not in shown.rpartition("\n")[2] or not shown.endswith(": "):
                shown += os.read(master, 4096).decode()
            os.write(master, f"{answer}\n".encode())
            shown = shown.rpartition("\n")[0] + "\n"
        while data := os.read(master, 4096):
            shown += data.decode()
    except OSError:  # Linux says so that the other side is closed
        pass
    os.close(master)
    return process.wait(30), shown
