"""``emailproxy demo``: everything on loopback, so that the proxy can be seen at work without any account."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from emailproxy.demo.run import Demo, Step

COLOURS = {"client": "cyan", "proxy": "green", "server": "magenta", "person": "yellow", "provider": "blue"}
WIDEST = len("provider → person")


@click.command()
@click.option("--once", is_flag=True, help="End when all has worked (exit code 0) or something has not (1).")
def demo(once: bool) -> None:
    """Show the proxy at work: embedded provider and mailbox, ordinary mail programs.

    Without --once it keeps running, for you to try a mail program of your own.
    """
    from rich.console import Console

    from emailproxy.errors import EmailProxyError
    from emailproxy.service import new_event_loop

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run(Console(highlight=False), once=once))
    except EmailProxyError as error:
        raise click.ClickException(str(error)) from error
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise SystemExit(1 if once else 0) from None


async def _run(console: Console, *, once: bool) -> None:
    from emailproxy.demo.run import Demo

    _end_on_signals()
    async with Demo() as running:
        async for step in running.steps():
            _show(console, step)
        console.print("All worked: passwords on one side, OAuth 2.0 access tokens on the other.\n")
        if not once:
            _invite(console, running)
            await asyncio.Event().wait()


def _end_on_signals() -> None:
    """SIGINT and SIGTERM cancel the running task, so that everything is tidied up."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _show(console: Console, step: Step) -> None:
    from rich.text import Text

    console.rule(f"[bold]{step.program}[/] logs in by {step.protocol}", align="left")
    for line in step.lines:
        who = Text(f"{line.speaker} → {line.listener}".ljust(WIDEST), COLOURS[line.speaker])
        console.print(Text("  ").join((who, Text(line.text))), overflow="ellipsis", no_wrap=True)
    console.print(Text("✓ ", "bold green") + Text(f"{step.outcome}\n"))


def _invite(console: Console, running: Demo) -> None:
    console.rule("[bold]Now yours", align="left")
    console.print("Point a mail program at these, without TLS. Ctrl-C ends the demo.")
    for protocol, (host, port) in sorted(running.addresses.items()):
        console.print(f"  {protocol:<8} {host}, port [bold]{port}[/]")
    console.print(f"  user     [bold]{running.account}[/]")
    console.print(f"  password [bold]{running.password}[/]")
