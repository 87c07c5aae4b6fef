"""One client over several servers: the face of it.

Rule of this module: it says what there is. Which servers there are, and which is called next, is
`PoolUpkeep`'s business, and what is sent again is `Resending`'s.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from typing_extensions import TypeVar, Unpack

from typed_amp.addresses import is_pair, listed_addresses, shown
from typed_amp.backoff import Backoff
from typed_amp.calling import Calling
from typed_amp.connecting import CONNECT_TIMEOUT, check_lasting, connector
from typed_amp.finding import name_finder
from typed_amp.opening import Opening
from typed_amp.pool_upkeep import PoolUpkeep
from typed_amp.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from ssl import SSLContext

    from typed_amp.addresses import OneAddress
    from typed_amp.balancing import Balance
    from typed_amp.connection import Connection
    from typed_amp.counters import Counters
    from typed_amp.finding import Finder
    from typed_amp.options import ConnectionOptions
    from typed_amp.pool_state import PoolState, ServerState
    from typed_amp.router import Router
    from typed_amp.supply import Address

__all__ = ["ConnectionPool", "connect_pool"]

S = TypeVar("S", default=None)

Addresses: TypeAlias = "OneAddress | Sequence[OneAddress] | Finder"


class ConnectionPool(Calling[S]):
    """Connections to several servers, one to each; calls are spread over them.

    Made by `connect_pool`, never by hand. What it promises of each call is what `Client` does: see
    there. A call whose connection is lost, or whose server is closing or busy, goes to another
    server if it may be sent again. `async with` closes it at the end. To be used from one event
    loop.
    """

    def __init__(
        self,
        upkeep: PoolUpkeep[S],
        *,
        waits: bool,
        timeout: float | None,
        attempts: int | None,
    ) -> None:
        super().__init__(upkeep, waits=waits, timeout=timeout, attempts=attempts)
        self._upkeep = upkeep

    @property
    def state(self) -> PoolState:
        """How the pool and each of its servers are doing now."""
        return self._upkeep.state

    @property
    def servers(self) -> tuple[ServerState, ...]:
        """How each server is doing now: where it is, its status, how many calls wait there."""
        return self._upkeep.state.servers

    async def states(self) -> AsyncIterator[PoolState]:
        """Give the state there is now, and then each that follows, to `ClientStatus.CLOSED`.

        One follows when a server is connected, lost, joins or leaves; calls that come and go make
        none. Whoever is slow to ask for the next one may miss some, never the latest. Any number
        may watch.
        """
        async for _ in self._upkeep.states.watch():
            yield self._upkeep.state

    async def wait_connected(self, count: int = 1) -> None:
        """Wait until there are connections to that many servers. Cancelling only stops the waiting.

        Raises:
            ConnectionLostError: the pool is closed.
        """
        async with aclosing(self._upkeep.states.watch()) as states:
            async for _ in states:
                if len(self.connections) >= count:
                    return
        raise self._upkeep.unavailable("wait_connected")

    @property
    def connections(self) -> tuple[Connection[S], ...]:
        """The connections for calls now, at most one to each server.

        Calls made on one of them directly know nothing of the pool. When the pool leaves a
        connection whose peer is closing, it waits for its own calls there, not for those.
        """
        return tuple(kept.connection for kept in self._upkeep.kept)

    @property
    def counters(self) -> Counters:
        """What happened on all its connections up to now, those that have ended among them."""
        return self._upkeep.counters

    def __repr__(self) -> str:
        servers = f"{len(self.connections)} of {len(self.servers)} servers connected"
        return f"<ConnectionPool, {self.state.status.value}, {servers}>"


@overload
def connect_pool(
    addresses: Addresses,
    port: int | None = None,
    *,
    router: None = None,
    balance: Balance = "least_loaded",
    look_up_every: float = 30.0,
    on_connect: Callable[[Connection[None]], Awaitable[object]] | None = None,
    backoff: Backoff | None = None,
    attempts: int | None = None,
    wait_for_first: bool = True,
    wait_for_connection: bool = True,
    connect_timeout: float | None = CONNECT_TIMEOUT,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[ConnectionPool[None]]: ...


@overload
def connect_pool(
    addresses: Addresses,
    port: int | None = None,
    *,
    router: Router[S],
    balance: Balance = "least_loaded",
    look_up_every: float = 30.0,
    on_connect: Callable[[Connection[S]], Awaitable[object]] | None = None,
    backoff: Backoff | None = None,
    attempts: int | None = None,
    wait_for_first: bool = True,
    wait_for_connection: bool = True,
    connect_timeout: float | None = CONNECT_TIMEOUT,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[ConnectionPool[S]]: ...


def connect_pool(
    addresses: Addresses,
    port: int | None = None,
    *,
    router: Router[S] | None = None,
    balance: Balance = "least_loaded",
    look_up_every: float = 30.0,
    on_connect: Callable[[Connection[Any]], Awaitable[object]] | None = None,
    backoff: Backoff | None = None,
    attempts: int | None = None,
    wait_for_first: bool = True,
    wait_for_connection: bool = True,
    connect_timeout: float | None = CONNECT_TIMEOUT,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[ConnectionPool[S]]:
    """Connect to several servers, and spread calls over them: `async with connect_pool(...)`.

    ::

        async with connect_pool([("one", 8000), ("two", 8000)]) as pool:
            result = await pool.call(Repeat(text="abc"))

    There is a connection to each server that has one to give. One that is lost is made again, after
    waits that grow, while calls go to the others; a server that says that it is closing gets no
    more calls, and those under way there finish. While there is no connection at all, calls wait
    for one, within their time. A server that is busy, or didn't answer a call in time, gets calls
    only if the others are no better, for a while that grows with each further one.

    Cancelling the opening leaves nothing open.

    Args:
        addresses: a sequence of servers, each a `(host, port)` pair or the path of a Unix socket;
            or a host, with `port` or in a pair, of which each address is a server; or an async
            function that gives such a sequence. Names and functions are asked again from time to
            time: servers that are new join, and those that are gone get no more calls and are left
            when they have answered. If nothing is found, all stays as it was.
        port: the port of a single host.
        router: answers what the servers ask, on each connection.
        balance: `"least_loaded"`: a call goes to the server where the fewest calls of this pool
            wait, and among equals to the one whose last call is the longest ago. `"round_robin"`:
            to each in its turn.
        look_up_every: seconds between look-ups of a name, or calls of a function. When a server is
            lost the next is at once, but no two are within a second.
        on_connect: as for `Client`; with each new connection to each server.
        backoff: how long to wait between attempts to connect to one server, between look-ups that
            fail, before all servers are asked again if all were busy, and how long others are
            preferred to one that was busy or too slow.
        attempts: how often one call is sent before it fails. None: any number. A command that ends
            each server that carries it out, and is idempotent, ends so many at the most.
        wait_for_first: whether opening waits for the first connection. It waits as long as it
            takes, unless an `asyncio.timeout` around it ends that.
        wait_for_connection: as for `Client`.
        connect_timeout: seconds for one attempt to connect, TLS, the router's hooks and
            `on_connect` included; and for a look-up.
        ssl: as for `Client`.
        server_hostname: as for `connect`. The name that is looked up, if there is one, unless told
            otherwise.
        options: see `ConnectionOptions`; for each connection.

    Raises:
        TypeError: an address is none, or there is no such option.
        ValueError: there is no address, or one twice; a host has no port; an option makes no sense.
        DefinitionError: `router` has a plain function that is not to run in a thread.
    """
    backoff = backoff or Backoff()
    find: Finder | None = None
    listed: list[Address] = []
    if callable(addresses):
        if port is not None:
            raise TypeError("a function gives addresses with their ports; leave out port")
        find = addresses
    else:
        listed = listed_addresses(addresses, port)
        if port is not None or is_pair(addresses):
            ((host, port),) = cast("list[tuple[str, int]]", listed)
            find = name_finder(host, port)
            server_hostname = server_hostname or host
    if len(set(listed)) < len(listed):
        twice = next(one for one in listed if listed.count(one) > 1)
        raise ValueError(f"{shown(twice)} is given twice: a pool has one connection to each server")
    check_lasting(
        listed,
        options,
        attempts=attempts,
        connect_timeout=connect_timeout,
        ssl=ssl,
        server_hostname=server_hostname,
    )
    if not look_up_every > 0:
        raise ValueError(f"look_up_every must be positive, not {look_up_every}")
    connect = connector(router, ssl=ssl, server_hostname=server_hostname, options=options)

    def make(address: Address, on_change: Callable[[], object]) -> Upkeep[S]:
        return Upkeep(
            connect,
            [address],
            backoff=backoff,
            connect_timeout=connect_timeout,
            on_connect=on_connect,
            attempts=None,
            on_change=on_change,
        )

    upkeep = PoolUpkeep(
        make,
        listed,
        find,
        balance=balance,
        backoff=backoff,
        look_up_every=look_up_every,
        look_up_timeout=connect_timeout,
    )
    pool: ConnectionPool[S] = ConnectionPool(
        upkeep,
        waits=wait_for_connection,
        timeout=options.get("call_timeout"),
        attempts=attempts,
    )

    async def open_pool() -> ConnectionPool[S]:
        upkeep.start()
        if wait_for_first:
            await upkeep.wait_first()
        return pool

    return Opening(open_pool())
