"""`emailproxy serve`: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

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
@click.option("--print-unit", is_flag=True, help="Print a hardened systemd unit for this installation, and end.")
@config_option
@state_option
@log_file_option
def serve(
    debug: bool, print_unit: bool, config_path: Path | None, state_dir: Path | None, log_file: Path | None
) -> None:
    """Run the proxy: headless, in the foreground, until SIGTERM or Ctrl-C.

    The log goes to the log file and to standard error. Under systemd use Type=notify, as --print-unit does.
    """
    if print_unit:
        _print_unit(config_path)
        return
    from emailproxy.service import new_event_loop

    config = ini.load(ini.find(config_path), state_dir=state_dir, log_file=log_file)
    settings = config.settings
    running = logfile.start(settings.log_file, size_mib=settings.log_size_mib, files=settings.log_files, debug=debug)
    runner = asyncio.Runner(loop_factory=new_event_loop)
    code = EXIT_FAILED
    try:
        with suppress(KeyboardInterrupt):  # where loops take no signal handlers: by then all is stopped
            runner.run(_serve(config))
        code = 0
    except EmailProxyError as error:
        log.error("emailproxy cannot go on: %s", error)
    except Exception:
        log.exception("emailproxy cannot go on: this is a fault of its own")
    finally:
        running.close()
    _leave(code)


def _print_unit(config_path: Path | None) -> None:
    from emailproxy.cli import unit

    click.echo(unit.unit(config_path), nl=False)
    hidden = unit.hidden()
    if hidden is not None:
        advice = "install emailproxy where every user may read it, for example in /opt/emailproxy"
        click.echo(f"emailproxy: the service would not see {hidden}; {advice}", err=True)


async def _serve(config: Config) -> None:
    from emailproxy.service import Service

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        with suppress(NotImplementedError):  # Windows: Ctrl-C cancels this task
            loop.add_signal_handler(number, ended.set)
    service = Service(config)
    await service.start()
    log.info("emailproxy %s runs with %s", __version__, config.path)
    for notice in config.notices:
        log.warning("%s", notice)
    notify("READY=1")
    log.info("ready")
    try:
        await ended.wait()
    finally:
        notify("STOPPING=1")
        log.info("stopping")
        await service.stop()
        log.info("stopped")


def _leave(code: int) -> NoReturn:
    """Ends the process at once: all that counts is closed by now.

    Neither the loop nor the interpreter could be closed before the look-up of a name that nobody answers has ended,
    and that takes minutes.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


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
