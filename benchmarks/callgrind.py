"""Counting instructions by valgrind's callgrind, in a process of its own.

Rule of this module: what is counted runs N times, then 2 N times; the difference is N of it,
without what it takes to begin. That process tells callgrind where one run ends and the next begins
by a function of the system that nothing else calls.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MARK = "getsid"


def check_installed() -> None:
    """End the program where there is no valgrind."""
    if shutil.which("valgrind") is None:
        sys.exit("valgrind counts the instructions, and is not installed: apt-get install valgrind")


def installed_version() -> str:
    return subprocess.run(
        ["valgrind", "--version"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def run_to_count(run: Callable[[int], None], times: int, *, first: int) -> None:
    """Run what is counted; for the process that `counted` starts.

    Args:
        run: does it a number of times.
        times: how often the shorter run does it.
        first: how often it is done before: what is done only once is done then.
    """
    run(first)
    # A full collection of garbage looks at all that there is, and comes in one run or the other.
    gc.collect()
    gc.freeze()
    os.getsid(0)
    run(times)
    os.getsid(0)
    run(2 * times)
    os.getsid(0)


def counted(module: str, arguments: Sequence[str], times: Sequence[int]) -> list[int]:
    """Count the instructions of one of each of several things.

    Args:
        module: the program, which calls `run_to_count` for one after the other.
        arguments: what to pass to it.
        times: what each passes as `times`.
    """
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "counts")
        ran = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"),
                *(f"--dump-before={MARK}", "--dump-line=no"),
                *(sys.executable, "-m", module, *arguments),
            ],
            # The hashes of strings decide where they lie in a dict, and that how long it searches.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        # Whenever a mark is met, callgrind writes what it has counted by then.
        marks = len([*output.parent.glob(f"{output.name}.*")])
        totals = [total(output.with_name(f"counts.{number + 1}")) for number in range(marks)]
    if ran.returncode or len(totals) != 3 * len(times):
        raise SystemExit(f"nothing could be counted:\n{ran.stderr}")
    return [
        round((longer - shorter) / number)
        for number, shorter, longer in zip(times, totals[1::3], totals[2::3], strict=True)
    ]


def total(path: Path) -> int:
    found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
