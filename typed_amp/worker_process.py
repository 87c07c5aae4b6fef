"""One worker of a pool, as the pool holds it.

Rule of this module: a worker is started to the point where it takes calls, or there is none and
nothing of it is left.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from typed_amp.box import CLOSING
from typed_amp.errors import CallTimeoutError, ConnectionLostError, RemoteAmpError, WorkerStartError
from typed_amp.processes import open_process
from typed_amp.worker_commands import NotStartedError, Settle
from typed_amp.worker_state import WorkerState, WorkerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from typed_amp.processes import ProcessConnection
    from typed_amp.worker_commands import WorkerSettings

__all__ = ["Worker", "open_worker", "start_worker"]

_PROGRAM: Final = """
import json, sys
settings = sys.argv.pop()
sys.path[:] = json.loads(settings)["path"]
from typed_amp.worker import main
sys.exit(main(settings))
"""
"""With `-P`, so that what is in the directory where a worker begins is not taken for Python's own
modules; and typed_amp is found where this process has found it."""


class Worker:
    """A worker that has begun.

    Args:
        connection: the connection to it.

    Attributes:
        connection: the same.
        in_flight: how many calls it has.
        given: how many it was given.
        is_retired: whether it gets no more.
        is_lost: whether it has ended, or begun to, and nobody here had asked for it.
        is_stuck: whether it can't be ended well: a function of its goes on for ever.
        doom: why the pool has killed it, if it has.
        is_gone: set when another is to take its place.
        since: when it was ready, by the event loop's clock.
    """

    __slots__ = (
        "connection",
        "doom",
        "given",
        "in_flight",
        "is_gone",
        "is_lost",
        "is_retired",
        "is_stuck",
        "since",
    )

    def __init__(self, connection: ProcessConnection[Any]) -> None:
        self.connection: ProcessConnection[Any] = connection
        self.in_flight: int = 0
        self.given: int = 0
        self.is_retired: bool = False
        self.is_lost: bool = False
        self.is_stuck: bool = False
        self.doom: str | None = None
        self.is_gone: asyncio.Event = asyncio.Event()
        self.since: float = asyncio.get_running_loop().time()

    @property
    def age(self) -> float:
        """How many seconds ago it was ready."""
        return asyncio.get_running_loop().time() - self.since

    @property
    def is_closing(self) -> bool:
        """Whether it has said that it ends, and refuses what it is asked from now on."""
        return self.connection._link.is_peer_closing

    @property
    def state(self) -> WorkerState:
        """How it is doing."""
        status = WorkerStatus.READY
        if self.connection.is_closed or (self.is_retired and not self.in_flight):
            status = WorkerStatus.ENDING
        elif self.is_retired:
            status = WorkerStatus.RETIRING
        return WorkerState(
            process_id=self.connection.process_id,
            status=status,
            calls_in_flight=self.in_flight,
            calls_done=self.given - self.in_flight,
            age=self.age,
        )

    def end(self) -> None:
        """Begin to end its process: well, or by force if it is stuck."""
        if self.is_stuck:
            self.kill("a function that it runs in a thread doesn't end")
        else:
            self.connection.close(drain_timeout=0)

    def kill(self, reason: str) -> None:
        """End its process now.

        Args:
            reason: why, for the errors of calls that it had.
        """
        self.doom = self.doom or reason
        self.connection.kill()
        self.connection.close(drain_timeout=0)

    async def settle(self, grace: float | None) -> str | None:
        """Wait until it has left off what was given up, or has done what wants no answer.

        Args:
            grace: the seconds that it has to leave off, of which a function in a thread has half;
                None if it is to do what it was told, and has any time for it.

        Returns:
            Why that will never be so by itself, if so; of a worker that is stuck only once.
        """
        question, seconds = Settle(follows_untold=True), math.inf
        if grace is not None:
            question, seconds = Settle(seconds=grace / 2), grace
        try:
            settled = await self.connection.call(question, timeout=seconds)
        except CallTimeoutError:
            return "its event loop stands still"
        except (ConnectionLostError, RemoteAmpError):
            return None
        if settled.unsettled and not self.is_stuck:
            self.is_stuck = True
            return "a function that it runs in a thread doesn't end"
        return None


def open_worker(
    settings: WorkerSettings, **options: Any
) -> Callable[[], Coroutine[Any, Any, ProcessConnection[Any]]]:
    """Give what starts the process of a worker.

    Args:
        settings: what it is to know.
        options: as for `connect_process`.
    """

    async def start() -> ProcessConnection[Any]:
        told = replace(settings, parent=os.getpid()).written()
        arguments = sys.executable, "-P", "-c", _PROGRAM, told
        return await open_process(arguments, title="typed_amp.worker", **options)

    return start


async def start_worker(
    open_connection: Callable[[], Coroutine[Any, Any, ProcessConnection[Any]]],
    target: str,
    timeout: float | None,
) -> Worker:
    """Start a worker, and wait until it takes calls. Cancelling ends it.

    Args:
        open_connection: starts its process.
        target: what it serves.
        timeout: the seconds that it has for that.

    Raises:
        WorkerStartError: it can't.
    """
    connection: ProcessConnection[Any] | None = None
    try:
        async with asyncio.timeout(timeout):
            connection = await open_connection()
            await connection.call(Settle(), timeout=math.inf)
            return Worker(connection)
    except BaseException as error:
        if connection is not None:
            connection.kill()
            connection.close(drain_timeout=0)
            ending = asyncio.ensure_future(connection.wait_closed())
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending  # which is quick
                raise
        if isinstance(error, NotStartedError):
            raise WorkerStartError(target, error.reason, error.traceback) from None
        if isinstance(error, TimeoutError):
            told = f"it was not ready within {timeout:.3g} seconds, see start_timeout"
            raise WorkerStartError(target, told) from error
        is_closing = isinstance(error, RemoteAmpError) and error.code == CLOSING.decode()
        if is_closing or isinstance(error, ConnectionLostError):
            told = f"it ended before it was ready; standard error may say more ({error})"
            raise WorkerStartError(target, told) from error
        if isinstance(error, (OSError, RemoteAmpError)):
            raise WorkerStartError(target, str(error)) from error
        if isinstance(error, Exception):  # something is odd here, such as in sys.path
            told = f"it can't be started: {type(error).__name__}: {error}"
            raise WorkerStartError(target, told) from error
        raise
