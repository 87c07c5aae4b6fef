"""Calls per second and latency of repeat("abc", 3), client and server in two processes.

Three pairs of programs take turns in one run, so that a machine's moods meet all of them alike:
typed_amp, Twisted's AMP, and a bare asyncio.Protocol that moves the same bytes and does nothing
else: what is left of the time when the library costs nothing. Quote the ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version

PEERS = {
    "typed_amp": "benchmarks.peers.typed",
    "twisted": "benchmarks.peers.twisted_amp",
    "bare": "benchmarks.peers.bare",
}


@dataclass
class Figures:
    """What one client measured: calls per second, and the latency of a call in microseconds."""

    rate: float
    median: float
    p99: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair has its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a turn takes")
    parser.add_argument("--uvloop", action="store_true", help="run typed_amp and bare on uvloop")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, Twisted {version('twisted')},"
        f" pydantic {version('pydantic')}, {'uvloop' if options.uvloop else 'the default loop'};"
        f" the median of {options.rounds} rounds"
    )
    print(f"\n{'in flight':>9}  {'':10} {'calls/s':>9} {'median us':>10} {'p99 us':>9}", end="")
    print(f"  {'rate / twisted':>16}  {'rate / bare':>12}")
    for in_flight in (1, 100):
        rounds: list[dict[str, Figures]] = [
            {
                name: measure(module, in_flight, options.seconds, uvloop=options.uvloop)
                for name, module in PEERS.items()
            }
            for _ in range(options.rounds)
        ]
        for name in PEERS:
            middle = [
                statistics.median(getattr(figures[name], what) for figures in rounds)
                for what in ("rate", "median", "p99")
            ]
            # Round by round, not median by median: both sides of a ratio saw the same machine.
            ratios = [
                statistics.median(figures[name].rate / figures[peer].rate for figures in rounds)
                for peer in ("twisted", "bare")
            ]
            print(
                f"{in_flight:>9}  {name:10} {middle[0]:>9,.0f} {middle[1]:>10,.0f}"
                f" {middle[2]:>9,.0f}  {ratios[0]:>16.2f}  {ratios[1]:>12.2f}"
            )


def measure(module: str, in_flight: int, seconds: float, *, uvloop: bool) -> Figures:
    """Start a server and a client of one kind, and let the client measure."""
    command = [sys.executable, "-m", module]
    extra = ["--uvloop"] if uvloop else []
    with subprocess.Popen(
        [*command, "server", *extra], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            client = [*command, "client", port, str(in_flight), str(seconds), *extra]
            output = subprocess.run(client, check=True, stdout=subprocess.PIPE, text=True).stdout
        finally:
            server.terminate()
    return Figures(**json.loads(output))


if __name__ == "__main__":
    main()
