"""Until when an answer is of use to anybody.

Rule of this module: a deadline is a time of the event loop's clock here, and on the wire the time
that is left: two machines' clocks need not agree.

Whoever calls within a responder has at most the time that the responder itself has: its deadline is
in the context of its task, and so of all tasks that it starts. gRPC calls this deadline
propagation.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextvars import ContextVar
from typing import Final

__all__ = ["AMBIENT_DEADLINE", "decode_deadline", "encode_deadline", "remaining_time", "time_for"]

AMBIENT_DEADLINE: Final[ContextVar[float | None]] = ContextVar("AMBIENT_DEADLINE", default=None)
"""The deadline of the responder that runs, as a time of its event loop."""

_MOST_MILLISECONDS: Final = 10**12
"""Thirty years: longer than anybody waits, and short enough for an event loop's timers."""


def remaining_time() -> float | None:
    """Say how many seconds the caller of the responder that runs still waits; never below 0.

    None if it waits for ever, or didn't say; also outside of a responder. A plain function in a
    thread may ask as well. Calls that a responder makes have no more than that by themselves; this
    is for what isn't a call, such as a query to a database.
    """
    deadline = AMBIENT_DEADLINE.get()
    if deadline is None:
        return None
    try:
        now = asyncio.get_running_loop().time()
    except RuntimeError:  # a plain function in a thread, whose event loop has this clock
        now = time.monotonic()
    return max(0.0, deadline - now)


def time_for(own: float | None, default: float | None) -> float | None:
    """Give the seconds that a call has; None for ever.

    Args:
        own: what the call was given: None for the default, `math.inf` for no end whatever the
            default and the responder around it say.
        default: what it has if it was given nothing.
    """
    if own is None:
        own = default
    if own == math.inf:
        return None
    deadline = AMBIENT_DEADLINE.get()
    if deadline is None:
        return own
    left = deadline - asyncio.get_running_loop().time()
    return left if own is None or left < own else own


def encode_deadline(seconds: float) -> bytes:
    """Write the time that is left: whole milliseconds, rounded up."""
    milliseconds = seconds * 1_000
    if not 0 < milliseconds < _MOST_MILLISECONDS:
        milliseconds = _MOST_MILLISECONDS if milliseconds > 0 else 0
    return b"%d" % math.ceil(milliseconds)


def decode_deadline(data: bytes) -> float | None:
    """Read the time that is left, in seconds; None for what isn't one."""
    if not (data.isdigit() and len(data) <= 15):
        return None
    return min(int(data), _MOST_MILLISECONDS) / 1_000
