"""`emailproxy serve`: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import click

from emailproxy import __version__
from emailproxy.cli import logfile
from emailproxy.cli.main import EXIT_FAILED
from emailproxy.cli.options import config_option, log_file_option, state_option
from emailproxy.config import ini
from emailproxy.config.model import Config
from emailproxy.errors import EmailProxyError

log = logging.getLogger("emailproxy")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option("--debug", is_flag=True, help="Log more. Passwords, tokens and codes never reach the log.")
@config_option
@state_option
@log_file_option
def serve(debug: bool, config_path: Path | None, state_dir: Path | None, log_file: Path | None) -> None:
    """Run the proxy: headless, in the foreground, until SIGTERM or Ctrl-C.

    The log goes to the log file and to standard error. Under systemd use Type=notify.
    """
    from emailproxy.service import new_event_loop

    config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file)
    settings = config.settings
    running = logfile.start(settings.log_file, size_mib=settings.log_size_mib, files=settings.log_files, debug=debug)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(config))
    except EmailProxyError as error:
        log.error("emailproxy cannot go on: %s", error)
        sys.exit(EXIT_FAILED)
    finally:
        running.close()


async def _serve(config: Config) -> None:
    from emailproxy.service import Service

    log.info("emailproxy %s starts with %s", __version__, config.path)
    for notice in config.notices:
        log.warning("%s", notice)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, ended.set)
    service = Service(config)
    await service.start()
    notify("READY=1")
    log.info("ready")
    await ended.wait()
    notify("STOPPING=1")
    log.info("stopping")
    await service.stop()
    log.info("stopped")


def notify(state: str) -> None:
    """Tells the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("the service manager's socket does not answer: %s", error)
