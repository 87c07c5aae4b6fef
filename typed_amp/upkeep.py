"""Keeping a connection: making one, noticing its end, making the next.

Rule of this module: there is at most one connection that calls may go out on, and one task that
makes connections. What is called, and what may be called again, is the client's business.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from typing_extensions import TypeVar

from typed_amp.addresses import shown
from typed_amp.backoff import Attempts
from typed_amp.client_state import ClientState, ClientStatus, States
from typed_amp.counters import Counters
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.errors import AmpError, RemoteAmpError
from typed_amp.log import log_server
from typed_amp.supply import Kept, Supply, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from typed_amp.backoff import Backoff
    from typed_amp.connection import Connection
    from typed_amp.supply import Address

__all__ = ["Upkeep"]

S = TypeVar("S", default=None)


class Upkeep(Supply[S]):
    """Keeps one connection, to whichever address has one to give.

    Args:
        connect: makes a connection to an address.
        addresses: the addresses, in the order to try them in.
        backoff: how long to wait between attempts.
        connect_timeout: seconds that an attempt may take, `on_connect` included.
        on_connect: what is to be done with a connection before calls go out on it.
        attempts: how many may fail in a row; None for any number.
        on_change: called whenever the state has changed.
    """

    def __init__(
        self,
        connect: Callable[[Address], Awaitable[Connection[S]]],
        addresses: Sequence[Address],
        *,
        backoff: Backoff,
        connect_timeout: float | None,
        on_connect: Callable[[Connection[S]], Awaitable[object]] | None,
        attempts: int | None,
        on_change: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(backoff)
        self._connect = connect
        self._connect_timeout = connect_timeout
        self._on_connect = on_connect
        self._on_change = on_change
        self._most_attempts = attempts
        self._attempts = Attempts(addresses, backoff)
        self._current: Kept[S] | None = None
        self._all: dict[Kept[S], asyncio.Task[None]] = {}
        """All connections that have not ended, and who waits for that."""
        self._ended_counters = Counters()
        self._keeping: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._failures: list[str] = []
        """What the failures in a row were, as far as there is an end to them."""
        first = ClientState(ClientStatus.CONNECTING, datetime.now(UTC), self._attempts.address)
        self.states: States[ClientState] = States(first)

    @property
    def current(self) -> Kept[S] | None:
        """The connection for calls; None while there is none."""
        kept = self._current
        if kept is not None and kept.connection.is_closed:
            self._ready.clear()  # what became of it is told in a moment
            return None
        return kept

    def choose(self, refused: Collection[Kept[S]] = ()) -> Kept[S] | None:  # noqa: ARG002
        """Give the connection that there is, whatever was refused there: there is no other."""
        return self.current

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self.current is not None

    @property
    def failure(self) -> BaseException | None:
        """What the last failure was; None if nothing has failed yet."""
        return self.states.latest.error

    @property
    def calls(self) -> int:
        """How many calls wait, on the connections that were left too."""
        return sum(kept.calls for kept in self._all)

    @property
    def counters(self) -> Counters:
        """What happened on all connections up to now, in numbers."""
        return sum((kept.connection.counters for kept in self._all), self._ended_counters)

    def start(self) -> None:
        """Begin to connect; calling it again does nothing."""
        if self._keeping is None:
            self.has_begun = True
            loop = asyncio.get_running_loop()
            self._is_down()
            self._keeping = loop.create_task(self._keep(), name="typed_amp client")

    def leave(self, kept: Kept[S], error: BaseException) -> None:
        """Have no new calls go out on a connection; see `check_unused` for when it ends.

        Args:
            kept: the connection; the first call for it counts.
            error: why.
        """
        if kept.error is not None:
            return
        kept.error = error
        if kept is self._current:
            self._current = None
            self._is_down()
            self._attempts.lived(asyncio.get_running_loop().time() - kept.began)
            is_closing = isinstance(error, RemoteAmpError)
            what = f"{shown(kept.address)} is closing" if is_closing else reason_of(error)
            level = logging.INFO if is_closing else logging.WARNING
            self._failed("closing" if is_closing else "lost", kept.address, what, level, error)
            self._left.set()

    def check_unused(self, kept: Kept[S]) -> None:
        """Close a connection that was left, if no call waits on it."""
        if kept.error is not None and not kept.calls:
            kept.connection.close()

    def close(
        self, *, drain_timeout: float | None = None, error: BaseException | None = None
    ) -> None:
        """End it all; `wait_closed` waits for the end.

        Args:
            drain_timeout: as for `Connection.close`.
            error: why, if nobody wanted it.
        """
        if not self.is_closed:
            if error is None and self._down_since is not None:
                error = self.failure
            self._end(error)
        for kept in self._all:
            kept.connection.close(drain_timeout=drain_timeout)

    async def wait_closed(self) -> None:
        """Wait until all has ended. Cancelling only stops the waiting."""
        await self._closed.wait()
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
        while self._all:
            await asyncio.wait(self._all.values())

    def retire(self, error: BaseException) -> None:
        """Make no more connections. Calls under way may finish, and then all has ended.

        Args:
            error: why.
        """
        if not self.is_closed:
            self._end(None)
            for kept in [*self._all]:
                kept.error = kept.error or error
                self.check_unused(kept)

    def _end(self, error: BaseException | None) -> None:
        self._closed.set()
        self._current = None
        self._ready.set()
        self._change(ClientStatus.CLOSED, None, error)
        if self._keeping is not None:
            self._keeping.cancel()

    def _notes(self) -> Iterable[str]:
        return self._failures[:-1] if self.is_closed else ()

    # -- The task that makes connections -----------------------------------------------------

    async def _keep(self) -> None:
        AMBIENT_DEADLINE.set(None)  # it outlives the responder that it may have begun in
        error: BaseException | None = None
        try:
            while True:
                self._left.clear()
                if await self._attempt():
                    await self._left.wait()
                await asyncio.sleep(self.states.latest.delay)
        except asyncio.CancelledError:
            raise
        except BaseException as failure:
            error = failure
            self._give_up(failure)
            log_server(
                logging.ERROR,
                "gave_up",
                self._attempts.address,
                "the client can't go on: %s",
                reason_of(failure),
                error=failure,
            )
            if not isinstance(failure, Exception):
                raise
        finally:
            if not self.is_closed:  # which lets calls finish that are under way, if it is retired
                self.close(error=error)

    async def _attempt(self) -> bool:
        """Connect; says whether there is a connection now."""
        address = self._attempts.address
        if self.states.latest.status is not ClientStatus.CONNECTING:  # as it is at first
            self._change(ClientStatus.CONNECTING, address, self.states.latest.error)
        kept: Kept[S] | None = None
        timeout = asyncio.timeout(self._connect_timeout)
        try:
            try:
                async with timeout:
                    connection = await self._connect(address)
                    kept = self._keep_watch(connection, address)
                    await self._prepare(connection)
            except TimeoutError as error:
                if not timeout.expired():
                    raise
                raise TimeoutError(
                    f"no connection within {self._connect_timeout:g} seconds"
                ) from error
        except BaseException as error:
            if kept is not None:
                kept.error = kept.error or error
                kept.connection.close(drain_timeout=0)
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError):
                # A hook may fail by awaiting something that was cancelled; that isn't this task.
                if task is None or task.cancelling():
                    raise
            elif kept is None and not isinstance(error, (OSError, AmpError)):
                raise  # a mistake in the program, which no attempt will mend
            elif not isinstance(error, Exception):
                raise
            # Once for each trouble: what follows is more of the same.
            level = logging.INFO if self._attempts.failures else logging.WARNING
            what = f"can't connect to {shown(address)}: {reason_of(error)}"
            self._failed("connect_failed", address, what, level, error)
            return False
        seconds = 0.0
        if self._down_since is not None:
            seconds = asyncio.get_running_loop().time() - self._down_since[0]
        told = "connected to %s, after %.1f seconds without"
        log_server(logging.INFO, "connected", address, told, shown(address), seconds)
        self._down_since = None
        self._current = kept
        self._change(ClientStatus.CONNECTED, address, self.states.latest.error)
        self._ready.set()
        return True

    async def _prepare(self, connection: Connection[S]) -> None:
        if self._on_connect is not None:
            await self._on_connect(connection)
        if connection.is_closed:
            raise await connection.wait_lost()

    def _keep_watch(self, connection: Connection[S], address: Address) -> Kept[S]:
        loop = asyncio.get_running_loop()
        kept = Kept(self, connection, address, loop.time())
        self._all[kept] = loop.create_task(self._watch(kept))
        return kept

    async def _watch(self, kept: Kept[S]) -> None:
        try:
            self.leave(kept, await kept.connection.wait_lost())
            await kept.connection.wait_closed()
        finally:
            del self._all[kept]
            self._ended_counters += kept.connection.counters

    def _failed(
        self, event: str, address: Address, what: str, level: int, error: BaseException
    ) -> None:
        """An attempt failed, or a connection was lost: say when the next attempt is."""
        if self.is_closed:
            return
        attempts = self._attempts
        delay = attempts.failed(self._random.random())
        if self._most_attempts is not None:
            if attempts.failures == 1:
                self._failures.clear()
            self._failures.append(f"failure {attempts.failures}: {what}")
            if attempts.failures >= self._most_attempts:
                told = "%s; giving up after %d failures"
                log_server(logging.ERROR, "gave_up", address, told, what, attempts.failures)
                self.close(error=error)
                return
        where = shown(attempts.address)
        is_expected = isinstance(error, (AmpError, OSError, asyncio.CancelledError))
        traceback = None if is_expected else error
        told = "%s; trying %s in %.2f seconds"
        log_server(level, event, address, told, what, where, delay, error=traceback)
        self._change(ClientStatus.WAITING, attempts.address, error, delay)

    def _change(
        self,
        status: ClientStatus,
        address: Address | None,
        error: BaseException | None,
        delay: float = 0.0,
    ) -> None:
        failures = self._attempts.failures
        now = datetime.now(UTC)
        self.states.change(ClientState(status, now, address, error, failures, delay))
        if self._on_change is not None:
            self._on_change()
