"""`emailproxy serve`: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import click

from emailproxy import __version__
from emailproxy.cli import logfile
from emailproxy.cli.main import EXIT_CONFIG, EXIT_FAILED, complain
from emailproxy.cli.manager import notify, notify_reloading, notify_stopping
from emailproxy.cli.options import config_option, log_file_option, state_option
from emailproxy.config import ini
from emailproxy.config.model import Config
from emailproxy.errors import ConfigError, EmailProxyError, ServiceError

if TYPE_CHECKING:
    from emailproxy.admin.control import ControlSocket
    from emailproxy.admin.routes import Answers, FromElsewhere
    from emailproxy.service import Reloaded

log = logging.getLogger("emailproxy")

AGAIN_S = 0.5  # a terminal or a service manager may send one signal twice, to a group and to its leader: that is one
END, RELOAD, DEBUG = ("SIGTERM", "SIGINT", "SIGQUIT"), "SIGHUP", "SIGUSR1"  # some are not on every system


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

    The log goes to the log file and to standard error. Under systemd use Type=notify, as --print-unit does. SIGHUP
    reads the configuration again, sessions live on; SIGUSR1 turns the debug log on and off. SIGTERM lets what is
    under way come to its end for at most drain_timeout; a second one cuts it.
    """
    if print_unit:
        _print_unit(config_path)
        return
    run(config_path, state_dir=state_dir, log_file=log_file, debug=debug)


def run(
    config_path: Path | None,
    *,
    state_dir: Path | None = None,
    log_file: Path | None = None,
    debug: bool = False,
    cache_store: Path | None = None,
) -> NoReturn:
    """Serves until a signal comes, and ends the process.

    Args:
        cache_store: where another proxy keeps its cached values, if not in the configuration file.

    Raises:
        ConfigError, ServiceError: it cannot start; before there is a log.
    """
    from emailproxy.service import new_event_loop

    source = Source(ini.find(config_path), state_dir, log_file, cache_store)
    config = source.read()
    source = replace(source, path=source.path.absolute())  # from now on others read what is said of it
    settings = config.settings
    server: Callable[[logfile.Log], Running] = lambda _: Single(source, config)  # noqa: E731
    if settings.workers > 1:
        from emailproxy.cli import workers

        server = workers.prepared(source, config, debug=debug)  # forks, and so comes before the log's thread
    running = logfile.start(settings.log_file, size_mib=settings.log_size_mib, files=settings.log_files, debug=debug)
    runner = asyncio.Runner(loop_factory=new_event_loop)
    code = EXIT_FAILED
    try:
        with suppress(KeyboardInterrupt):  # where loops take no signal handlers: by then all is stopped
            runner.run(server(running).serve())
        code = 0
    except EmailProxyError as error:
        log.error("emailproxy cannot go on: %s", error)
    except Exception:
        log.exception("emailproxy cannot go on: this is a fault of its own")
    finally:
        running.close()
    _leave(code)


def _print_unit(config_path: Path | None) -> None:
    """A unit may be printed before its configuration is written; of one that is wrong the exit code tells."""
    from emailproxy.cli import unit

    printed = unit.Unit.of(config_path)
    click.echo(str(printed), nl=False)
    hidden = unit.hidden()
    if hidden is not None:
        advice = "install emailproxy where every user may read it, for example in /opt/emailproxy"
        complain(f"the service would not see {hidden}; {advice}")
    if printed.fault is not None:
        complain(printed.fault)
        complain(printed.assumed)
        sys.exit(0 if printed.is_early else EXIT_CONFIG)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration comes from, each time that it is read."""

    path: Path
    state_dir: Path | None
    log_file: Path | None
    cache_store: Path | None

    def read(self, elsewhere: FromElsewhere | None = None) -> Config:
        """The configuration as it is now.

        Args:
            elsewhere: in place of the file.

        Raises:
            ConfigError: it is wrong.
        """
        if elsewhere is not None:
            return self.parse(elsewhere.text, elsewhere.path)
        state_dir, log_file, cache_store = self.state_dir, self.log_file, self.cache_store
        return ini.load(self.path, state_dir=state_dir, log_file=log_file, cache_store=cache_store)

    def parse(self, text: str, path: Path) -> Config:
        """The configuration of a text that has this path; raises ConfigError as `read` does."""
        state_dir, log_file, cache_store = self.state_dir, self.log_file, self.cache_store
        return ini.loads(text, path, state_dir=state_dir, log_file=log_file, cache_store=cache_store)


class Server(Protocol):
    """What serves."""

    @property
    def drain_timeout_s(self) -> float:
        """How long `stop` waits at most for what is under way."""

    async def start(self) -> None:
        """Listens on every section, or on none."""

    async def stop(self) -> None:
        """Lets what is under way come to its end, and closes everything."""

    def hurry(self) -> None:
        """`stop` waits no longer."""


class Running(ABC):
    """A server, and what signals and the control socket do to it."""

    def __init__(self, source: Source, config: Config, server: Server) -> None:
        self._source = source
        self._config = config
        self._server = server
        self._fault: ServiceError | None = None
        self._control: ControlSocket | None = None
        self._ended = asyncio.Event()
        self._ended_s = 0.0
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        self._take_signals()
        async with self._reloading:
            await self._start()
        try:
            await self._ended.wait()
        finally:
            notify_stopping(self._server.drain_timeout_s)
            log.info("stopping")
            await self._close()
            log.info("stopped")
        if self._fault is not None:
            raise self._fault

    @abstractmethod
    def _answers(self) -> Answers:
        """What the control socket says."""

    @abstractmethod
    async def _put_in_force(self, elsewhere: FromElsewhere | None) -> tuple[Config, Reloaded]:
        """The configuration as it is now.

        Raises:
            ConfigError, ServiceError: nothing has changed.
        """

    async def _start(self) -> None:
        from emailproxy.service import settled

        await self._server.start()
        log.info("emailproxy %s runs with %s", __version__, self._config.path)
        for notice in self._config.notices:
            log.warning("%s", notice)
        await self._open_control()
        log.info(
            "Initialised emailproxy %s - listening for authentication requests. Connect your email client to begin",
            __version__,
        )
        notify("READY=1")
        log.info("ready")
        settled()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        does = {**dict.fromkeys(END, self._on_end), RELOAD: self._on_hangup, DEBUG: self._toggle_debug}
        for name, action in does.items():
            number = getattr(signal, name, None)
            if number is not None:
                with suppress(NotImplementedError):  # Windows: Ctrl-C cancels this task
                    loop.add_signal_handler(number, action)

    async def _open_control(self) -> None:
        """Without it the server runs as well: mail comes first."""
        if not hasattr(asyncio.get_running_loop(), "create_unix_server") or sys.platform == "win32":
            return
        from emailproxy.admin.control import ControlSocket
        from emailproxy.admin.paths import server_place
        from emailproxy.admin.server import Answering

        control = ControlSocket(server_place(self._config.settings), Answering(self._answers))
        try:
            await control.open()
        except ServiceError as error:
            log.warning("%s", error)
        else:
            self._control = control

    async def _close(self) -> None:
        for task in self._reloads:
            task.cancel()
        if self._control is not None:
            await self._control.close()
        await self._server.stop()

    def _on_end(self) -> None:
        """The first signal lets sessions bring to its end what is under way; another one cuts them."""
        now_s = time.monotonic()
        if not self._ended.is_set():
            self._ended_s = now_s
            self._ended.set()
        elif now_s - self._ended_s >= AGAIN_S:
            self._server.hurry()

    def _toggle_debug(self) -> None:
        """More in the log, or less again."""
        toggle_debug()

    # ---- reading the configuration again

    def _on_hangup(self) -> None:
        if self._ended.is_set():
            return
        task = asyncio.get_running_loop().create_task(self._reload_and_log())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_log(self) -> None:
        with suppress(EmailProxyError):  # it is in the log
            await self.reload()

    async def reload(self, elsewhere: FromElsewhere | None = None) -> Reloaded:
        """Puts the configuration in force as it is now; a wrong one changes nothing. One at a time.

        Raises:
            ConfigError, ServiceError: nothing has changed; the log says so, too.
        """
        async with self._reloading:
            notify_reloading()
            try:
                return await self._reload(elsewhere)
            except ConfigError as error:
                log.error("the configuration is wrong, and the one before stays in force:")
                for fault in error.faults:
                    log.error("%s", fault)
                raise
            except EmailProxyError as error:
                log.error("the configuration before stays in force: %s", error)
                raise
            except Exception:
                log.exception("reading the configuration again met a fault of emailproxy")
                raise
            finally:
                notify("READY=1")

    async def _reload(self, elsewhere: FromElsewhere | None) -> Reloaded:
        config, reloaded = await self._put_in_force(elsewhere)
        for notice in config.notices:
            log.warning("%s", notice)
        log.info("the configuration %s is in force now: %s", config.path, reloaded)
        if reloaded.restart:
            log.warning("of the new configuration, only a restart changes: %s", ", ".join(reloaded.restart))
        return reloaded


class Single(Running):
    """One process."""

    def __init__(self, source: Source, config: Config) -> None:
        from emailproxy.service import Service

        self._service = Service(config)
        super().__init__(source, config, self._service)

    def _answers(self) -> Answers:
        from emailproxy.admin.routes import Routes

        return Routes(self._service, self.reload)

    async def _put_in_force(self, elsewhere: FromElsewhere | None) -> tuple[Config, Reloaded]:
        config = await asyncio.to_thread(self._source.read, elsewhere)
        return config, await self._service.reload(config)


def toggle_debug() -> bool:
    """More in the log, or less again; whether it is more now."""
    ours = logging.getLogger("emailproxy")
    debugging = ours.level != logging.DEBUG
    ours.setLevel(logging.DEBUG if debugging else logging.INFO)
    log.info("the debug log is %s", "on; the same signal turns it off" if debugging else "off")
    return debugging


def _leave(code: int) -> NoReturn:
    """Ends the process at once: all that counts is closed by now.

    Neither the loop nor the interpreter could be closed before the look-up of a name that nobody answers has ended,
    and that takes minutes.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
