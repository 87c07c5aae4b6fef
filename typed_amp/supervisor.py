"""The supervisor of `typed-amp serve`: it listens, and has workers accept and answer.

Rule of this module: at any time somebody serves, or is about to. Those who take the place of others
serve before those are asked to go.

All workers accept on the supervisor's sockets, which have one queue each. With SO_REUSEPORT each
worker would have a queue of its own, and the connections in it would be lost with the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from typed_amp.generation import Generation, end_tasks
from typed_amp.shared_counts import SharedCounts
from typed_amp.supervised_process import NotReadyError

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

_MAX_DRAINING: Final = 3
"""How many generations may drain at a time. More reloads wait: each is as many processes again."""


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
        self._table = SharedCounts((2 + _MAX_DRAINING) * count)
        self._generations: list[Generation] = []
        """All of which something is left: those that drain, the one that serves, one that loads."""
        self._serving: Generation | None = None
        self._loading: asyncio.Task[None] | None = None
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
            await end_tasks(tuple(self._errands))
            self._kill_all()
            await self._drain_all()
            self._table.close()

    # -- Signals -----------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        # A terminal that goes sends the same signal as who wants a reload.
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            if self._stopping is None:
                self._ask_to_reload(number.name)
        elif self._stopping is None:
            count = sum(generation.serving for generation in self._generations)
            told = "%s: draining %d worker%s; another signal stops at once"
            _logger.info(told, number.name, count, "" if count == 1 else "s")
            self._stopping = asyncio.create_task(self._stop())
            self._stopping.add_done_callback(self._check)
        elif not self._is_cut_off:
            _logger.warning("%s again: stopping at once", number.name)
            self._is_cut_off = True
            for generation in self._generations:
                generation.stop()
            loop = asyncio.get_running_loop()
            loop.call_later(_STOP_TIMEOUT, self._kill_all)

    def _kill_all(self) -> None:
        for generation in self._generations:
            generation.kill()

    async def _stop(self) -> None:
        for sock in self._sockets:
            sock.close()
        if self._serving is not None:
            self._drain(self._serving)
        await end_tasks(tuple(self._errands))
        has_drained = await self._drain_all() and not self._is_cut_off
        _logger.info("stopped" if has_drained else "stopped, before all calls were answered")
        if not self._result.done():
            self._result.set_result(0 if has_drained else CUT_OFF)

    # -- Errands -----------------------------------------------------------------------------

    def _begin(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._result.done():
            self._result.set_exception(error)

    # -- Draining ----------------------------------------------------------------------------

    def _drain(self, generation: Generation, *, has_successor: bool = False) -> asyncio.Task[bool]:
        draining = generation.drain(has_successor=has_successor)

        def is_over(task: asyncio.Task[bool]) -> None:
            if generation in self._generations:
                self._generations.remove(generation)
                self._check(task)

        draining.add_done_callback(is_over)
        return draining

    async def _drain_all(self) -> bool:
        return all(await asyncio.gather(*map(self._drain, self._generations)))

    async def _wait_for_room(self) -> None:
        """Wait until another generation may come."""
        if len(self._leaving()) >= _MAX_DRAINING:
            told = "%d generations of workers drain; reloading when one of them has"
            _logger.info(told, _MAX_DRAINING)
        while len(leaving := self._leaving()) >= _MAX_DRAINING:
            draining = [self._drain(each) for each in leaving]
            await asyncio.wait(draining, return_when=asyncio.FIRST_COMPLETED)

    def _leaving(self) -> list[Generation]:
        return [each for each in self._generations if each is not self._serving]

    # -- Reloading ---------------------------------------------------------------------------

    def _ask_to_reload(self, reason: str) -> None:
        if self._serving is not None:
            _logger.info("%s: reloading", reason)
        self._reload.set()
        if self._loading is not None and not self._loading.cancelling():
            # What has changed meanwhile is to be loaded too, and what hangs is given up.
            self._loading.cancel()

    async def _watch(self, changes: AsyncIterator[str]) -> None:
        async for name in changes:
            self._ask_to_reload(f"{name} has changed")

    async def _keep_reloading(self) -> None:
        while True:
            await self._reload.wait()
            await self._wait_for_room()
            self._reload.clear()
            self._loading = self._begin(self._load())
            await asyncio.wait([self._loading])

    async def _load(self) -> None:
        """Have a new generation take the place of the one that serves, if it can."""
        new = Generation(self._settings, self._count, self._sockets, self._table)
        self._generations.append(new)
        leaving: Generation | None = new
        try:
            await new.load()
            leaving, self._serving = self._serving, new
            _logger.info("%s: %s", "serving" if leaving is None else "reloaded", new)
            new.keep().add_done_callback(self._check)
        except NotReadyError as error:
            self._loading_failed(error)
        finally:
            if leaving is not None:
                self._drain(leaving, has_successor=self._stopping is None)

    def _loading_failed(self, error: NotReadyError) -> None:
        if self._serving is not None:
            _logger.error("%s; the workers that there are go on", error)
        elif self._changes is not None:
            _logger.error("%s; waiting until a file changes", error)
        else:
            _logger.error("%s", error)
            if not self._result.done():
                self._result.set_result(CANNOT_SERVE)


def _has_terminal() -> bool:
    """Say whether this process has a terminal that can send it signals."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        return True
    return False
