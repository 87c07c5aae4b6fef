"""When a worker has done its part, and another is to take its place.

Rule of this module: it looks at a worker from outside, so that one that leaks is not asked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Recycling", "resident_memory"]

_STATM: Final = "/proc/{}/statm"


@dataclass(frozen=True, slots=True)
class Recycling:
    """After how much a worker is replaced.

    Attributes:
        max_calls: the calls that it may have been given; None for any number.
        max_memory_bytes: the resident memory that it may have when a call is over; None for any.

    Raises:
        ValueError: a number is not positive, or this system doesn't say what memory a process has.
    """

    max_calls: int | None
    max_memory_bytes: int | None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None for any, not {value}")
        if self.max_memory_bytes is not None and not Path(_STATM.format("self")).exists():
            raise ValueError("max_memory_bytes needs Linux, which says what memory a process has")

    def reason(self, calls: int, process_id: int) -> str | None:
        """Say why a worker is to be replaced, if it is.

        Args:
            calls: how many it was given.
            process_id: the system's number for it; looked at only if that decides.
        """
        if self.max_calls is not None and calls >= self.max_calls:
            return f"it was given {calls:,} calls, as many as max_calls says"
        if self.max_memory_bytes is not None:
            memory = resident_memory(process_id)
            if memory > self.max_memory_bytes:
                return (
                    f"it has {memory:,} bytes of memory, more than the {self.max_memory_bytes:,}"
                    " that max_memory_bytes says"
                )
        return None


def resident_memory(process_id: int) -> int:
    """Give how many bytes of memory a process has now; 0 if it has ended."""
    try:
        pages = Path(_STATM.format(process_id)).read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
