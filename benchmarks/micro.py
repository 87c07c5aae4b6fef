"""What the pieces of a call cost in one process, in microseconds: the least of several rounds.

The least is what the machine can do when nothing else disturbs it. A whole call is made over a
connection in memory, so that both ends, but no system calls, are in it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import table
from benchmarks.operations import operations
from benchmarks.work import WORKS

if TYPE_CHECKING:
    from benchmarks.operations import Operation


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.micro", description=__doc__)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed")
    parser.add_argument("--seconds", type=float, default=0.1, help="how long a round takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    figures = {
        name: {
            what: least(operation, options.rounds, options.seconds)
            for what, operation in operations(name).items()
        }
        for name in options.work
    }
    print(f"microseconds, Python {platform.python_version()}\n")
    print(table(["", *options.work, ""], rows(figures), markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def least(operation: Operation, rounds: int, seconds: float) -> float:
    """Give the least time that an operation takes, in microseconds."""
    times = at_once = operation.at_once
    while (elapsed := timed(operation, times)) < seconds / 4:
        times *= 4
    times = at_once * max(1, round(times * seconds / elapsed / at_once))
    return min(timed(operation, times) for _ in range(rounds)) / times * 1e6


def timed(operation: Operation, times: int) -> float:
    start = time.perf_counter()
    operation.run(times)
    return time.perf_counter() - start


def rows(figures: dict[str, dict[str, float]]) -> list[list[str]]:
    names = dict.fromkeys(what for each in figures.values() for what in each)
    return [
        [what, *(shown(each[what]) if what in each else "" for each in figures.values()), ""]
        for what in names
    ]


def shown(microseconds: float) -> str:
    return f"{microseconds:,.2f}" if microseconds < 100 else f"{microseconds:,.0f}"


if __name__ == "__main__":
    main()
