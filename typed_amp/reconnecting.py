"""A client that comes back: the face of it.

Rule of this module: it says what there is. Keeping a connection is `Upkeep`'s business, and what is
sent again is `Resending`'s.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Self, overload

from typing_extensions import TypeVar, Unpack

from typed_amp.addresses import listed_addresses, shown
from typed_amp.backoff import Backoff
from typed_amp.calling import Calling
from typed_amp.connecting import CONNECT_TIMEOUT, check_lasting, connector
from typed_amp.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
    from ssl import SSLContext

    from typed_amp.addresses import OneAddress
    from typed_amp.client_state import ClientState
    from typed_amp.connection import Connection
    from typed_amp.counters import Counters
    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["Client"]

S = TypeVar("S", default=None)


class Client(Calling[S]):
    """A connection to a server that may go and come back, or to one of several servers.

    ::

        async with Client("localhost", 8000) as client:
            result = await client.call(Repeat(text="abc"))

    It keeps one connection. When that is lost it makes another, to the next of its addresses,
    after waits that grow; each attempt looks names up anew. Meanwhile calls wait, within their
    time. What becomes of a call that was under way:

    - The connection was lost: the peer may have carried it out or not. A command declared with
      `idempotent=True` is sent again on the next connection; others fail at once with
      `ConnectionLostError`.
    - The connection was lost, and the call had certainly not left this side, since it waited its
      turn behind others: it is sent on the next connection, whichever command it is.
    - The peer answered that it is closing (`CLOSING`): it has not carried it out. The client
      leaves that connection, where calls under way may finish, and sends the command, whichever
      it is, elsewhere. A `CLOSING` that a typed_amp peer passes on from somebody else is the call's
      error.
    - The peer answered that it is busy (`BUSY`): likewise it has not. The client waits, and sends
      the command again.

    Entering it with `async with`, or awaiting it, opens it; leaving or `close` closes it. To be
    used from one event loop. Twisted has `ReconnectingClientFactory` and `ClientService`.
    """

    @overload
    def __init__(
        self: Client[None],
        address: OneAddress | Sequence[OneAddress],
        port: int | None = None,
        *,
        router: None = None,
        on_connect: Callable[[Connection[None]], Awaitable[object]] | None = None,
        backoff: Backoff | None = None,
        attempts: int | None = None,
        shuffle: bool = False,
        wait_for_first: bool = True,
        wait_for_connection: bool = True,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        address: OneAddress | Sequence[OneAddress],
        port: int | None = None,
        *,
        router: Router[S],
        on_connect: Callable[[Connection[S]], Awaitable[object]] | None = None,
        backoff: Backoff | None = None,
        attempts: int | None = None,
        shuffle: bool = False,
        wait_for_first: bool = True,
        wait_for_connection: bool = True,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None: ...

    def __init__(
        self,
        address: OneAddress | Sequence[OneAddress],
        port: int | None = None,
        *,
        router: Router[S] | None = None,
        on_connect: Callable[[Connection[Any]], Awaitable[object]] | None = None,
        backoff: Backoff | None = None,
        attempts: int | None = None,
        shuffle: bool = False,
        wait_for_first: bool = True,
        wait_for_connection: bool = True,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        """Say where to connect, and how; nothing is opened yet.

        Args:
            address: a host, with `port`; or a `(host, port)` pair, the path of a Unix socket, or a
                sequence of these. They are tried in turn, from the first; after a loss it goes on
                with the next.
            port: the port of a single host.
            router: answers what the server asks, on each connection.
            on_connect: called with each new connection before calls go out on it: to log in, to
                subscribe. It calls on that connection, not on the client, which waits for it. If
                it fails the connection is closed, and that counts as a failed attempt.
            backoff: how long to wait between attempts, and before a busy peer is asked again.
            attempts: how many failures in a row to connect make the client give up, which closes
                it; and how often one call is sent before it fails. None: any number.
            shuffle: whether to try the addresses in an order of chance, made once: many clients
                then spread over the servers.
            wait_for_first: whether opening waits for the first connection. It waits as long as it
                takes, unless `attempts` or an `asyncio.timeout` around it ends that.
            wait_for_connection: whether calls wait for a connection while there is none; False
                lets them fail at once. Each call may say otherwise.
            connect_timeout: seconds for one attempt, TLS, the router's hooks and `on_connect`
                included.
            ssl: as for `connect`; for Unix sockets too, if there are any.
            server_hostname: as for `connect`; needed with `ssl` for Unix sockets.
            options: see `ConnectionOptions`; for each connection.

        Raises:
            TypeError: an address is none, or there is no such option.
            ValueError: there is no address, a host has no port, or an option makes no sense.
        """
        addresses = listed_addresses(address, port)
        check_lasting(
            addresses,
            options,
            attempts=attempts,
            connect_timeout=connect_timeout,
            ssl=ssl,
            server_hostname=server_hostname,
        )
        if shuffle:
            random.shuffle(addresses)
        self._addresses = addresses
        self._waits_for_first = wait_for_first

        self._upkeep: Upkeep[S] = Upkeep(
            connector(router, ssl=ssl, server_hostname=server_hostname, options=options),
            addresses,
            backoff=backoff or Backoff(),
            connect_timeout=connect_timeout,
            on_connect=on_connect,
            attempts=attempts,
        )
        super().__init__(
            self._upkeep,
            waits=wait_for_connection,
            timeout=options.get("call_timeout"),
            attempts=attempts,
        )

    # -- Watching ----------------------------------------------------------------------------

    @property
    def state(self) -> ClientState:
        """How the client is doing: connected or not, since when, and why."""
        return self._upkeep.states.latest

    def states(self) -> AsyncIterator[ClientState]:
        """Give the state there is now, and then each that follows, to `ClientStatus.CLOSED`.

        ::

            async for state in client.states():
                light.turn("green" if state.status is ClientStatus.CONNECTED else "red")

        Whoever is slow to ask for the next one may miss some, never the latest. Any number may
        watch.
        """
        return self._upkeep.states.watch()

    @property
    def connection(self) -> Connection[S] | None:
        """The connection for calls now; None while there is none.

        Calls made on it directly know nothing of the client. When the client leaves a connection
        whose peer is closing, it waits for its own calls there, not for those.
        """
        kept = self._upkeep.current
        return None if kept is None else kept.connection

    @property
    def counters(self) -> Counters:
        """What happened on all its connections up to now, those that have ended among them."""
        return self._upkeep.counters

    # -- Opening -----------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        """Open it, if it isn't open.

        Raises:
            ConnectionLostError: it has given up, or was closed.
            ValueError: the options don't fit together, as `connect` says it.
        """
        upkeep = self._upkeep
        if upkeep.is_closed:
            raise upkeep.unavailable("open")
        upkeep.start()
        if self._waits_for_first:
            await upkeep.wait_first()
        return self

    async def __aenter__(self) -> Self:
        return await self._opened()

    def __repr__(self) -> str:
        where = ", ".join(shown(address) for address in self._addresses)
        return f"<Client of {where}, {self.state.status.value}>"
