"""``scripts/bench``: a figure a line, and exit code 1 where one is above its limit."""

from __future__ import annotations

import argparse
import asyncio
import sys

from emailproxy.service import new_event_loop
from tests.bench import relay, warm_logins


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures what logins and the relay cost.")
    parser.add_argument("--logins", type=int, default=1000, help="warm logins in a row (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=1000, help="passed each way (default: %(default)s)")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        cpu_s = runner.run(warm_logins.measure(options.logins))
        allowed_s = warm_logins.LIMIT_S * options.logins / warm_logins.LIMIT_LOGINS
        print(f"{options.logins} warm logins: {cpu_s:.3f} s of CPU (allowed: {allowed_s:.3f} s)", flush=True)
        for way, figures in runner.run(relay.measure(options.megabytes * 1_000_000)).items():
            print(f"relay, {way}: {figures.cpu_s_per_gb:.2f} s of CPU a GB, {figures.mb_per_s:.0f} MB/s", flush=True)
    return int(cpu_s > allowed_s)


if __name__ == "__main__":
    sys.exit(main())
