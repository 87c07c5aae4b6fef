"""Calls that are made in whichever worker has a place.

Rule of this module: every call ends: with its answer, or with an error that says why there is none.
Which workers there are is the business of `Crew`.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Generic

from typing_extensions import TypeVar

from typed_amp.box import CLOSING
from typed_amp.deadlines import time_for
from typed_amp.errors import (
    CallTimeoutError,
    ConnectionLostError,
    QueueFullError,
    RemoteAmpError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from typed_amp.connection import Connection
    from typed_amp.crew import Crew
    from typed_amp.worker_process import Worker

__all__ = ["WorkerCalls"]

R = TypeVar("R")

_CLOSING: Final = CLOSING.decode()


class _Call(Generic[R]):
    """A call on its way to a worker.

    Args:
        title: the command's name, for messages.
        send: makes it on a connection, within so many seconds.
        requires_answer: whether its end says that the worker has answered.
        seconds: the time for all of it; None for ever.

    Attributes:
        deadline: when that is over, by the event loop's clock.
    """

    __slots__ = ("deadline", "requires_answer", "seconds", "send", "title")

    def __init__(
        self,
        title: str,
        send: Callable[[Connection[Any], float], Awaitable[R]],
        seconds: float | None,
        *,
        requires_answer: bool,
    ) -> None:
        self.title = title
        self.send = send
        self.requires_answer = requires_answer
        self.seconds = seconds
        self.deadline: float | None = None
        if seconds is not None:
            self.deadline = asyncio.get_running_loop().time() + seconds

    @property
    def seconds_left(self) -> float:
        """How many seconds there are now."""
        if self.deadline is None:
            return math.inf
        return self.deadline - asyncio.get_running_loop().time()


class WorkerCalls:
    """Makes the calls of a pool.

    Args:
        owner: the pool, for messages.
        crew: has the workers.
        max_queued: how many calls may wait for a place.
        attempts: in how many workers one call is tried; None for any number.
        timeout: seconds for calls that say none.

    Attributes:
        has_begun: whether calls are taken, or were.
        is_ended: whether they are taken no more.
        under_way: how many are not over yet, those that wait for a place among them.
        on_over: called, if set, when a call is over.
        made: how many there were.
        moved: how often one went to another worker.
        refused: how many were too many.
    """

    def __init__(
        self,
        owner: object,
        crew: Crew,
        *,
        max_queued: int,
        attempts: int | None,
        timeout: float | None,
    ) -> None:
        self._owner = owner
        self._crew = crew
        self._max_queued = max_queued
        self._attempts = attempts
        self._timeout = timeout
        self.has_begun: bool = False
        self.is_ended: bool = False
        self.under_way: int = 0
        self.on_over: Callable[[], None] | None = None
        self.made: int = 0
        self.moved: int = 0
        self.refused: int = 0

    async def send(
        self,
        title: str,
        send: Callable[[Connection[Any], float], Awaitable[R]],
        *,
        is_idempotent: bool,
        requires_answer: bool,
        timeout: float | None,
    ) -> R:
        """Call, and call again in another worker as long as that is right.

        Args:
            title: the command's name, for messages.
            send: makes the call on the connection to a worker, within so many seconds.
            is_idempotent: whether the command may be carried out twice.
            requires_answer: whether the end of the call says that the worker has answered.
            timeout: seconds for all of it; None for those of the pool, `math.inf` for no end.

        Raises:
            QueueFullError: too many calls wait.
            CallTimeoutError: the time is over.
            ConnectionLostError: the worker was lost, or no calls are taken.
            Exception: what `send` raises.
        """
        if self.is_ended or not self.has_begun:
            raise self._not_taken(title)
        seconds = time_for(timeout, self._timeout)
        call = _Call(title, send, seconds, requires_answer=requires_answer)
        self.made += 1
        self.under_way += 1
        try:
            return await self._carry_out(call, is_idempotent=is_idempotent)
        finally:
            self.under_way -= 1
            if self.on_over is not None:
                self.on_over()

    async def _carry_out(self, call: _Call[R], *, is_idempotent: bool) -> R:
        crew = self._crew
        tries = 0
        failure: Exception | None = None
        was_sent = False
        notes: list[str] = []
        while True:
            worker = crew.take()
            if worker is None:
                worker = await self._place(call, failure)
            try:
                return await self._call(worker, call)
            except ConnectionLostError as error:
                # A command may declare this very class, for a connection that its responder lost.
                if not worker.connection.is_closed:
                    raise
                if worker.doom is not None:
                    error.add_note(f"The pool has killed it: {worker.doom}.")
                may_go_again = is_idempotent or not error.was_sent
                was_sent = error.was_sent = was_sent or error.was_sent
                tries += was_sent
                if not may_go_again or crew.is_dismissed or tries == self._attempts:
                    for note in notes:
                        error.add_note(note)
                    raise
                notes.append(f"attempt {tries}: {error}")
                failure = error
            except RemoteAmpError as error:
                is_own = error.code == _CLOSING and worker.is_closing
                if not is_own or crew.is_dismissed:
                    raise
                crew.leave(worker)  # it has not carried it out
                failure = error
            self.moved += 1

    async def _call(self, worker: Worker, call: _Call[R]) -> R:
        """Make a call on a worker, and see that its place is given back."""
        is_over = call.requires_answer
        given_up: str | None = None
        try:
            return await call.send(worker.connection, call.seconds_left)
        except CallTimeoutError as error:
            is_over, given_up = False, call.title
            if call.seconds is None:
                raise
            raise CallTimeoutError(call.title, call.seconds, error.peer) from error.__cause__
        except asyncio.CancelledError:
            is_over, given_up = False, call.title
            raise
        finally:
            if is_over:
                self._crew.give_back(worker)
            else:
                self._crew.give_back_settled(worker, given_up)

    async def _place(self, call: _Call[R], failure: Exception | None) -> Worker:
        """Wait for a place in a worker.

        Args:
            call: what it is for.
            failure: why it comes again, if it does; it then goes before others.

        Raises:
            QueueFullError: too many wait.
            CallTimeoutError: the time is over.
            ConnectionLostError: there will be none.
        """
        crew = self._crew
        if failure is None and crew.queued >= self._max_queued:
            self.refused += 1
            self.made -= 1
            raise QueueFullError(call.title, crew.queued)
        try:
            worker = await crew.wait_for_place(call.deadline, is_first=failure is not None)
        except TimeoutError:
            assert call.seconds is not None
            where = f"the queue of {self._owner!r}"
            raise CallTimeoutError(call.title, call.seconds, where) from failure
        if worker is None:
            raise self._not_taken(call.title) from failure
        return worker

    def _not_taken(self, title: str) -> ConnectionLostError:
        status = "is closed" if self.is_ended else "is not open yet"
        error = ConnectionLostError(f"{title}: {self._owner!r} {status}")
        error.was_sent = False
        return error
