"""A child that doesn't outlive its parent, not even where it is busy and reads nothing.

Rule of this module: where the parent closes the pipe and lives on, it ends the child itself, and
nothing here does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
from typing import Final

__all__ = ["end_with_parent", "watch_parent"]

_PR_SET_PDEATHSIG: Final = 1

_SECONDS_TO_END: Final = 5.0
"""How long a child that isn't ended by the system may take when its parent is gone."""

_SECONDS_BETWEEN_LOOKS: Final = 0.1


def end_with_parent(parent: int, read_fd: int) -> None:
    """See that this process ends when its parent does, however that ends.

    On Linux the system kills it at once. Elsewhere a thread watches the pipe, and a function that
    never lets go of the interpreter's lock can hold that up.

    Args:
        parent: the number of the parent's process.
        read_fd: a pipe of which the parent alone has the other end.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0:
                if os.getppid() != parent:  # it was faster
                    os.kill(os.getpid(), signal.SIGKILL)
                return
    watch_parent(parent, read_fd)


def watch_parent(parent: int, read_fd: int) -> None:
    """Have a thread end this process some seconds after its parent's end.

    Args:
        parent: the number of the parent's process.
        read_fd: a pipe of which the parent alone has the other end.
    """
    own_fd = os.dup(read_fd)

    def watch() -> None:
        poll = select.poll()
        poll.register(own_fd, 0)  # which tells of the end alone
        poll.poll()
        os.close(own_fd)
        while os.getppid() == parent:  # it has only closed the pipe, or is about to be gone
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        time.sleep(_SECONDS_TO_END)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="watches the parent", daemon=True).start()
