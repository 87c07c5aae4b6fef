"""What a test may leave behind in the system: descriptors and children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path


def descriptors() -> dict[int, str]:
    """Give the open descriptors, each with what it leads to."""
    found: dict[int, str] = {}
    for path in Path("/dev/fd").iterdir():
        try:
            found[int(path.name)] = str(path.readlink())
        except FileNotFoundError:
            pass  # the one that listed them
        except OSError:
            found[int(path.name)] = "?"  # this system doesn't say
    return found


def children(process_id: int | None = None) -> set[int]:
    """Give the processes that one, or this one, has started and not reaped; zombies too."""
    if sys.platform != "linux":
        return set()
    found: set[int] = set()
    for task in Path(f"/proc/{process_id or os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def is_running(process_id: int) -> bool:
    """Say whether there is such a process, and it has not ended."""
    try:
        os.kill(process_id, 0)
        if sys.platform == "linux":  # where nobody reaps orphans, they stay as zombies
            status = Path(f"/proc/{process_id}/stat").read_text()
            return status.rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
    return True


class Leftovers:
    """What there was when this was made, and what is left over of what came later."""

    def __init__(self) -> None:
        self._descriptors = descriptors()
        self._children = children()
        self._tasks = asyncio.all_tasks()

    def found(self) -> list[object]:
        tasks = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        changed = set(descriptors().items()) ^ set(self._descriptors.items())
        return [*changed, *self.children(), *tasks]

    def children(self) -> set[int]:
        """Give the children that are left over. Other tests may have some for all their time."""
        return children() - self._children

    async def check(self) -> None:
        """Wait until nothing is left over, which should be so at once, or nearly."""
        async with asyncio.timeout(5):
            while left_over := self.found():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    raise AssertionError(left_over) from None
