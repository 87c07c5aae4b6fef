"""Keeping a connection: making one, noticing its end, making the next.

Rule of this module: there is at most one connection that calls may go out on, and one task that
makes connections. What is called, and what may be called again, is the client's business.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeAlias

from typing_extensions import TypeVar

from typed_amp.addresses import shown
from typed_amp.backoff import Attempts
from typed_amp.client_state import ClientState, ClientStatus, States
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.errors import AmpError, ConnectionLostError, RemoteAmpError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typed_amp.backoff import Backoff
    from typed_amp.connection import Connection

__all__ = ["Address", "Kept", "Upkeep", "reason_of"]

S = TypeVar("S", default=None)

Address: TypeAlias = "tuple[str, int] | str"
"""`(host, port)`, or the path of a Unix socket."""

_logger = logging.getLogger("typed_amp")


class Kept(Generic[S]):
    """A connection that a client keeps, or kept.

    Args:
        connection: the connection.
        address: where it leads.
        began: when it was made, by the event loop's clock.

    Attributes:
        calls: how many calls of the client wait on it.
        error: why the client has left it; None as long as it hasn't.
    """

    __slots__ = ("address", "began", "calls", "connection", "error")

    def __init__(self, connection: Connection[S], address: Address, began: float) -> None:
        self.connection: Connection[S] = connection
        self.address: Address = address
        self.began: float = began
        self.calls: int = 0
        self.error: BaseException | None = None


class Upkeep(Generic[S]):
    """Keeps one connection, to whichever address has one to give.

    Args:
        connect: makes a connection to an address.
        addresses: the addresses, in the order to try them in.
        backoff: how long to wait between attempts.
        connect_timeout: seconds that an attempt may take, `on_connect` included.
        on_connect: what is to be done with a connection before calls go out on it.
        attempts: how many may fail in a row; None for any number.
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
    ) -> None:
        self._connect = connect
        self._backoff = backoff
        self._connect_timeout = connect_timeout
        self._on_connect = on_connect
        self._most_attempts = attempts
        self._attempts = Attempts(addresses, backoff)
        self._random = random.Random()  # noqa: S311 - it spreads load and guards nothing
        self._current: Kept[S] | None = None
        self._all: dict[Kept[S], asyncio.Task[None]] = {}
        """All connections that have not ended, and who waits for that."""
        self._keeping: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._ready = asyncio.Event()
        """There is a connection, or there will never be one."""
        self._closed = asyncio.Event()
        self.mistake: BaseException | None = None
        """What no attempt can mend, and ended it all."""
        self._down_since: tuple[float, datetime] | None = None
        self._failures: list[str] = []
        """What the failures in a row were, as far as there is an end to them."""
        first = ClientState(ClientStatus.CONNECTING, datetime.now(UTC), self._attempts.address)
        self.states: States = States(first)

    @property
    def current(self) -> Kept[S] | None:
        """The connection for calls; None while there is none."""
        kept = self._current
        if kept is not None and kept.connection.is_closed:
            self._ready.clear()  # what became of it is told in a moment
            return None
        return kept

    @property
    def is_closed(self) -> bool:
        """Whether there will never be a connection again."""
        return self._closed.is_set()

    @property
    def has_begun(self) -> bool:
        """Whether `start` was called."""
        return self._keeping is not None

    def start(self) -> None:
        """Begin to connect; calling it again does nothing."""
        if self._keeping is None:
            loop = asyncio.get_running_loop()
            self._down_since = loop.time(), datetime.now(UTC)
            self._keeping = loop.create_task(self._keep(), name="typed_amp client")

    async def wait_ready(self) -> None:
        """Wait until there is a connection, or until there will never be one.

        Cancelling only stops the waiting.
        """
        await self._ready.wait()

    async def pause(self, failures: int) -> None:
        """Wait as after that many failures, or until there will never be a connection again."""
        try:
            async with asyncio.timeout(self._backoff.delay(failures, self._random.random())):
                await self._closed.wait()
        except TimeoutError:
            pass

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
            self._ready.clear()
            now = asyncio.get_running_loop().time()
            self._down_since = now, datetime.now(UTC)
            self._attempts.lived(now - kept.began)
            is_closing = isinstance(error, RemoteAmpError)
            what = f"{shown(kept.address)} is closing" if is_closing else reason_of(error)
            self._failed(what, logging.INFO if is_closing else logging.WARNING, error)
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
        if not self._closed.is_set():
            if error is None and self._down_since is not None:
                error = self.states.latest.error
            self._closed.set()
            self._current = None
            self._ready.set()
            self._change(ClientStatus.CLOSED, None, error)
            if self._keeping is not None:
                self._keeping.cancel()
        for kept in self._all:
            kept.connection.close(drain_timeout=drain_timeout)

    async def wait_closed(self) -> None:
        """Wait until all has ended. Cancelling only stops the waiting."""
        await self._closed.wait()
        if self._keeping is not None:
            await asyncio.wait([self._keeping])
        while self._all:
            await asyncio.wait(self._all.values())

    def unavailable(self, what: str, *, was_sent: bool = False) -> ConnectionLostError:
        """Make the error of a call that has no connection: since when and why.

        Args:
            what: what can't be done.
            was_sent: whether it was sent before, on another connection.
        """
        state = self.states.latest
        if not (self.has_begun or self.is_closed):
            told = "the client isn't open; enter it with `async with`, or await it"
        elif self._down_since is None:
            told = "the client is closed"
        else:
            began, since = self._down_since
            seconds = asyncio.get_running_loop().time() - began
            told = f"no connection since {since:%H:%M:%S} UTC, {seconds:.1f} seconds ago"
            if self.is_closed:
                told = f"the client is closed; {told}"
        if state.error is not None:
            told = f"{told}: {reason_of(state.error)}"
        lost = ConnectionLostError(f"{what}: {told}")
        lost.__cause__ = state.error
        lost.was_sent = was_sent
        for note in self._failures[:-1] if self.is_closed else ():
            lost.add_note(note)
        return lost

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
            error = self.mistake = failure
            _logger.error("the client can't go on: %s", reason_of(failure), exc_info=failure)
            if not isinstance(failure, Exception):
                raise
        finally:
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
            self._failed(f"can't connect to {shown(address)}: {reason_of(error)}", level, error)
            return False
        seconds = 0.0
        if self._down_since is not None:
            seconds = asyncio.get_running_loop().time() - self._down_since[0]
        _logger.info("connected to %s, after %.1f seconds without", shown(address), seconds)
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
        kept = Kept(connection, address, loop.time())
        self._all[kept] = loop.create_task(self._watch(kept))
        return kept

    async def _watch(self, kept: Kept[S]) -> None:
        try:
            self.leave(kept, await kept.connection.wait_lost())
            await kept.connection.wait_closed()
        finally:
            del self._all[kept]

    def _failed(self, what: str, level: int, error: BaseException) -> None:
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
                _logger.error("%s; giving up after %d failures", what, attempts.failures)
                self.close(error=error)
                return
        where = shown(attempts.address)
        is_expected = isinstance(error, (AmpError, OSError, asyncio.CancelledError))
        traceback = None if is_expected else error
        _logger.log(level, "%s; trying %s in %.2f seconds", what, where, delay, exc_info=traceback)
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


def reason_of(error: BaseException) -> str:
    """Say in one line what an error says, or at least what it is."""
    text = str(error) or type(error).__name__
    return text if text.isprintable() else ascii(text)[1:-1]
