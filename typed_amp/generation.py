"""The workers of `typed-amp serve` that were loaded together.

Rule of this module: none of them serves before all are ready. From then on there are as many as
there were, until they are asked to go.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from typed_amp.backoff import Attempts, Backoff
from typed_amp.supervised_process import NotReadyError, SupervisedProcess

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Sequence

    from typed_amp.serve_settings import ServeSettings
    from typed_amp.shared_counts import SharedCounts

__all__ = ["Generation", "end_tasks"]

_logger = logging.getLogger("typed_amp")

_BACKOFF: Final = Backoff(jitter=0.5)


class Generation:
    """So many workers. `load` starts them, `keep` replaces those that end, `drain` ends all.

    Args:
        settings: what the workers are told.
        count: how many there are to be.
        sockets: what they accept on.
        table: where they say how many connections they have.

    Attributes:
        processes: all that have not ended.
    """

    def __init__(
        self,
        settings: ServeSettings,
        count: int,
        sockets: Sequence[socket.socket],
        table: SharedCounts,
    ) -> None:
        self._settings = settings
        self._count = count
        self._sockets = sockets
        self._table = table
        self._first: list[SupervisedProcess] = []
        self._tasks: list[asyncio.Task[Any]] = []
        """What may have one more serve."""
        self._draining: asyncio.Task[bool] | None = None
        self._is_cut_off = False
        self.processes: set[SupervisedProcess] = set()

    @property
    def serving(self) -> int:
        """How many serve, those that drain among them."""
        return sum(process.is_serving for process in self.processes)

    def __str__(self) -> str:
        return ", ".join(map(str, self._first))

    async def load(self) -> None:
        """Start all workers, and have them serve when all are ready; to be called once.

        Cancelling kills them. `drain` is owed to those who serve already, as after an error.

        Raises:
            NotReadyError: one can't serve. The others are ended likewise.
        """
        meeting = _Meeting(self._count)
        starting = [
            asyncio.create_task(self._bring_up(number, meeting))
            for number in range(1, self._count + 1)
        ]
        self._tasks += starting
        try:
            self._first = await asyncio.gather(*starting)
        except BaseException:
            await end_tasks(self._tasks)
            raise

    def keep(self) -> asyncio.Task[None]:
        """Start another worker whenever one ends, from now until `drain`.

        Returns:
            What does that. It fails only if this module does.
        """
        keeping = asyncio.create_task(self._keep_all())
        self._tasks.append(keeping)
        return keeping

    def drain(self, *, has_successor: bool = False) -> asyncio.Task[bool]:
        """Have all workers finish what runs and end, and kill those that take too long for that.

        Calling it again changes nothing.

        Args:
            has_successor: whether others go on accepting on the same sockets.

        Returns:
            What waits until all have ended, and says whether they did so by themselves.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(has_successor=has_successor))
        return self._draining

    def stop(self) -> None:
        """Have all workers end now, without a word about it in the log."""
        self._is_cut_off = True
        for process in self.processes:
            process.tell("stop")

    def kill(self) -> None:
        """Kill all workers, without a word about it in the log."""
        self._is_cut_off = True
        for process in self.processes:
            process.kill()

    # -- Coming ----------------------------------------------------------------------------------

    async def _bring_up(self, number: int, meeting: _Meeting) -> SupervisedProcess:
        """Start a worker, and have it serve. Cancelling kills it, unless it serves already.

        Args:
            number: which one.
            meeting: where it waits until all that are to serve together are ready.

        Raises:
            NotReadyError: it can't serve.
        """
        try:
            process = await SupervisedProcess.start(
                self._settings, number, self._sockets, self._table
            )
        except OSError as error:
            raise NotReadyError(f"worker {number} can't be started: {error}") from error
        self.processes.add(process)
        process.ended.add_done_callback(lambda _: self.processes.discard(process))
        try:
            await process.wait_ready()
            _logger.debug("%s is ready", process)
            await meeting.wait(process)
            await process.serve()
        except BaseException:
            if not process.is_serving:
                process.kill()
                await asyncio.wait([process.ended])
            raise
        return process

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for process in self._first:
                group.create_task(self._keep(process))

    async def _keep(self, process: SupervisedProcess) -> None:
        attempts = Attempts([process.number], _BACKOFF)
        while True:
            ending = await process.how_it_ended()
            _logger.error("%s %s", process, ending)
            attempts.lived(process.age)
            process = await self._replacement(attempts)
            _logger.info("%s serves", process)

    async def _replacement(self, attempts: Attempts[int]) -> SupervisedProcess:
        """Give a worker in the place of one that has ended, however long that takes."""
        number = attempts.address
        while True:
            delay = attempts.failed(random.random())  # noqa: S311
            _logger.info("starting worker %d again in %.2f seconds", number, delay)
            await asyncio.sleep(delay)
            try:
                return await self._bring_up(number, _Meeting(1))
            except NotReadyError as error:
                _logger.error("%s", error)

    # -- Going -----------------------------------------------------------------------------------

    async def _drain(self, *, has_successor: bool) -> bool:
        await end_tasks(self._tasks)
        processes = tuple(self.processes)
        if has_successor:
            # First of all they accept no more, so that who leaves one doesn't come to another.
            for process in processes:
                process.tell("retire")
        for process in processes:
            process.tell("drain")
        return all(await asyncio.gather(*map(self._see_off, processes)))

    async def _see_off(self, process: SupervisedProcess) -> bool:
        ends_by_itself = await process.end_within(self._settings.patience)
        if self._is_cut_off:
            return ends_by_itself
        if not ends_by_itself:
            _logger.error("%s was killed, since it did not drain", process)
        elif process.ended.result() == 0:
            _logger.info("%s has drained", process)
        else:
            _logger.error("%s %s while it drained", process, await process.how_it_ended())
        return ends_by_itself


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, but for those that are cancelled already, and wait until all have ended."""
    for task in tasks:
        if not task.cancelling():  # it may be busy with ending what it has begun
            task.cancel()
    if tasks:
        await asyncio.wait(tasks)


class _Meeting:
    """Where workers that are ready wait for each other.

    Args:
        count: how many they are.
    """

    def __init__(self, count: int) -> None:
        self._missing = count
        self._are_all_here: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self, process: SupervisedProcess) -> None:
        """Wait until all are here.

        Raises:
            NotReadyError: this one has ended.
        """
        self._missing -= 1
        if not self._missing:
            self._are_all_here.set_result(None)
        either: list[asyncio.Future[Any]] = [self._are_all_here, process.ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if process.ended.done():
            ending = await process.how_it_ended()
            raise NotReadyError(f"{process} {ending} before all were ready")
