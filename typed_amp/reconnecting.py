"""A client that comes back: the face of it.

Rule of this module: it says what there is. Keeping a connection is `Upkeep`'s business, and what is
sent again is `Resending`'s.
"""

from __future__ import annotations

import os
import random
import ssl as tls
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    Self,
    TypeAlias,
    TypeGuard,
    overload,
)

from typing_extensions import TypeVar, Unpack

from typed_amp.addresses import checked_address, shown
from typed_amp.backoff import Backoff
from typed_amp.box import printable
from typed_amp.client import connect, connect_unix
from typed_amp.opening import ClosedAtEnd
from typed_amp.options import check_options
from typed_amp.resending import Resending
from typed_amp.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence

    from typed_amp.box import Box
    from typed_amp.client_state import ClientState
    from typed_amp.command import Command
    from typed_amp.connection import Connection
    from typed_amp.opening import Opening
    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router
    from typed_amp.upkeep import Address

__all__ = ["CONNECT_TIMEOUT", "Client"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", default=None)

OneAddress: TypeAlias = "tuple[str, int] | str | os.PathLike[str]"

CONNECT_TIMEOUT: Final = 10.0
"""How many seconds an attempt to connect may take, unless told otherwise.

Where a machine is gone nothing answers, and the system alone would try for minutes.
"""


class Client(ClosedAtEnd, Generic[S]):
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
      it is, elsewhere.
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
        ssl: tls.SSLContext | bool | None = None,
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
        ssl: tls.SSLContext | bool | None = None,
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
        ssl: tls.SSLContext | bool | None = None,
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
        check_options(options)
        if router is not None:
            router.begin_serving()
        if port is not None:
            addresses = [checked_address((address, port))]
        elif isinstance(address, (str, os.PathLike)) or _is_pair(address):
            addresses = [checked_address(address)]
        else:
            addresses = [checked_address(one) for one in address]
        if not addresses:
            raise ValueError("a client needs at least one address")
        for name, value in (
            ("attempts", attempts),
            ("call_timeout", options.get("call_timeout")),
            ("connect_timeout", connect_timeout),
        ):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, or None, not {value}")
        if ssl and not server_hostname and any(isinstance(one, str) for one in addresses):
            raise ValueError(
                "TLS over a Unix socket needs server_hostname, the name in the server's certificate"
            )
        if shuffle:
            random.shuffle(addresses)
        self._addresses = addresses
        self._waits_for_first = wait_for_first

        def open_connection(where: Address) -> Opening[Connection[S]]:
            # Their overloads tell a router from None; here it may be either.
            given: Router[S] = router  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
            if isinstance(where, str):
                return connect_unix(
                    where,
                    router=given,
                    ssl=tls.create_default_context() if ssl is True else ssl or None,
                    server_hostname=server_hostname,
                    **options,
                )
            return connect(
                *where,
                router=given,
                ssl=ssl,
                server_hostname=server_hostname,
                **options,
            )

        self._upkeep: Upkeep[S] = Upkeep(
            open_connection,
            addresses,
            backoff=backoff or Backoff(),
            connect_timeout=connect_timeout,
            on_connect=on_connect,
            attempts=attempts,
        )
        self._resending = Resending(
            self._upkeep,
            waits=wait_for_connection,
            timeout=options.get("call_timeout"),
            attempts=attempts,
        )

    # -- Calling -----------------------------------------------------------------------------

    async def call(
        self,
        command: Command[R],
        *,
        timeout: float | None = None,
        wait_for_connection: bool | None = None,
    ) -> R:
        """Have the peer carry out a command, and give its answer.

        As `Connection.call`, but that it waits for a connection while there is none, and sends
        again what may be sent again; see the class. Cancelling stops that.

        Args:
            command: the command.
            timeout: seconds for all of it; `call_timeout=` of the client if left out, `math.inf`
                for no end.
            wait_for_connection: whether to wait while there is no connection, if that is to
                differ from what the client was told.

        Raises:
            ConnectionLostError: the connection went before the answer came, and the command isn't
                idempotent; or there is no connection and the call doesn't wait for one; or the
                client is closed. It says why, and since when; `was_sent` says whether a peer may
                have carried out the command.
            CallTimeoutError: the time is over. `__cause__` is what was wrong before, if anything.
            RemoteAmpError: as for `Connection.call`; `CLOSING` and `BUSY` only if `attempts` is
                used up.
            Exception: as `Connection.call`.
        """
        signature = command.__amp_signature__()

        def send(connection: Connection[S], seconds: float) -> Awaitable[R]:
            return connection.call(command, timeout=seconds)

        return await self._resending.send(
            signature.title,
            send,
            is_idempotent=signature.idempotent,
            timeout=timeout,
            waits=wait_for_connection,
        )

    async def call_remote(
        self, command: Callable[P, Command[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Make a command and call it: `call_remote(Repeat, text="abc", times=3)`.

        Raises:
            pydantic.ValidationError: the fields are not those of the command.
            Exception: as `call`.
        """
        return await self.call(command(*args, **kwargs))

    async def call_box(
        self,
        name: str | bytes,
        box: Mapping[bytes, bytes] = MappingProxyType({}),
        *,
        requires_answer: bool = True,
        idempotent: bool = False,
        timeout: float | None = None,
        wait_for_connection: bool | None = None,
    ) -> Box:
        """Call a command by its name, with a box as it is; see `Connection.call_box`.

        Args:
            name: as for `Connection.call_box`.
            box: as for `Connection.call_box`.
            requires_answer: as for `Connection.call_box`.
            idempotent: whether it may be sent again when a connection was lost.
            timeout: as for `call`.
            wait_for_connection: as for `call`.

        Raises:
            Exception: as `call` and `Connection.call_box`.
        """
        title = printable(name.encode() if isinstance(name, str) else name)

        def send(connection: Connection[S], seconds: float) -> Awaitable[Box]:
            return connection.call_box(name, box, requires_answer=requires_answer, timeout=seconds)

        return await self._resending.send(
            title, send, is_idempotent=idempotent, timeout=timeout, waits=wait_for_connection
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
    def is_closed(self) -> bool:
        """Whether calls fail, since the client is closed or has given up."""
        return self._upkeep.is_closed

    # -- Opening and closing -----------------------------------------------------------------

    def close(self, *, drain_timeout: float | None = None) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        Calls that wait for a connection fail with `ConnectionLostError`, and so do new ones. The
        connection is closed as by `Connection.close`: responders may finish. Calling it again does
        nothing, but that a shorter time holds.

        Args:
            drain_timeout: seconds for running responders to finish; 0 cancels them now. If left
                out, what was said where the client was made.
        """
        self._upkeep.close(drain_timeout=drain_timeout)

    async def wait_closed(self) -> None:
        """Wait until the client is closed, and nothing of it goes on.

        Cancelling only stops the waiting.
        """
        await self._upkeep.wait_closed()

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
        if not self._waits_for_first:
            return self
        try:
            while upkeep.current is None:
                if upkeep.is_closed:
                    raise upkeep.mistake or upkeep.unavailable("open")
                await upkeep.wait_ready()
        except BaseException:
            self.close(drain_timeout=0)
            await self.wait_closed()
            raise
        return self

    async def __aenter__(self) -> Self:
        return await self._opened()

    def __repr__(self) -> str:
        where = ", ".join(shown(address) for address in self._addresses)
        return f"<Client of {where}, {self.state.status.value}>"


def _is_pair(address: object) -> TypeGuard[tuple[str, int]]:
    return (
        isinstance(address, tuple)
        and len(address) == 2
        and isinstance(address[0], str)
        and isinstance(address[1], int)
    )
