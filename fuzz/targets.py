"""The targets by their names.

Rule of this module: what is in the table is fuzzed by `make fuzz` and replayed by `make test`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fuzz import calls, captures, codecs, plans, reader, served

__all__ = ["CORPUS", "TARGETS"]

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "reader": reader.check,
    "codecs": codecs.check,
    "plans": plans.check,
    "served": served.check,
    "calls": calls.check,
    "captures": captures.check,
}

CORPUS: Final = Path(__file__).parent / "corpus"
"""A directory for each target, with an input in each file."""
