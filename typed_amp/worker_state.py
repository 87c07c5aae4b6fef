"""How a pool and its workers are doing, for people who watch.

Rule of this module: snapshots. What counts is counted by who does it, and these say it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["PoolCounters", "WorkerState", "WorkerStatus"]


class WorkerStatus(enum.Enum):
    """What a worker is doing."""

    READY = "ready"
    """It takes calls."""

    RETIRING = "retiring"
    """It finishes what it has, and gets no more; another takes its place."""

    ENDING = "ending"
    """It has no calls any more, and its process ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """How one worker of a pool is doing.

    Attributes:
        process_id: the system's number for its process.
        status: what it is doing.
        calls_in_flight: the calls that it has now. One that its caller has given up counts until
            the worker has really left off.
        calls_done: the calls that it has had.
        age: how many seconds ago it was ready.
    """

    process_id: int
    status: WorkerStatus
    calls_in_flight: int
    calls_done: int
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCounters:
    """How often what happened in a pool, up to now.

    Attributes:
        calls: calls that were made.
        calls_queued: those of them that wait for a worker now.
        calls_in_flight: those that workers have now.
        calls_moved: how often a call went to another worker, since the one that had it was lost
            or ending.
        calls_refused: those that were too many, with `QueueFullError`.
        workers_started: workers that got as far as taking calls.
        workers_recycled: those that had enough calls, or had too much memory.
        workers_lost: those whose process ended by itself or was ended by others.
        workers_killed: those that were stuck after a call's time was over.
        start_failures: attempts to start one that failed.
    """

    calls: int = 0
    calls_queued: int = 0
    calls_in_flight: int = 0
    calls_moved: int = 0
    calls_refused: int = 0
    workers_started: int = 0
    workers_recycled: int = 0
    workers_lost: int = 0
    workers_killed: int = 0
    start_failures: int = 0
