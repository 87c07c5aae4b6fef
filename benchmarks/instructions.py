"""How many instructions the pieces of a call take, counted by valgrind's callgrind.

A count hardly depends on what else a machine does, so that a change of a few per cent shows where
times say nothing. Each operation runs N times, then 2 N times; the difference is N operations,
without what it takes to begin. Figures compare on one machine with the same Python and the same
packages: `--json` keeps them, and `--against` compares with those.

All of it runs in one process, which tells callgrind where one run ends and the next begins by a
function of the system that nothing else calls.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import table
from benchmarks.operations import AT_ONCE, operations
from benchmarks.work import WORKS

MARK = "getsid"

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
        run(json.loads(options.run))
        return
    if shutil.which("valgrind") is None:
        sys.exit("valgrind counts the instructions, and is not installed: apt-get install valgrind")
    chosen = [
        (name, what)
        for name in options.work
        for what in operations(name)
        if not options.only or what in options.only
    ]
    if not chosen:
        sys.exit(f"there is no such operation; there are: {', '.join(operations('repeat'))}")
    figures = counted(chosen)
    earlier: dict[str, int] = json.loads(options.against.read_text()) if options.against else {}
    print(f"instructions, Python {platform.python_version()}, {valgrind_version()}\n")
    rows = [
        [what, f"{number:,}", change(number, earlier.get(what)), ""]
        for what, number in figures.items()
    ]
    print(table(["", "instructions", "change", ""], rows, markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def run(chosen: list[tuple[str, str]]) -> None:
    """Do the operations; this is what is counted."""
    for name, what in chosen:
        operation = operations(name)[what]
        times = ROUNDS[name] * AT_ONCE
        operation.run(AT_ONCE)  # what it does only once is done then
        os.getsid(0)
        operation.run(times)
        os.getsid(0)
        operation.run(2 * times)
        os.getsid(0)


def counted(chosen: list[tuple[str, str]]) -> dict[str, int]:
    """Count the instructions of one of each operation."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "counts")
        ran = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"),
                *(f"--dump-before={MARK}", "--dump-line=no"),
                *(sys.executable, "-m", "benchmarks.instructions", "--run", json.dumps(chosen)),
            ],
            # The hashes of strings decide where they lie in a dict, and that how long it searches.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        totals = [
            total(output.with_name(f"counts.{number + 1}")) for number in range(marks(output))
        ]
    if ran.returncode or len(totals) != 3 * len(chosen):
        raise SystemExit(f"nothing could be counted:\n{ran.stderr}")
    return {
        f"{name}: {what}": round((longer - shorter) / (ROUNDS[name] * AT_ONCE))
        for (name, what), shorter, longer in zip(chosen, totals[1::3], totals[2::3], strict=True)
    }


def marks(output: Path) -> int:
    """Give how many times a mark was met: callgrind then writes what it has counted by then."""
    return len([*output.parent.glob(f"{output.name}.*")])


def total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def valgrind_version() -> str:
    return subprocess.run(
        ["valgrind", "--version"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def change(number: int, earlier: int | None) -> str:
    return f"{(number / earlier - 1) * 100:+.1f} %" if earlier else ""


if __name__ == "__main__":
    main()
