"""Calls that outlive the connection they are made on.

Rule of this module: a call is made again only if no peer has carried it out for certain, or if
its command may be carried out twice. Every call ends: with its answer, or with an error that says
why there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from typed_amp.addresses import shown
from typed_amp.box import BUSY, CLOSING
from typed_amp.deadlines import time_for
from typed_amp.errors import CallTimeoutError, ConnectionLostError, RemoteAmpError
from typed_amp.supply import reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from typed_amp.connection import Connection
    from typed_amp.supply import Kept, Supply

__all__ = ["Resending"]

R = TypeVar("R")
S = TypeVar("S")

_CLOSING: Final = CLOSING.decode()
_BUSY: Final = BUSY.decode()


class Resending(Generic[S]):
    """Makes the calls of a client, on whichever connection there is.

    Args:
        supply: has the connections.
        waits: whether calls wait for a connection while there is none.
        timeout: seconds for calls that say none.
        attempts: how often one call is tried; None for any number.
    """

    def __init__(
        self, supply: Supply[S], *, waits: bool, timeout: float | None, attempts: int | None
    ) -> None:
        self._supply = supply
        self._waits = waits
        self._timeout = timeout
        self._most_tries = math.inf if attempts is None else attempts

    async def send(
        self,
        title: str,
        send: Callable[[Connection[S], float], Awaitable[R]],
        *,
        is_idempotent: bool,
        requires_answer: bool,
        timeout: float | None,
        waits: bool | None,
    ) -> R:
        """Call, and call again as long as that is right.

        Args:
            title: the command's name, for messages.
            send: makes the call on a connection, within so many seconds.
            is_idempotent: whether the command may be carried out twice.
            requires_answer: whether the end of the call says that the peer has answered.
            timeout: seconds for all of it; None for those of the client, `math.inf` for no end.
            waits: whether to wait while there is no connection; None for what the client says.

        Raises:
            ConnectionLostError: there is no connection, or the command may have been carried out.
                `was_sent` is of all tries.
            CallTimeoutError: the time is over.
            Exception: what `send` raises.
        """
        supply = self._supply
        if waits is None:
            waits = self._waits
        timeout = time_for(timeout, self._timeout)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        remaining = timeout
        notes: list[str] = []
        failure: Exception | None = None
        was_sent = False
        tries = rounds = 0
        refused: Collection[Kept[S]] = ()
        while True:
            kept = supply.choose(refused)
            if kept in refused:  # all there are have been busy
                rounds += 1
                refused = ()
                await self._pause(rounds, deadline)
                continue
            is_delayed = failure is not None or kept is None
            if kept is None:
                if not waits:
                    raise supply.unavailable(title, was_sent=was_sent)
                kept = await self._next(title, timeout, deadline, was_sent=was_sent)
            if deadline is not None and timeout is not None and is_delayed:
                remaining = deadline - loop.time()
                if remaining <= 0:
                    raise CallTimeoutError(title, timeout) from failure
            tries += 1
            kept.calls += 1
            try:
                answer = await send(kept.connection, math.inf if remaining is None else remaining)
                if requires_answer:
                    kept.answered()
                return answer
            except CallTimeoutError:
                if remaining is not None and remaining > 0:
                    supply.set_back(kept)
                if timeout is None or not is_delayed:
                    raise
                raise CallTimeoutError(title, timeout) from failure or supply.failure
            except ConnectionLostError as error:
                # A command may declare this very class, for a connection that its responder lost.
                may_go_again = is_idempotent or not error.was_sent
                if not (may_go_again and kept.connection.is_closed):
                    raise
                was_sent = error.was_sent = was_sent or error.was_sent
                failure = error
            except RemoteAmpError as error:
                was_sent = True
                if error.code == _CLOSING and kept.connection._link.is_peer_closing:
                    kept.upkeep.leave(kept, error)
                elif error.code == _BUSY:
                    supply.set_back(kept)
                    refused = {*refused, kept}
                else:
                    kept.answered()
                    raise
                failure = error
            finally:
                kept.calls -= 1
                kept.upkeep.check_unused(kept)
            if tries >= self._most_tries:
                for note in notes:
                    failure.add_note(note)
                raise failure
            if self._most_tries != math.inf:
                notes.append(f"attempt {tries}, at {shown(kept.address)}: {reason_of(failure)}")

    async def _next(
        self, title: str, timeout: float | None, deadline: float | None, *, was_sent: bool
    ) -> Kept[S]:
        """Wait for a connection.

        Raises:
            ConnectionLostError: there will be none.
            CallTimeoutError: the time is over.
        """
        supply = self._supply
        if not supply.has_begun:
            raise supply.unavailable(title, was_sent=was_sent)
        try:
            async with asyncio.timeout_at(deadline):
                while (kept := supply.choose()) is None:
                    if supply.is_closed:
                        raise supply.unavailable(title, was_sent=was_sent)
                    await supply.wait_ready()
        except TimeoutError:
            assert timeout is not None
            raise CallTimeoutError(title, timeout) from supply.failure
        return kept

    async def _pause(self, failures: int, deadline: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._supply.pause(failures)
