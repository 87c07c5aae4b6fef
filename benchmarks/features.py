"""What each feature of a connection costs a call: the same calls with it alone on, and without.

Both ends are one process, over TCP on loopback, a hundred calls in flight, so that nothing is in
the figures but what the two ends do. The cost is processor time. In each round each feature has its
turn right beside one of the base, in which all is off that can be, before it or behind it by turns,
and the difference is worked out within that pair. The first row is the base against itself: what is
not more than that was not found to cost anything.

`--instructions` counts instead of timing, under valgrind: that shows what time hides.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.callgrind import check_installed, counted, installed_version, run_to_count
from benchmarks.harness import table
from benchmarks.operations import AT_ONCE
from benchmarks.peers.roster import LOOPS
from benchmarks.setups import BASE, SETUPS, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.setups import Call, Setup

TITLE = "all off: the base"
COUNTED = 500
"""How many calls the shorter run makes whose instructions are counted."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="features with such a word")
    parser.add_argument("--rounds", type=int, default=15, help="how often each has its turn")
    parser.add_argument("--calls", type=int, default=2_000, help="how many calls a turn has")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--instructions", action="store_true", help="count instead of timing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        for title in json.loads(options.run):
            run_to_count(calls_of(SETUPS.get(title, BASE)), COUNTED, first=AT_ONCE)
        return
    words = [word.lower() for word in options.only or [""]]
    titles = [title for title in SETUPS if any(word in title.lower() for word in words)]
    if not titles:
        sys.exit(f"there is no such feature; there are: {'; '.join(SETUPS)}")
    about = f"Python {platform.python_version()}"
    if options.instructions:
        check_installed()
        print(f"instructions of a call, both ends, {about}, {installed_version()}\n")
        head, rows, figures = count(titles)
    else:
        print(f"microseconds of processor time of a call, both ends, {about}, {options.loop}")
        print(f"medians of {options.rounds} rounds of {options.calls:,} calls; ", end="")
        print("middle half: between which half of the differences were\n")
        head, rows, figures = measure(titles, options)
    print(table(head, rows, markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


Result = tuple[list[str], list[list[str]], dict[str, Any]]


def measure(titles: Sequence[str], options: argparse.Namespace) -> Result:
    figures: dict[str, dict[str, list[float]]] = {title: {"base": [], "on": []} for title in titles}
    for number in range(options.rounds):
        for title, both in figures.items():
            for side in ("base", "on") if number % 2 else ("on", "base"):
                setup = SETUPS[title] if side == "on" else BASE
                both[side].append(cost(setup, options.calls, options.loop))
    base = statistics.median(each for both in figures.values() for each in both["base"])
    rows = [[TITLE, f"{base:.2f}", "", "", "", ""]]
    for title, both in figures.items():
        differences = [on - off for off, on in zip(both["base"], both["on"], strict=True)]
        median = statistics.median(differences)
        low, high = middle_half(differences)
        rows.append(
            [
                title,
                f"{statistics.median(both['on']):.2f}",
                f"{median:+.2f}",
                f"{median / base * 100:+.1f} %",
                f"{low:+.2f} to {high:+.2f}",
                "",
            ]
        )
    return ["", "us", "difference", "of the base", "middle half", ""], rows, figures


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def cost(setup: Setup, calls: int, loop: str) -> float:
    """Give the microseconds of processor time that a call takes."""

    async def measured() -> float:
        async with opened(setup) as call:
            await call_together(call, 2 * AT_ONCE)
            gc.collect()
            start = time.process_time()
            await call_together(call, calls)
            return (time.process_time() - start) / calls * 1e6

    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(measured())


async def call_together(call: Call, calls: int) -> None:
    async def call_in_turn() -> None:
        for _ in range(calls // AT_ONCE):
            await call()

    await asyncio.gather(*(call_in_turn() for _ in range(AT_ONCE)))


def count(titles: Sequence[str]) -> Result:
    chosen = [TITLE, *titles]
    counts = counted("benchmarks.features", ["--run", json.dumps(chosen)], [COUNTED] * len(chosen))
    base = counts[0]
    figures = dict(zip(chosen, counts, strict=True))
    rows = [
        [title, f"{number:,}", f"{number - base:+,}", f"{(number / base - 1) * 100:+.1f} %", ""]
        for title, number in figures.items()
    ]
    return ["", "instructions", "difference", "of the base", ""], rows, figures


def calls_of(setup: Setup) -> Callable[[int], None]:
    async def call(times: int) -> None:
        async with opened(setup) as call:
            await call_together(call, times)

    return lambda times: asyncio.run(call(times))


if __name__ == "__main__":
    main()
