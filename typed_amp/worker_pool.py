"""A pool of processes that are called: the face of it.

Rule of this module: it says what there is, and when all of it begins and ends. Which processes
there are is the business of `Crew`, and what becomes of a call that of `WorkerCalls`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self

from typing_extensions import TypeVar

from typed_amp.backoff import Backoff
from typed_amp.box import printable
from typed_amp.command import make_command
from typed_amp.crew import Crew
from typed_amp.errors import ConnectionLostError, WorkerStartError
from typed_amp.limits import DEFAULT_LIMITS
from typed_amp.opening import ClosedAtEnd
from typed_amp.options import DRAIN_TIMEOUT, check_options
from typed_amp.processes import KILL_TIMEOUT
from typed_amp.recycling import Recycling
from typed_amp.worker_calls import WorkerCalls
from typed_amp.worker_commands import LOADING, WorkerSettings
from typed_amp.worker_process import open_worker
from typed_amp.worker_state import PoolCounters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.connection import Connection
    from typed_amp.limits import Limits
    from typed_amp.router import Router
    from typed_amp.worker_state import WorkerState

__all__ = ["ATTEMPTS", "GRACE", "MAX_QUEUED", "START_TIMEOUT", "WorkerPool"]

P = ParamSpec("P")
R = TypeVar("R")

MAX_QUEUED: Final = 10_000
"""How many calls wait for a worker, unless told otherwise.

Callers that all wait for a machine that can't keep up had better be told.
"""

ATTEMPTS: Final = 5
"""In how many workers an idempotent call is tried, unless told otherwise.

More than bad luck needs, and few enough that a call which kills its worker doesn't kill many.
"""

GRACE: Final = 1.0
"""How many seconds a worker has to leave off a call that was given up, unless told otherwise."""

START_TIMEOUT: Final = 60.0
"""How many seconds a worker has until it takes calls, unless told otherwise: imports take time."""

_BACKOFF: Final = Backoff(maximum=5.0, reset_after=1.0)
"""Of a worker there is one on this machine, and nobody else's attempts to be spread from."""


class WorkerPool(ClosedAtEnd):
    """Processes that carry out the commands of a router.

    ::

        async with WorkerPool("package.module:router", workers=4) as pool:
            result = await pool.call(Resize(image=image, width=640), timeout=10)

    Each is a Python of its own that imports the router and serves it, so that responders which
    compute run beside each other, and one that crashes takes nobody along. Responders may be plain
    functions. A call goes to the worker that has the least to do; where all have as many as they
    may, it waits.

    What becomes of a call whose worker is lost, as by a crash or `kill -9`: a command declared with
    `idempotent=True` goes to another worker; others fail with `ConnectionLostError`, which has the
    exit status. The worker is replaced.

    Nothing can end a function that computes but the end of its process. So a worker has `grace`
    seconds, after a call's time is over or its caller was cancelled, to leave that off. If it
    doesn't, it is killed and replaced.

    Entering it with `async with`, or awaiting it, starts all workers and waits until they take
    calls; leaving or `close` ends them. They never outlive this process. To be used from one event
    loop. ampoule's `ProcessPool` and `concurrent.futures.ProcessPoolExecutor` are for the same.
    """

    def __init__(
        self,
        target: str,
        *,
        workers: int | None = None,
        max_concurrency: int = 1,
        threads: bool | None = None,
        max_queued: int = MAX_QUEUED,
        max_calls: int | None = None,
        max_memory_bytes: int | None = None,
        attempts: int | None = ATTEMPTS,
        backoff: Backoff | None = None,
        grace: float = GRACE,
        start_timeout: float | None = START_TIMEOUT,
        kill_timeout: float = KILL_TIMEOUT,
        drain_timeout: float = DRAIN_TIMEOUT,
        call_timeout: float | None = None,
        router: Router[Any] | None = None,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        """Say what is to run, and how; nothing is started yet.

        Args:
            target: where the router is: `package.module:router`, or `package.module:make_router`, a
                function without parameters that makes one in each worker. Modules are looked for
                where this process looks for them.
            workers: how many processes; if left out, as many as this process may use processors.
            max_concurrency: how many calls each has at a time. 1 is best for what computes; more
                for async responders that wait.
            threads: whether plain functions run in threads of the worker, beside its event loop.
                If left out, they do where `max_concurrency` is more than 1. If they don't, they
                run on the event loop, one at a time, which is quicker.
            max_queued: how many calls may wait for a worker. More fail with `QueueFullError`.
            max_calls: after how many calls a worker is replaced; None for never. It finishes those
                that it has.
            max_memory_bytes: beyond how much resident memory, when a call is over, likewise. Linux
                alone says it.
            attempts: in how many workers one call is tried; None for any number.
            backoff: how long to wait before a worker is started in place of one that was lost or
                could not be started.
            grace: seconds that a worker has to leave off a call that was given up.
            start_timeout: seconds that a worker has to import the router and run its `on_connect`
                hooks; None for any time.
            kill_timeout: as for `connect_process`.
            drain_timeout: seconds that calls may go on when the pool is closed.
            call_timeout: seconds for calls that say none.
            router: answers what responders ask by their connection, such as to report progress.
            limits: for both sides of each connection.
            env: the workers' environment; ours, if left out.
            cwd: the directory that they work in; ours, if left out.

        Raises:
            TypeError: the target is no text.
            ValueError: the target or a number makes no sense.
            DefinitionError: `router` has a plain function that is not to run in a thread.
        """
        check_options({"call_timeout": call_timeout, "drain_timeout": drain_timeout})
        if workers is None:
            workers = _processors()
        for name, number in (
            ("workers", workers),
            ("max_concurrency", max_concurrency),
            ("attempts", attempts),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        for name, seconds in (
            ("grace", grace),
            ("start_timeout", start_timeout),
            ("kill_timeout", kill_timeout),
        ):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} must be positive, not {seconds}")
        if max_queued < 0:
            raise ValueError(f"max_queued must not be negative, not {max_queued}")
        settings = WorkerSettings(
            target=target,
            path=_module_path(),
            limits=limits or DEFAULT_LIMITS,
            max_concurrency=max_concurrency,
            threads=max_concurrency > 1 if threads is None else threads,
            drain_timeout=drain_timeout,
        )
        if router is not None:
            router.begin_serving()
        self._target = target
        self._size = workers
        self._drain_timeout = drain_timeout
        self._crew = Crew(
            target,
            open_worker(
                settings,
                router=router,
                env=env,
                cwd=cwd,
                kill_timeout=kill_timeout,
                limits=limits,
                keepalive=None,  # a worker that computes answers nothing meanwhile
            ),
            size=workers,
            places=max_concurrency,
            recycling=Recycling(max_calls, max_memory_bytes),
            backoff=backoff or _BACKOFF,
            start_timeout=start_timeout,
            grace=grace,
        )
        self._calls = WorkerCalls(
            self, self._crew, max_queued=max_queued, attempts=attempts, timeout=call_timeout
        )
        self._last_call: asyncio.TimerHandle | None = None

    # -- Calling -----------------------------------------------------------------------------------

    async def call(self, command: Command[R], *, timeout: float | None = None) -> R:
        """Have a worker carry out a command, and give its answer.

        Cancelling stops the waiting, and tells the worker; see the class.

        Args:
            command: the command. One that wants no answer is on its way when this returns.
            timeout: seconds for all of it, the wait for a worker included; `call_timeout=` of the
                pool if left out, `math.inf` for no end.

        Raises:
            QueueFullError: too many calls wait already.
            ConnectionLostError: the worker was lost, and the command isn't idempotent, or was
                tried often enough; or the pool is not open. `was_sent` says whether a worker may
                have carried it out, and a note why the pool has killed the worker, if it has.
            CallTimeoutError: the time is over.
            Exception: as `Connection.call`.
        """
        signature = command.__amp_signature__()

        def send(connection: Connection[Any], seconds: float) -> Awaitable[R]:
            return connection.call(command, timeout=seconds)

        return await self._calls.send(
            signature.title,
            send,
            is_idempotent=signature.idempotent,
            requires_answer=signature.requires_answer,
            timeout=timeout,
        )

    async def call_remote(
        self, command: Callable[P, Command[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Make a command and call it, as `Connection.call_remote`.

        Raises:
            pydantic.ValidationError: the fields are not those of the command.
            Exception: as `call`.
        """
        return await self.call(make_command(command, *args, **kwargs))

    async def call_box(
        self,
        name: str | bytes,
        box: Mapping[bytes, bytes] = MappingProxyType({}),
        *,
        requires_answer: bool = True,
        idempotent: bool = False,
        timeout: float | None = None,
    ) -> Box:
        """Call a command by its name, with a box as it is; see `Connection.call_box`.

        Args:
            name: as for `Connection.call_box`.
            box: as for `Connection.call_box`.
            requires_answer: as for `Connection.call_box`.
            idempotent: whether it may go to another worker when one was lost.
            timeout: as for `call`.

        Raises:
            Exception: as `call` and `Connection.call_box`.
        """

        def send(connection: Connection[Any], seconds: float) -> Awaitable[Box]:
            return connection.call_box(name, box, requires_answer=requires_answer, timeout=seconds)

        return await self._calls.send(
            printable(name.encode() if isinstance(name, str) else name),
            send,
            is_idempotent=idempotent,
            requires_answer=requires_answer,
            timeout=timeout,
        )

    # -- Watching ----------------------------------------------------------------------------------

    @property
    def workers(self) -> Sequence[WorkerState]:
        """How each worker is doing; those that end are among them, those that begin are not."""
        return tuple(worker.state for worker in self._crew.workers)

    @property
    def counters(self) -> PoolCounters:
        """What happened up to now, in numbers."""
        calls, crew = self._calls, self._crew
        return PoolCounters(
            calls=calls.made,
            calls_queued=crew.queued,
            calls_in_flight=crew.in_flight,
            calls_moved=calls.moved,
            calls_refused=calls.refused,
            workers_started=crew.started,
            workers_recycled=crew.recycled,
            workers_lost=crew.lost,
            workers_killed=crew.killed,
            start_failures=crew.start_failures,
        )

    @property
    def is_closed(self) -> bool:
        """Whether calls fail, since somebody has closed the pool."""
        return self._calls.is_ended

    # -- Opening and closing -----------------------------------------------------------------------

    def close(self, *, drain_timeout: float | None = None) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        Calls that were made may finish, those that wait for a worker too; new ones fail. When the
        last is done the workers end, as by `ProcessConnection.close`. When the time is over first,
        they are killed, and calls fail with `ConnectionLostError`. Calling it again does nothing,
        but that a shorter time holds.

        Args:
            drain_timeout: seconds for calls to finish; 0 kills the workers now. If left out, what
                was said where the pool was made.
        """
        seconds = self._drain_timeout if drain_timeout is None else drain_timeout
        self._calls.is_ended = True
        self._calls.on_over = self._crew.on_given_back = self._check_drained
        if self._crew.is_dismissed:
            if not seconds:
                self._abort()
            return
        if not self._calls.has_begun:
            self._crew.dismiss()
            return
        if not seconds:
            self._abort()
            return
        loop = asyncio.get_running_loop()
        if self._last_call is None or loop.time() + seconds < self._last_call.when():
            if self._last_call is not None:
                self._last_call.cancel()
            self._last_call = loop.call_later(seconds, self._abort)
        self._check_drained()

    def _abort(self) -> None:
        if self._last_call is not None:
            self._last_call.cancel()
        self._crew.dismiss("it was closed, and did not wait longer")

    def _check_drained(self) -> None:
        # Also calls that were given up, and those that want no answer.
        if self._calls.under_way or self._crew.in_flight or self._crew.is_dismissed:
            return
        if self._last_call is not None:
            self._last_call.cancel()
        self._crew.dismiss()

    async def wait_closed(self) -> None:
        """Wait until the pool is closed and all its processes have ended.

        Cancelling only stops the waiting.
        """
        await self._crew.is_over.wait()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        """Start all workers, and wait until they take calls. Cancelling ends them.

        Raises:
            WorkerStartError: one can't begin; the others are ended.
            ConnectionLostError: the pool was opened or closed before.
        """
        if (loading := LOADING.get()) is not None:
            raise WorkerStartError(
                self._target,
                f"it is to begin while a worker imports {loading}, which would start workers"
                " without end. What a program does when it is run, and not when it is imported,"
                ' stands under `if __name__ == "__main__":`',
            )
        if self._calls.has_begun or self._calls.is_ended:
            done = "opened" if self._calls.has_begun else "closed"
            raise ConnectionLostError(f"{self!r} was {done} before; make another")
        self._calls.has_begun = True
        try:
            await self._crew.assemble()
        except BaseException:
            self.close(drain_timeout=0)
            await self.wait_closed()
            raise
        return self

    async def __aenter__(self) -> Self:
        return await self._opened()

    def __repr__(self) -> str:
        calls = self._calls
        status = "closed" if calls.is_ended else "open" if calls.has_begun else "not open"
        return f"<WorkerPool of {self._target}, {self._size} workers, {status}>"


def _module_path() -> list[str]:
    """Give where this process looks for modules, for one that may be in another directory."""
    return [
        str(Path(entry).absolute() if Path(entry).exists() else entry)  # some are no paths
        for entry in sys.path
    ]


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
