"""Fuzz targets, each in a process of its own: `python -m fuzz [--seconds N] [TARGET ...]`.

Rule of this module: a run starts from what is kept in `fuzz/corpus/`, and changes that only if told
to with `--keep`. What a run finds is below `build/fuzz/`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "build" / "fuzz"
DICTIONARY = Path(__file__).parent / "amp.dict"
NAMES = ("reader", "codecs", "plans", "served", "calls", "captures")

_NOISE = re.compile(r'#\d+\s+(NEW|REDUCE|RELOAD)|INFO: Instr|WARNING: Failed to find|[#"]\D')
"""What libFuzzer says of each new input, of each module, and at the end of what to put into the
dictionary."""


MAX_BYTES = 4_096
"""How long an input may be; of the kept ones a quarter of that."""

MAX_SECONDS = 10
"""How long one input may take."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Coverage-guided fuzzing.")
    parser.add_argument("--seconds", type=int, default=600, help="how long, for each target")
    parser.add_argument(
        "--keep", action="store_true", help="put the smallest corpus that reaches as much in place"
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    failed = [
        name for name in options.targets or NAMES if not fuzz(name, options.seconds, options.keep)
    ]
    for name in failed:
        print(f"{name}: see {FOUND / name}; run a file again with: python -m fuzz.run {name} FILE")
    return bool(failed)


def fuzz(name: str, seconds: int, keep: bool) -> bool:
    """Fuzz one target. False: there are findings."""
    print(f"== {name}", flush=True)
    directory = FOUND / name
    corpus = directory / "corpus"
    kept = Path(__file__).parent / "corpus" / name
    for path in (corpus, kept):
        path.mkdir(parents=True, exist_ok=True)
    common = [f"-max_len={MAX_BYTES}", f"-timeout={MAX_SECONDS}", f"-dict={DICTIONARY}"]
    status = run(
        name,
        *common,
        f"-max_total_time={seconds}",
        f"-artifact_prefix={directory}/",
        "-print_final_stats=1",
        str(corpus),
        str(kept),
    )
    if status == 0 and keep:
        smallest = directory / "smallest"
        shutil.rmtree(smallest, ignore_errors=True)
        smallest.mkdir()
        short = f"-max_len={MAX_BYTES // 4}"
        status = run(name, "-set_cover_merge=1", short, str(smallest), str(kept), str(corpus))
        if status == 0:
            shutil.rmtree(kept)
            smallest.rename(kept)
    return status == 0


def run(name: str, *arguments: str) -> int:
    """Run libFuzzer, and print what it says but its line for each input that is new."""
    command = [sys.executable, "-m", "fuzz.run", name, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if not _NOISE.match(line):
                print(line, end="", flush=True)
    return process.returncode


if __name__ == "__main__":
    importlib.import_module("atheris")  # says what is missing before anything begins
    sys.exit(main())
