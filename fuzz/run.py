"""Run one target in this process: `python -m fuzz.run TARGET [libFuzzer's arguments]`.

Rule of this module: typed_amp's own modules are instrumented, and nothing else is. That is what
guides the fuzzer.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from typing import Any


def main() -> None:
    name = sys.argv.pop(1)
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["typed_amp"]):
        importlib.import_module("typed_amp")
        target = importlib.import_module(f"fuzz.{name}")
    # To compare inputs, libFuzzer runs this again, by a shell.
    sys.argv[0] = shlex.join([sys.executable, "-m", "fuzz.run", name])
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
