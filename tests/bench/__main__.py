"""``scripts/bench``: emailproxy beside what else there is. The exit code tells of failures, never of times."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import measures
from tests.bench.arguments import INTERRUPTED, PICTURES, count, find_servers, picture, written_file
from tests.bench.output import told_to
from tests.bench.results import ORDER, read

if TYPE_CHECKING:
    from tests.bench.candidate import Candidate
    from tests.bench.site import Bench

ROUNDS, SHORT_ROUNDS = 5, 1
RESULT = "build/bench.json"
PICTURE = Path("scripts/bench")
"""The README's."""
MAX_DESCRIPTORS = 65_536
CANDIDATES = "; ".join(ORDER)


def parser() -> argparse.ArgumentParser:
    """Nothing but the standard library is needed up to here: ``--help`` works before anything is installed."""
    made = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures emailproxy beside no proxy at all, stunnel, Dovecot as a proxy, and the proxy that PyPI "
        "has under our name; all in front of the same servers on this machine, in interleaved rounds.",
        epilog=f"Measures: {', '.join(measures.names())}. Exit code 1: something failed, or lost octets. "
        "A figure that is worse than its target is no failure.",
    )
    made.add_argument("--short", action="store_true", help="one small round of everything, to see that it works")
    made.add_argument("--rounds", type=count, metavar="N", help=f"default: {ROUNDS}, of the long measures fewer")
    made.add_argument("--only", metavar="MEASURE,..", type=_names, default=[], help="these measures")
    made.add_argument(
        "--candidates", metavar="PART,..", type=_names, default=[], help=f"those with this in their names: {CANDIDATES}"
    )
    made.add_argument("--json", metavar="FILE", type=written_file, default=RESULT, help="default: %(default)s")
    kinds = " and ".join(f"NAME{suffix}" for suffix in PICTURES)
    made.add_argument(
        "--plot", metavar="NAME", type=picture, nargs="?", const="",
        help=f"draws {kinds}; default: {PICTURE}, or beside the JSON with --short, --only or --candidates",
    )  # fmt: skip
    return made


def pictures(options: argparse.Namespace) -> list[Path]:
    """What ``--plot`` draws: the README shows a whole run, and nothing less."""
    if options.plot is None:
        return []
    partial = options.short or options.only or options.candidates
    name = options.plot or (Path(options.json).with_suffix("") if partial else PICTURE)
    return [Path(f"{name}{suffix}") for suffix in PICTURES]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def named(part: str, name: str) -> bool:
    """Whether it is one of those that ``--candidates`` asks for with this part."""
    return part.casefold() in name.casefold()


def main() -> int:
    try:
        with told_to(parser().prog):
            return _main(parser().parse_args())
    except KeyboardInterrupt:
        print("scripts/bench: interrupted; no figures are written", file=sys.stderr)
        return INTERRUPTED


def _main(options: argparse.Namespace) -> int:
    if unknown := set(options.only) - set(measures.names()):
        parser().error(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(measures.names())}")
    if unknown := {part for part in options.candidates if not any(named(part, name) for name in ORDER)}:
        parser().error(f"no such candidate: {', '.join(sorted(unknown))}; there are {CANDIDATES}")
    from emailproxy.service import new_event_loop
    from tests.bench.processes import allow_descriptors
    from tests.e2e.harness.installed import PROGRAMS_OF_PYPI

    find_servers("scripts/bench", PROGRAMS_OF_PYPI)
    with contextlib.suppress(OSError, ValueError):  # with fewer, the measure of many connections says so
        allow_descriptors(MAX_DESCRIPTORS)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(bench(options))
    drawn = pictures(options)
    if drawn and not code:
        command = [sys.executable, "-m", "tests.bench.plot", options.json, *drawn]
        code = subprocess.run(command, check=False).returncode
    if drawn and not code:
        print(f"{' and '.join(map(str, drawn))} show them.")
    return code


async def bench(options: argparse.Namespace) -> int:
    from tests.bench import frame, machine, tables
    from tests.bench.candidate import OURS
    from tests.bench.effort import effort_for
    from tests.bench.site import bench as everything

    console, start_s = tables.console(), time.monotonic()
    facts = machine.facts()
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()))
    if warning := machine.warning():
        console.print(warning, style="bold yellow")
    rounds = options.rounds or (SHORT_ROUNDS if options.short else ROUNDS)
    chosen = [frame.load(name) for name in options.only or measures.names()]
    results: list[frame.Figures] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o711)
        effort = effort_for(short=options.short, slow=False)
        async with everything(Path(folder), effort) as around, contextlib.AsyncExitStack() as stack:
            candidates, failed = await _started(around, stack, options.candidates)
            kinds = {candidate.name: candidate.kind for candidate in candidates}
            for measure in chosen:
                figures = await frame.run(around, measure, candidates, rounds, short=options.short)
                results.append(figures)
                console.print(tables.of_measure(figures, kinds))
                for name, failure in figures.failures.items():
                    console.print(f"{name}: {failure}", style="red", markup=False)
    frame.write(options.json, frame.document(facts, datetime.now(UTC).isoformat(timespec="seconds"), results))
    if options.short:
        console.print("The figures of so short a run say nothing; they only show that everything works.")
    else:
        console.print(tables.of_all(read(options.json), kinds))
    console.print(f"{options.json} has all figures. That took {time.monotonic() - start_s:.0f} s.")
    # Of others' failures the tables tell; this project is answerable for its own.
    return int(any(OURS & names for names in (failed, *(figures.failures.keys() for figures in results))))


async def _started(
    around: Bench, stack: contextlib.AsyncExitStack, parts: list[str]
) -> tuple[list[Candidate], set[str]]:
    """Those whose names have one of the parts, or all; and the names of those that do not start."""
    from tests.bench.candidates import STARTS
    from tests.bench.candidates.leaving import left_out

    started, failed = [], set()
    for name, start in STARTS.items():
        if parts and not any(named(part, name) for part in parts):
            continue
        try:
            candidate = await stack.enter_async_context(start(around, around.servers))
        except Exception as error:  # whatever it is, the others are measured
            left_out(name, f"it does not start: {type(error).__name__}: {error}")
            failed.add(name)
        else:
            if candidate is not None:
                started.append(candidate)
    return started, failed


if __name__ == "__main__":
    sys.exit(main())
