"""How many instructions the pieces of a call take, counted by valgrind's callgrind.

A count hardly depends on what else a machine does, so that a change of a few per cent shows where
times say nothing. Figures compare on one machine with the same Python and the same packages:
`--json` keeps them, and `--against` compares with those.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from benchmarks.callgrind import check_installed, counted, installed_version, run_to_count
from benchmarks.harness import table
from benchmarks.operations import AT_ONCE, operations
from benchmarks.work import WORKS

ROUNDS = {"repeat": 5, "error": 5, "value": 2, "list": 1, "rows": 1}
"""How often the shorter run does `AT_ONCE` of a work's operations."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.instructions", description=__doc__)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=["repeat"], metavar="WORK")
    parser.add_argument("--only", nargs="+", metavar="OPERATION", help="these operations alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts to a file")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with an earlier run")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        for name, what in json.loads(options.run):
            run_to_count(operations(name)[what].run, ROUNDS[name] * AT_ONCE, first=AT_ONCE)
        return
    check_installed()
    chosen = [
        (name, what)
        for name in options.work
        for what in operations(name)
        if not options.only or what in options.only
    ]
    if not chosen:
        sys.exit(f"there is no such operation; there are: {', '.join(operations('repeat'))}")
    times = [ROUNDS[name] * AT_ONCE for name, _ in chosen]
    counts = counted("benchmarks.instructions", ["--run", json.dumps(chosen)], times)
    figures = {f"{name}: {what}": count for (name, what), count in zip(chosen, counts, strict=True)}
    earlier: dict[str, int] = json.loads(options.against.read_text()) if options.against else {}
    print(f"instructions, Python {platform.python_version()}, {installed_version()}\n")
    rows = [
        [what, f"{number:,}", change(number, earlier.get(what)), ""]
        for what, number in figures.items()
    ]
    print(table(["", "instructions", "change", ""], rows, markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def change(number: int, earlier: int | None) -> str:
    return f"{(number / earlier - 1) * 100:+.1f} %" if earlier else ""


if __name__ == "__main__":
    main()
