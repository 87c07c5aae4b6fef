"""The supervisor of `typed-amp serve`: it listens, and has workers accept and answer.

Rule of this module: at any time somebody serves, or is about to. Who takes another's place serves
before that one is asked to go.

All workers accept on the supervisor's sockets, which have one queue each. With SO_REUSEPORT each
worker would have a queue of its own, and the connections in it would be lost with the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from typing import TYPE_CHECKING, Any, Final

from typed_amp.backoff import Backoff
from typed_amp.shared_counts import SharedCounts
from typed_amp.supervised_process import NotReadyError, SupervisedProcess

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from typed_amp.serve_settings import ServeSettings

__all__ = ["CANNOT_SERVE", "CUT_OFF", "Supervisor"]

_logger = logging.getLogger("typed_amp")

CANNOT_SERVE: Final = 2
"""What `Supervisor.run` gives if the workers could not begin."""

CUT_OFF: Final = 1
"""What `Supervisor.run` gives if it didn't wait for all responders at the end."""

_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

_STOP_TIMEOUT: Final = 2.0
"""How many seconds a worker has to end when all is to stop at once."""

_BACKOFF: Final = Backoff(jitter=0.5)


class Supervisor:
    """Keeps workers. To be used once, in the main thread; signals are heard from its making on.

    Args:
        settings: what the workers are told.
        count: how many workers there are to be.
        changes: gives the names of files that have changed. Each is a reason to reload.
    """

    def __init__(
        self,
        settings: ServeSettings,
        count: int,
        changes: AsyncIterator[str] | None = None,
    ) -> None:
        self._settings = settings
        self._sockets: Sequence[socket.socket] = ()
        self._count = count
        self._changes = changes
        self._table = SharedCounts(3 * count)
        self._workers: dict[int, SupervisedProcess] = {}
        """Those that are to serve, by their numbers."""
        self._processes: dict[SupervisedProcess, asyncio.Task[None]] = {}
        """All that have not ended, those that begin and those that drain among them."""
        self._failures: dict[int, int] = {}
        """How often in a row each worker has failed."""
        self._errands: set[asyncio.Task[None]] = set()
        self._reload = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._is_cut_off = False
        self._had_terminal = _has_terminal()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    async def run(self, sockets: Sequence[socket.socket]) -> int:
        """Keep the workers until SIGTERM or SIGINT, and drain them then; gives the exit code.

        SIGHUP has all workers replaced. A second SIGTERM or SIGINT ends all at once.

        Args:
            sockets: what the workers accept on. They are closed as soon as that is over.
        """
        self._sockets = sockets
        try:
            if self._stopping is None:
                self._reload.set()  # the first time too
                self._begin(self._keep_reloading())
                if self._changes is not None:
                    self._begin(self._watch(self._changes))
            return await self._result
        finally:
            for number in _SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)
            for sock in sockets:
                sock.close()
            await self._end_errands()
            self._kill_all()
            if self._processes:
                await asyncio.wait(self._processes.values())
            self._table.close()

    # -- Signals -----------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        # A terminal that goes sends the same signal as who wants a reload.
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            if self._stopping is None:
                self._ask_to_reload(number.name)
        elif self._stopping is None:
            count = len(self._processes)
            told = "%s: draining %d worker%s; another signal stops at once"
            _logger.info(told, number.name, count, "" if count == 1 else "s")
            self._stopping = asyncio.create_task(self._stop())
        elif not self._is_cut_off:
            _logger.warning("%s again: stopping at once", number.name)
            self._is_cut_off = True
            for process in self._processes:
                process.tell("stop")
            loop = asyncio.get_running_loop()
            loop.call_later(_STOP_TIMEOUT, self._kill_all)

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()

    async def _stop(self) -> None:
        for sock in self._sockets:
            sock.close()
        for process in self._processes:
            if process.is_ready:
                process.tell("drain")
            else:
                process.kill()
        await self._end_errands()
        ends = [process.end_within(self._settings.patience) for process in self._processes]
        has_drained = all(await asyncio.gather(*ends)) and not self._is_cut_off
        _logger.info("stopped" if has_drained else "stopped, before all calls were answered")
        if not self._result.done():
            self._result.set_result(0 if has_drained else CUT_OFF)

    # -- Errands -----------------------------------------------------------------------------

    def _begin(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errand_done)

    def _errand_done(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._result.done():
            self._result.set_exception(error)

    async def _end_errands(self) -> None:
        errands = tuple(self._errands)
        for task in errands:
            task.cancel()
        if errands:
            await asyncio.wait(errands)

    # -- Workers -----------------------------------------------------------------------------

    async def _start(self, number: int) -> SupervisedProcess:
        """Start a worker, and wait until it serves. Cancelling kills it.

        Raises:
            NotReadyError: it can't.
        """
        try:
            process = await SupervisedProcess.start(
                self._settings, number, self._sockets, self._table
            )
        except OSError as error:
            raise NotReadyError(f"worker {number} can't be started: {error}") from error
        self._processes[process] = asyncio.create_task(self._await_end(process))
        try:
            await process.wait_ready()
        except BaseException:
            process.kill()
            raise
        return process

    async def _await_end(self, process: SupervisedProcess) -> None:
        ending = await process.how_it_ended()
        del self._processes[process]
        if self._stopping is not None or not process.is_ready:
            return
        if self._workers.get(process.number) is process:
            _logger.error("%s %s", process, ending)
            self._begin(self._replace(process))
        elif process.ended.result() == 0:
            _logger.info("%s has drained", process)
        else:
            _logger.error("%s %s while it drained", process, ending)

    async def _replace(self, dead: SupervisedProcess) -> None:
        """Start another worker in the place of one that has ended, however long that takes."""
        number = dead.number
        lived = asyncio.get_running_loop().time() - dead.began
        if lived >= _BACKOFF.reset_after:
            self._failures[number] = 0
        while self._workers[number] is dead:
            self._failures[number] = self._failures.get(number, 0) + 1
            delay = _BACKOFF.delay(self._failures[number], random.random())  # noqa: S311
            _logger.info("starting worker %d again in %.2f seconds", number, delay)
            await asyncio.sleep(delay)
            try:
                process = await self._start(number)
            except NotReadyError as error:
                _logger.error("%s", error)
                continue
            if self._workers[number] is dead:
                self._workers[number] = process
                _logger.info("%s serves", process)
                if process.ended.done():  # at once, while nobody knew it
                    self._begin(self._replace(process))
            else:  # a reload was quicker
                process.tell("drain")
                await process.end_within(self._settings.patience)

    # -- Reloading ---------------------------------------------------------------------------

    def _ask_to_reload(self, reason: str) -> None:
        if self._workers:
            _logger.info("%s: reloading", reason)
        self._reload.set()

    async def _watch(self, changes: AsyncIterator[str]) -> None:
        async for name in changes:
            self._ask_to_reload(f"{name} has changed")

    async def _keep_reloading(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            loading = asyncio.create_task(self._load())
            again = asyncio.create_task(self._reload.wait())
            try:
                # What has changed meanwhile is to be loaded too, and what hangs is given up.
                await asyncio.wait([loading, again], return_when=asyncio.FIRST_COMPLETED)
            finally:
                again.cancel()
                if not loading.done():
                    loading.cancel()
                    await asyncio.wait([loading])
            if loading.cancelled():
                continue
            try:
                workers = loading.result()
            except NotReadyError as error:
                self._loading_failed(error)
            else:
                await self._put_in_place(workers)

    def _loading_failed(self, error: NotReadyError) -> None:
        if self._workers:
            _logger.error("%s; the workers that there are go on", error)
        elif self._changes is not None:
            _logger.error("%s; waiting until a file changes", error)
        else:
            _logger.error("%s", error)
            if not self._result.done():
                self._result.set_result(CANNOT_SERVE)

    async def _load(self) -> list[SupervisedProcess]:
        """Start as many workers as there are to be: all, or none.

        Raises:
            NotReadyError: one can't serve.
        """
        starting = [
            asyncio.create_task(self._start(number)) for number in range(1, self._count + 1)
        ]
        try:
            return await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)
            for task in starting:
                if not task.cancelled() and task.exception() is None:
                    task.result().kill()
            raise

    async def _put_in_place(self, workers: list[SupervisedProcess]) -> None:
        old = list(self._workers.values())
        is_first = not old
        for process in workers:
            self._workers[process.number] = process
            self._failures[process.number] = 0
        _logger.info("%s: %s", "serving" if is_first else "reloaded", ", ".join(map(str, workers)))
        for process in workers:
            if process.ended.done():  # at once, while nobody knew it
                self._begin(self._replace(process))
        # First of all the old ones accept no more, so that who leaves one doesn't come to another.
        for process in old:
            process.tell("retire")
        for process in old:
            process.tell("drain")
            if not await process.end_within(self._settings.patience):
                _logger.error("%s was killed, since it did not drain", process)


def _has_terminal() -> bool:
    """Say whether this process has a terminal that can send it signals."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        return True
    return False
