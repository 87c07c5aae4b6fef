"""How many connections each of several processes has, for all of them to see.

Rule of this module: pure, but for the memory that the processes share. Each writes its own place
alone, and who reads may be a moment late.

Where several processes accept on one socket, the system wakes all, and the first takes what there
is. Left to that, a few connections may all be with one process. So a process that has more than
another lets that one go first, for a moment.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from typing import Final

__all__ = ["SharedCount", "SharedCounts"]

_BYTES: Final = 4


class SharedCounts:
    """The memory with a place for each process; of the one that starts the others.

    Args:
        places: how many processes there may be at a time.

    Attributes:
        fd: the memory's descriptor, to be inherited.
    """

    def __init__(self, places: int) -> None:
        if sys.platform == "linux":
            self.fd: int = os.memfd_create("typed_amp")
        else:
            file, path = tempfile.mkstemp()
            os.unlink(path)  # noqa: PTH108 - as it was made
            self.fd = file
        os.ftruncate(self.fd, places * _BYTES)
        self._memory = mmap.mmap(self.fd, places * _BYTES)
        self._free = set(range(places))

    def take(self) -> int | None:
        """Give a place that nobody has; None if there is none."""
        return self._free.pop() if self._free else None

    def give_back(self, place: int | None) -> None:
        """Nobody has the place any more: its process has ended."""
        if place is not None:
            self._memory[place * _BYTES : (place + 1) * _BYTES] = bytes(_BYTES)
            self._free.add(place)

    def close(self) -> None:
        """Let go of the memory. Those who have inherited it keep it."""
        self._memory.close()
        os.close(self.fd)


class SharedCount:
    """One process's view of the table.

    Args:
        fd: the memory's descriptor, which is closed.
        place: the place of this process.
    """

    def __init__(self, fd: int, place: int) -> None:
        with os.fdopen(fd, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._counts = memoryview(self._memory).cast("i")
        self._place = place
        self._own: dict[int, int] = {}
        self._is_withdrawn = False

    def set(self, part: int, count: int) -> None:
        """Say how many connections this process has.

        Args:
            part: which part of the process has them: it may have several servers.
            count: how many.
        """
        self._own[part] = count
        if not self._is_withdrawn:
            self._counts[self._place] = 1 + sum(self._own.values())  # 0: nobody is there

    def withdraw(self) -> None:
        """Accept no more: nobody is to wait for it."""
        self._is_withdrawn = True
        self._counts[self._place] = 0

    @property
    def has_more(self) -> bool:
        """Whether this process has more than one of the others."""
        own = self._counts[self._place]
        return any(0 < count < own for count in self._counts)
