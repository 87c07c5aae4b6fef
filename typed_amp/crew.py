"""The workers of a pool: which there are, and who has a place in one.

Rule of this module: a place is given to one call at a time, and given back once. While calls wait,
no place is free. A worker that is gone is replaced, and none is left when the crew is dismissed.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from logging import ERROR, INFO, WARNING
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from typed_amp.backoff import Attempts
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.errors import WorkerStartError
from typed_amp.log import LOGGER, log
from typed_amp.worker_process import start_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from typed_amp.backoff import Backoff
    from typed_amp.processes import ProcessConnection
    from typed_amp.recycling import Recycling
    from typed_amp.worker_process import Worker

__all__ = ["Crew"]

_load: Final = attrgetter("in_flight")


class Crew:
    """Keeps workers, and gives places in them.

    Args:
        target: what they serve.
        open_connection: starts the process of one.
        size: how many there are to be.
        places: how many calls each has at a time.
        recycling: when one has done enough.
        backoff: how long to wait before one that was lost is replaced.
        start_timeout: the seconds that one has until it takes calls.
        grace: the seconds that one has to leave off what was given up.

    Attributes:
        workers: all there are, those that end among them.
        on_given_back: called, if set, when a place is free again.
        is_dismissed: whether no call gets a place any more.
        is_over: set when it is dismissed, and nothing of it is left.
        started: how many have begun.
        recycled: how many had done enough.
        lost: how many ended by themselves, or by others.
        killed: how many were stuck.
        start_failures: how many attempts failed.
    """

    def __init__(
        self,
        target: str,
        open_connection: Callable[[], Coroutine[Any, Any, ProcessConnection[Any]]],
        *,
        size: int,
        places: int,
        recycling: Recycling,
        backoff: Backoff,
        start_timeout: float | None,
        grace: float,
    ) -> None:
        self._target = target
        self._open_connection = open_connection
        self._size = size
        self._places = places
        self._recycling = recycling
        self._backoff = backoff
        self._start_timeout = start_timeout
        self._grace = grace
        self.workers: list[Worker] = []
        self._ready: list[Worker] = []
        self._queue: OrderedDict[asyncio.Future[Worker | None], None] = OrderedDict()
        """Those that wait for a place. None for a worker: there will be none."""
        self._first: list[asyncio.Future[None]] = []
        """Those for whose first worker the opening waits."""
        self._keepers: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_given_back: Callable[[], None] | None = None
        self.is_dismissed: bool = False
        self.is_over: asyncio.Event = asyncio.Event()
        self.started: int = 0
        self.recycled: int = 0
        self.lost: int = 0
        self.killed: int = 0
        self.start_failures: int = 0

    # -- Places ------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """How many places are taken."""
        return sum(worker.in_flight for worker in self.workers)

    def take(self) -> Worker | None:
        """Take a place in the worker that has the least to do; None if all places are taken."""
        if not self._ready:
            return None
        worker = min(self._ready, key=_load)
        if worker.connection.is_closed:  # of which `_attend` has yet to hear
            ready = [each for each in self._ready if not each.connection.is_closed]
            if not ready:
                return None
            worker = min(ready, key=_load)
        if worker.in_flight >= self._places:
            return None
        self._give(worker)
        return worker

    async def wait_for_place(self, deadline: float | None, *, is_first: bool) -> Worker | None:
        """Wait for a place; None if there will be none. Cancelling leaves the queue.

        Args:
            deadline: until when to wait.
            is_first: whether it goes before all that wait already.

        Raises:
            TimeoutError: the time is over.
        """
        if self.is_dismissed:
            return None
        place: asyncio.Future[Worker | None] = asyncio.get_running_loop().create_future()
        self._queue[place] = None
        if is_first:
            self._queue.move_to_end(place, last=False)
        try:
            async with asyncio.timeout_at(deadline):
                return await place
        except BaseException:
            if place.done() and not place.cancelled() and (worker := place.result()) is not None:
                worker.given -= 1
                self.give_back(worker)
            raise
        finally:
            self._queue.pop(place, None)

    def give_back(self, worker: Worker) -> None:
        """A call is over."""
        worker.in_flight -= 1
        if not worker.is_retired:
            self._check_worn(worker)
        if not worker.is_retired:
            self._fill(worker)
        elif not worker.in_flight:
            worker.end()
        if self.on_given_back is not None:
            self.on_given_back()

    def give_back_settled(self, worker: Worker, title: str | None) -> None:
        """A call is over for its caller; the place is free when the worker has left off.

        Args:
            worker: which has the place.
            title: the command's name, if it was given up: the worker then has some seconds to
                leave off, and is killed if it needs more. None for what wants no answer.
        """
        if worker.connection.is_closed:
            self.give_back(worker)
        else:
            self._spawn(self._settle(worker, title))

    async def _settle(self, worker: Worker, title: str | None) -> None:
        AMBIENT_DEADLINE.set(None)  # that of the call is over
        try:
            trouble = await worker.settle(None if title is None else self._grace)
            if trouble is None or worker.doom is not None:
                return
            self.killed += 1
            told = f"{title} was given up, and {trouble}"
            log(WARNING, "worker_stuck", worker.connection, "a worker is killed: %s", told)
            if worker.is_stuck:
                self._retire(worker)
            else:
                worker.kill(told)
                self._retire(worker)
        finally:
            self.give_back(worker)

    def _give(self, worker: Worker) -> None:
        worker.in_flight += 1
        worker.given += 1
        if worker.given == self._recycling.max_calls:
            self._check_worn(worker)

    def _fill(self, worker: Worker) -> None:
        """Give free places of a worker to those that wait."""
        if worker.connection.is_closed:
            return
        while self._queue and worker.in_flight < self._places and not worker.is_retired:
            place, _ = self._queue.popitem(last=False)
            if not place.done():
                self._give(worker)
                place.set_result(worker)

    # -- Coming and going --------------------------------------------------------------------------

    async def assemble(self) -> None:
        """Start all workers, and wait until all take calls.

        Raises:
            WorkerStartError: one can't.
        """
        loop = asyncio.get_running_loop()
        self._first = [loop.create_future() for _ in range(self._size)]
        for each in self._first:
            self._keepers.add(self._spawn(self._keep(each)))
        try:
            await asyncio.gather(*self._first)
        finally:
            for each in self._first:
                each.cancel()

    async def _keep(self, first: asyncio.Future[None]) -> None:
        """See that there is one worker.

        Args:
            first: is to be told of the first one.
        """
        AMBIENT_DEADLINE.set(None)  # of a responder that has opened the pool
        attempts = Attempts([self._target], self._backoff)
        while True:
            try:
                worker = await start_worker(
                    self._open_connection, self._target, self._start_timeout
                )
            except WorkerStartError as error:
                if not first.done():
                    first.set_exception(error)
                    return
                self.start_failures += 1
                extra = {"amp_event": "worker_not_started"}
                LOGGER.log(ERROR, "%s", error, extra=extra)
                await asyncio.sleep(attempts.failed(random.random()))  # noqa: S311
                continue
            self.started += 1
            self.workers.append(worker)
            self._ready.append(worker)
            self._spawn(self._attend(worker))
            log(INFO, "worker_started", worker.connection, "a worker has begun")
            self._fill(worker)
            if not first.done():
                first.set_result(None)
            await worker.is_gone.wait()
            if worker.is_lost:
                attempts.lived(worker.age)
                await asyncio.sleep(attempts.failed(random.random()))  # noqa: S311

    async def _attend(self, worker: Worker) -> None:
        """See a worker off."""
        error = await worker.connection.wait_lost()
        if not (worker.is_retired or worker.doom):
            worker.is_lost = True
            if worker.is_closing:
                log(INFO, "worker_ending", worker.connection, "a worker is ending")
            else:
                self.lost += 1
                log(WARNING, "worker_lost", worker.connection, "a worker was lost: %s", error)
        self._withdraw(worker)
        await worker.connection.wait_closed()
        self.workers.remove(worker)

    def leave(self, worker: Worker) -> None:
        """A worker takes no calls any more, as it says itself."""
        if not worker.is_retired:
            log(INFO, "worker_ending", worker.connection, "a worker is ending")
            self._retire(worker)

    def _check_worn(self, worker: Worker) -> None:
        reason = self._recycling.reason(worker.given, worker.connection.process_id)
        if reason is not None and not worker.connection.is_closed:
            self.recycled += 1
            log(INFO, "worker_recycled", worker.connection, "a worker is replaced: %s", reason)
            self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        self._withdraw(worker)
        if not worker.in_flight:
            worker.end()

    def _withdraw(self, worker: Worker) -> None:
        worker.is_retired = True
        if worker in self._ready:
            self._ready.remove(worker)
        worker.is_gone.set()

    def dismiss(self, reason: str | None = None) -> None:
        """Give no place any more, and end all workers.

        Args:
            reason: why they are killed, for the errors of their calls; None to end them well, when
                they have no calls any more.
        """
        self.is_dismissed = True
        for place in self._queue:
            if not place.done():
                place.set_result(None)
        for keeper in self._keepers:
            keeper.cancel()
        for each in self._first:
            if not each.done():
                told = "the pool was closed meanwhile"
                each.set_exception(WorkerStartError(self._target, told))
        for worker in tuple(self.workers):
            self._withdraw(worker)
            if reason is not None:
                worker.kill(reason)
            elif not worker.in_flight:
                worker.end()
        self._check_over()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._keepers.discard(task)
        self._check_over()

    def _check_over(self) -> None:
        if self.is_dismissed and not self._tasks:
            self.is_over.set()
