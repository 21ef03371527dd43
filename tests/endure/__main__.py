"""``scripts/endure``: faults on real parts, each with its figures, and exit code 1 where one falls short."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.arguments import INTERRUPTED, find_servers, minutes, written_file
from tests.bench.output import told_to

if TYPE_CHECKING:  # --help works before anything is installed
    from tests.endure.frame import Result, Scenario

MINUTES = 30.0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/endure",
        description="Tries to break emailproxy: faults on real parts, with a figure for each. "
        "Exits with 1 where a figure falls short of what is asked, or a scenario fails.",
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help="the names of scenarios or of groups (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="say what each scenario does, and do nothing")
    parser.add_argument("--short", action="store_true", help="smaller numbers, in some minutes: what CI runs")
    parser.add_argument(
        "--minutes", type=minutes, default=MINUTES, metavar="M", help="how long the soak goes on (default: %(default)g)"
    )
    parser.add_argument("--json", type=written_file, metavar="FILE", help="write the figures to this file as well")
    return parser


def main() -> int:
    parser = arguments()
    try:
        with told_to(parser.prog):
            return _main(parser, parser.parse_args())
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from tests.endure import frame

    known = frame.load()
    wanted = set(options.scenarios)
    if unknown := wanted - {name for one in known for name in (one.name, one.group)}:
        parser.error(f"no such scenario or group: {', '.join(sorted(unknown))}; --list names them")
    chosen = [one for one in known if not wanted or wanted & {one.name, one.group}]
    if options.list:
        _list(chosen)
        return 0
    find_servers(parser.prog)
    results = []
    for one in chosen:
        _tell(f"{one.name}: {one.what}")
        result = frame.perform(one, short=options.short, minutes=options.minutes, tell=_tell)
        _tell(f"  {_verdict(result)}, after {result.seconds:.1f} s\n")
        results.append(result)
    _summary(results)
    if options.json is not None:
        _write(options.json, results, short=options.short)
    return int(not all(result.ok for result in results))


def _tell(text: str) -> None:
    print(text, flush=True)


def _list(scenarios: Sequence[Scenario]) -> None:
    group = ""
    for one in scenarios:
        if one.group != group:
            group = one.group
            print(f"{group}:")
        print(f"  {one.name:<20} {one.what}")


def _verdict(result: Result) -> str:
    if result.left_out:
        return f"left out: {result.left_out}"
    return "ok" if result.ok else f"FELL SHORT{f': {result.problem}' if result.problem else ''}"


def _summary(results: Sequence[Result]) -> None:
    for result in results:
        _tell(f"{result.scenario.name:<22} {_verdict(result)}")
        for figure in result.figures:
            if not figure.holds:
                _tell(str(figure))
    short = sum(not result.ok for result in results)
    seconds = sum(result.seconds for result in results)
    _tell(f"\n{len(results)} scenarios in {seconds:.0f} s, {short} of them fell short")


def _write(path: Path, results: Sequence[Result], *, short: bool) -> None:
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "short": short,
        "scenarios": [result.facts() for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
