"""Keeping a connection to each of several servers, which may come and go.

Rule of this module: each server has an `Upkeep` of its own, which makes its connections. This says
which servers there are, and which of them is the next to be called.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from typing_extensions import TypeVar

from typed_amp.addresses import shown
from typed_amp.balancing import Chooser
from typed_amp.client_state import ClientState, ClientStatus, States
from typed_amp.counters import Counters
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.errors import AmpError, ConnectionLostError
from typed_amp.finding import found_addresses
from typed_amp.log import LOGGER, log_server
from typed_amp.pool_state import PoolState, ServerState
from typed_amp.supply import Kept, Supply, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from typed_amp.backoff import Backoff
    from typed_amp.balancing import Balance
    from typed_amp.finding import Finder
    from typed_amp.supply import Address
    from typed_amp.upkeep import Upkeep

__all__ = ["PoolUpkeep"]

S = TypeVar("S", default=None)

_LEAST_PAUSE: Final = 1.0
"""How many seconds there are at least between two look-ups that went well."""

_MOST_REASONS: Final = 5
"""Of how many servers an error says what is wrong with them."""


class PoolUpkeep(Supply[S]):
    """Keeps a connection to each server.

    Args:
        make: makes what keeps the connection to one address, and calls what it is given whenever
            its state has changed.
        addresses: where the servers are, if that doesn't change.
        find: says where they are now, otherwise.
        balance: how calls are spread.
        backoff: how long to wait between look-ups that fail.
        look_up_every: seconds between look-ups.
        look_up_timeout: seconds that one may take.
    """

    def __init__(
        self,
        make: Callable[[Address, Callable[[], object]], Upkeep[S]],
        addresses: Iterable[Address],
        find: Finder | None,
        *,
        balance: Balance,
        backoff: Backoff,
        look_up_every: float,
        look_up_timeout: float | None,
    ) -> None:
        super().__init__(backoff)
        self._loop: asyncio.AbstractEventLoop
        self._make = make
        self._addresses = addresses
        self._find = find
        self._chooser: Chooser[Kept[S]] = Chooser(balance)
        self._look_up_every = look_up_every
        self._look_up_timeout = look_up_timeout
        self._servers: dict[Address, Upkeep[S]] = {}
        self._leaving: dict[Upkeep[S], tuple[Address, asyncio.Task[None]]] = {}
        """Those whose address is gone, and who waits for their end."""
        self._looking: asyncio.Task[None] | None = None
        self._troubled = asyncio.Event()
        """A server has failed, so that its address may be gone."""
        self._look_up_error: BaseException | None = None
        self._left_counters = Counters()
        self.states: States[ClientState] = States(_status(ClientStatus.CONNECTING))
        """Of the pool as a whole. What there is to say of each server is put together when somebody
        asks: many may change in one moment."""

    # -- What calls need -----------------------------------------------------------------------

    @property
    def kept(self) -> Iterator[Kept[S]]:
        """All connections that calls may go out on."""
        for upkeep in self._servers.values():
            kept = upkeep.current
            if kept is not None:
                yield kept

    def choose(self, refused: Collection[Kept[S]] = ()) -> Kept[S] | None:
        """Choose the connection for the next call; None while there is none."""
        chosen = self._chooser.choose(self.kept, refused, self._loop.time())
        if chosen is None and not self.is_closed:
            self._ready.clear()
        return chosen

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to any server."""
        return next(self.kept, None) is not None

    @property
    def failure(self) -> BaseException | None:
        """What went wrong last, at any server or in finding them; None if nothing has."""
        states = [upkeep.states.latest for upkeep in self._servers.values()]
        failed = [
            state
            for state in states
            if state.error is not None and state.status is not ClientStatus.CONNECTED
        ]
        if not failed:
            return self._look_up_error
        return max(failed, key=lambda state: state.since).error

    def _reason(self) -> str:
        reasons = [
            f"{shown(address)}: {reason_of(error)}"
            for address, upkeep in self._servers.items()
            if (error := upkeep.failure) is not None
        ]
        if len(reasons) > _MOST_REASONS:
            reasons[_MOST_REASONS:] = [f"and {len(reasons) - _MOST_REASONS} more"]
        if self._look_up_error is not None:
            reasons.append(f"can't find servers: {reason_of(self._look_up_error)}")
        return "; ".join(reasons)

    # -- What users watch ----------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """What happened on all connections up to now, in numbers."""
        upkeeps = [*self._servers.values(), *self._leaving]
        return sum((upkeep.counters for upkeep in upkeeps), self._left_counters)

    @property
    def state(self) -> PoolState:
        """How it is doing now."""
        leaving = [(address, upkeep) for upkeep, (address, _) in self._leaving.items()]
        servers = [*self._servers.items(), *leaving]
        latest = self.states.latest
        return PoolState(
            latest.status,
            latest.since,
            tuple(self._state_of(address, upkeep) for address, upkeep in servers),
            self._look_up_error,
        )

    def _state_of(self, address: Address, upkeep: Upkeep[S]) -> ServerState:
        state = upkeep.states.latest
        kept = upkeep.current
        return ServerState(
            status=state.status,
            since=state.since,
            address=address,
            error=state.error,
            failures=state.failures,
            delay=state.delay,
            calls_in_flight=upkeep.calls,
            is_avoided=kept is not None and self._loop.time() < kept.avoided_until,
            counters=upkeep.counters,
        )

    def _changed(self) -> None:
        """Something is different at a server, or there are others."""
        if self.is_closed:
            return
        for upkeep in self._servers.values():
            if upkeep.mistake is not None:  # it is of this program, and so of all the others
                self._give_up(upkeep.mistake)
                self.close()
                return
        status = self.states.latest.status
        if self.is_up:
            status = ClientStatus.CONNECTED
            self._down_since = None
            self._ready.set()
        elif status is ClientStatus.CONNECTED:
            status = ClientStatus.WAITING
            self._is_down()
        states = (upkeep.states.latest for upkeep in self._servers.values())
        if any(state.status is ClientStatus.WAITING for state in states):
            self._troubled.set()
        self._tell(status)

    def _tell(self, status: ClientStatus) -> None:
        latest = self.states.latest
        self.states.change(replace(latest) if status is latest.status else _status(status))

    # -- Which servers there are ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self._loop = asyncio.get_running_loop()
        self.has_begun = True
        self._is_down()
        if self._find is None:
            self._arrange(self._addresses)
        else:
            looking = self._look_up_again_and_again(self._find)
            self._looking = self._loop.create_task(looking, name="typed_amp pool")

    def _arrange(self, addresses: Iterable[Address]) -> None:
        """Have these servers and no others."""
        wanted = set(addresses)
        for address in [*self._servers]:
            if address not in wanted:
                self._retire(address)
        # In an order of chance: many clients that begin together don't all begin with the same one.
        joining = sorted(wanted.difference(self._servers), key=lambda _: random.random())  # noqa: S311
        for address in joining:
            self._servers[address] = self._make(address, self._changed)
            log_server(logging.INFO, "server_joined", address, "%s joins", shown(address))
        for address in joining:
            self._servers[address].start()
        self._changed()

    def _retire(self, address: Address) -> None:
        told = "%s is gone from the servers; calls under way there may finish"
        log_server(logging.INFO, "server_left", address, told, shown(address))
        upkeep = self._servers.pop(address)
        seeing_off = self._loop.create_task(self._see_off(upkeep))
        self._leaving[upkeep] = address, seeing_off
        upkeep.retire(ConnectionLostError("its address is gone from the servers"))

    async def _see_off(self, upkeep: Upkeep[S]) -> None:
        try:
            await upkeep.wait_closed()
        finally:
            del self._leaving[upkeep]
            self._left_counters += upkeep.counters
            self._changed()

    async def _look_up_again_and_again(self, find: Finder) -> None:
        AMBIENT_DEADLINE.set(None)  # it outlives the responder that it may have begun in
        failures = 0
        while True:
            self._troubled.clear()
            try:
                addresses = await found_addresses(find, self._look_up_timeout)
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                is_ours = task is None or task.cancelling()
                if isinstance(error, asyncio.CancelledError) and is_ours:
                    raise
                failures += 1
                self._look_up_error = error
                delay = self.delay(failures)
                self._look_up_failed(error, failures, delay)
                await asyncio.sleep(delay)
                continue
            failures = 0
            self._look_up_error = None
            self._arrange(addresses)
            await asyncio.sleep(min(_LEAST_PAUSE, self._look_up_every))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_up_every - _LEAST_PAUSE):
                    await self._troubled.wait()

    def _look_up_failed(self, error: BaseException, failures: int, delay: float) -> None:
        # Once for each trouble: what follows is more of the same.
        level = logging.INFO if failures > 1 else logging.WARNING
        is_expected = isinstance(error, (AmpError, OSError, asyncio.CancelledError))
        LOGGER.log(
            level,
            "can't find servers: %s; there are %d as before, trying again in %.2f seconds",
            reason_of(error),
            len(self._servers),
            delay,
            exc_info=None if is_expected else error,
            extra={"amp_event": "look_up_failed"},
        )
        self._changed()

    # -- The end -------------------------------------------------------------------------------

    def close(self, *, drain_timeout: float | None = None) -> None:
        """End it all; `wait_closed` waits for the end."""
        is_first = not self.is_closed
        self._closed.set()
        self._ready.set()
        if is_first and self._looking is not None:
            self._looking.cancel()
        for upkeep in [*self._servers.values(), *self._leaving]:
            upkeep.close(drain_timeout=drain_timeout)
        if is_first:
            self._tell(ClientStatus.CLOSED)

    async def wait_closed(self) -> None:
        """Wait until all has ended. Cancelling only stops the waiting."""
        await self._closed.wait()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        for upkeep in [*self._servers.values()]:
            await upkeep.wait_closed()
        while self._leaving:
            await asyncio.wait([task for _, task in self._leaving.values()])


def _status(status: ClientStatus) -> ClientState:
    return ClientState(status, datetime.now(UTC), None)
