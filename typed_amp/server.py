"""Serving: accepting connections, and ending them decently.

Rule of this module: it makes transports and hands them to `Connection`s; nothing else differs
between the two ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from typing import TYPE_CHECKING, Final, Generic, Self, cast

from typing_extensions import TypeVar, Unpack

from typed_amp.acceptor import MAX_HANDSHAKES, Acceptor
from typed_amp.addresses import address_of, shown
from typed_amp.admission import Admission
from typed_amp.budget import Budget
from typed_amp.connection import Connection
from typed_amp.counters import Counters
from typed_amp.listening import SocketFile, listen_tcp, listen_unix
from typed_amp.occupancy import MAX_CONNECTIONS, MAX_TOTAL_REQUESTS, Occupancy
from typed_amp.opening import ClosedAtEnd, Opening
from typed_amp.options import check_options, handshake_timeout, limits_of
from typed_amp.protocol import LinkProtocol
from typed_amp.settings import Settings

if TYPE_CHECKING:
    import os
    import socket
    from collections.abc import Callable, Sequence
    from ssl import SSLContext

    from typed_amp.admission import Verdict
    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router
    from typed_amp.shared_counts import SharedCount

__all__ = ["INTRODUCTION_TIMEOUT", "Server", "loop_factory", "run", "serve", "serve_unix"]

S = TypeVar("S", default=None)
A = TypeVar("A", bound=tuple[str, int] | str, default=tuple[str, int])

_logger = logging.getLogger("typed_amp")

INTRODUCTION_TIMEOUT: Final = 3.0
"""How many seconds a peer has to say what it knows, before a server that is replaced may close.

On a machine with much more work than it can do a client may not get its turn within one.
"""


class Server(ClosedAtEnd, Generic[S, A]):
    """A listening socket, or several, and the connections that came in by it.

    Made by `serve` and `serve_unix`, never by hand. `async with` closes it at the end.
    """

    def __init__(
        self,
        router: Router[S],
        *,
        admit: Callable[[Connection[S]], Verdict] | None,
        max_connections: int,
        max_total_requests: int,
        max_handshakes: int,
        ssl: SSLContext | None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        check_options(options)
        if max_handshakes < 1:
            raise ValueError(f"max_handshakes must be at least 1, not {max_handshakes}")
        self._admission: Admission[S] | None = None
        if admit is not None:
            self._admission = Admission(admit, limits_of(options).handshake_timeout)
        self._options = options
        self._settings: Settings[S] = Settings(
            router,
            is_server=True,
            on_opened=self._opened,
            on_ended=self._ended,
            budget=Budget(max_total_requests),
            **options,
        )
        self._connections: set[Connection[S]] = set()
        self._ended_counters = Counters()
        self._occupancy = Occupancy(self, self._connections, max_connections)
        self._max_handshakes = max_handshakes
        self._context = ssl
        self._acceptor: Acceptor
        self._addresses: tuple[A, ...] = ()
        self._socket_files: list[SocketFile] = []
        self._balance: SharedCount | None = None
        self._is_closing = False
        self._closed = asyncio.Event()

    @property
    def addresses(self) -> Sequence[A]:
        """Where it listens: `(host, port)` pairs, or Unix paths with `serve_unix`.

        The ports are the real ones, also where port 0 was asked for. A name such as "localhost"
        may stand for several addresses; with port 0 each has a port of its own.
        """
        return self._addresses

    @property
    def connections(self) -> Sequence[Connection[S]]:
        """The connections there are now, in no order; with `admit=`, those that were admitted."""
        return tuple(each for each in self._connections if each._link.has_joined)

    @property
    def counters(self) -> Counters:
        """What happened on all its connections up to now, those that ended among them."""
        return sum((each.counters for each in self._connections), self._ended_counters)

    async def serve_forever(self) -> None:
        """Serve until somebody closes the server. It serves without this too.

        Cancelling closes the server, waits until that is done, and goes on as cancelled.
        """
        try:
            await self._closed.wait()
        finally:
            self.close()
            await self.wait_closed()

    async def stop_accepting(self) -> None:
        """Accept no more connections; those there are go on. Waits for those that just begin.

        For a server whose place another one takes, on the same socket: when this returns, TLS
        handshakes under way are over, and each peer has had three seconds to say that it wants to
        hear of a closing. So `close` loses no call of theirs. Cancelling only stops the waiting.
        """
        self._acceptor.stop()
        self._remove_socket_files()
        await self._acceptor.wait_idle()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + INTRODUCTION_TIMEOUT
        # Peers of other kinds never say it, and there is no event for what doesn't happen.
        while not all(each._link.features.has_closing for each in self._connections):
            if self._is_closing or loop.time() > deadline:
                return
            await asyncio.sleep(0.01)

    def close(self, *, drain_timeout: float | None = None) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        No connection is accepted any more, and each one there is closed as by `Connection.close`:
        running responders may finish. Calling it again does nothing, but that a shorter time
        holds.

        Args:
            drain_timeout: seconds for running responders to finish; 0 cancels them now. If left
                out, what was said to `serve`.
        """
        if not self._is_closing:
            self._is_closing = True
            self._acceptor.close()
            self._remove_socket_files()
        for connection in tuple(self._connections):
            connection.close(drain_timeout=drain_timeout)
        self._check_closed()

    async def wait_closed(self) -> None:
        """Wait until the server is closed and all its connections have ended.

        Cancelling only stops the waiting.
        """
        await self._closed.wait()

    def _share(self, balance: SharedCount) -> None:
        """Share the connections with other processes that accept on the same sockets.

        Args:
            balance: says how many each has, and is told how many are here.
        """
        self._balance = balance
        self._acceptor.share(balance)
        self._tell_balance()

    def _tell_balance(self) -> None:
        if self._balance is not None:
            self._balance.set(id(self), len(self._connections) + self._acceptor.pending)

    def __repr__(self) -> str:
        where = ", ".join(shown(address) for address in self._addresses)
        status = "closing" if self._is_closing else f"{len(self.connections)} connections"
        return f"<Server at {where}, {status}>"

    def _new_protocol(self) -> asyncio.BufferedProtocol:
        connection: Connection[S] = Connection(self._settings)
        return LinkProtocol(connection)

    def _opened(self, connection: Connection[S]) -> Verdict:
        self._connections.add(connection)
        self._tell_balance()
        if self._is_closing:  # it was in the handshake when the server closed
            connection.close(drain_timeout=0)
            return False
        if not self._occupancy.has_room(connection._link):
            return False
        return self._admission is None or self._admission.decide(connection)

    def _ended(self, connection: Connection[S]) -> None:
        self._ended_counters += connection.counters
        self._connections.discard(connection)
        self._tell_balance()
        self._check_closed()

    def _check_closed(self) -> None:
        if self._is_closing and self._acceptor.is_idle and not self._connections:
            self._closed.set()

    def _listen(self, sockets: Sequence[socket.socket], *, owns_files: bool = True) -> Self:
        self._acceptor = Acceptor(
            sockets,
            self._new_protocol,
            context=self._context,
            handshake_timeout=handshake_timeout(self._context, self._options),
            max_handshakes=self._max_handshakes,
            on_idle=self._check_closed,
        )
        self._acceptor.begin()
        names = [address_of(each.getsockname()) for each in sockets]
        self._addresses = tuple(cast("A", name) for name in names if name is not None)
        if owns_files:
            files = map(SocketFile.of, sockets)
            self._socket_files = [file for file in files if file is not None]
        return self

    def _remove_socket_files(self) -> None:
        while self._socket_files:
            self._socket_files.pop().remove()


def serve(
    router: Router[S],
    host: str | Sequence[str] | None,
    port: int,
    *,
    ssl: SSLContext | None = None,
    admit: Callable[[Connection[S]], Verdict] | None = None,
    max_connections: int = MAX_CONNECTIONS,
    max_total_requests: int = MAX_TOTAL_REQUESTS,
    max_handshakes: int = MAX_HANDSHAKES,
    **options: Unpack[ConnectionOptions],
) -> Opening[Server[S]]:
    """Serve a router over TCP: `await serve(...)` or `async with serve(...)`.

    Connections are accepted from then on, as long as the event loop runs.

    Args:
        router: answers what clients ask. May serve elsewhere too, at the same time.
        host: a name or an address, several of them, or None for all there are.
        port: the port; 0 takes a free one, see `Server.addresses`.
        ssl: a server's context for TLS. With `verify_mode = ssl.CERT_REQUIRED` clients must show a
            certificate, see `Connection.peer_certificate`.
        admit: says whether a connection is admitted, once there is one (after the handshake, with
            TLS) and before anything is read from it. Takes the `Connection`, for its
            `peer_certificate`, `peer_credentials` and `remote_address`; it has no state yet, and
            the peer is not to be called. A function, async or not. Only True admits: a connection
            is refused by anything else that it returns or raises, or if it takes more than
            `Limits.handshake_timeout`. It is closed at once then, and the log says so; hooks don't
            run.
        max_connections: how many connections there may be. 1,000: with what each may hold that is
            what a small machine can bear, and a process may have 1,024 files open on most systems.
            Commands on further ones are refused with the code `BUSY`, and they are closed after a
            second; more than a tenth beyond it are closed at once.
        max_total_requests: how many responders may run for all connections together. 10,000: ten
            connections may do all that `Limits.max_requests` allows. Further commands are refused
            with `BUSY`.
        max_handshakes: how many TLS handshakes may be under way. 100: each holds some 300 kB, and
            most take a tenth of a second. For one more the oldest is given up, so that who begins
            one and goes no further keeps nobody out.
        options: see `ConnectionOptions`.

    Raises:
        OSError: the address is in use, or is none of this machine's.
        ValueError: there may be no connections, or no handshakes.
    """

    async def open_server() -> Server[S]:
        server: Server[S] = Server(
            router,
            admit=admit,
            max_connections=max_connections,
            max_total_requests=max_total_requests,
            max_handshakes=max_handshakes,
            ssl=ssl,
            **options,
        )
        return server._listen(await listen_tcp(host, port))

    return Opening(open_server())


def serve_unix(
    router: Router[S],
    path: str | os.PathLike[str],
    *,
    ssl: SSLContext | None = None,
    admit: Callable[[Connection[S]], Verdict] | None = None,
    max_connections: int = MAX_CONNECTIONS,
    max_total_requests: int = MAX_TOTAL_REQUESTS,
    max_handshakes: int = MAX_HANDSHAKES,
    **options: Unpack[ConnectionOptions],
) -> Opening[Server[S, str]]:
    """Serve a router over a Unix socket. Everything else is as with `serve`.

    A socket that an earlier server left behind at the path is replaced. The file is removed when
    the server closes.

    Args:
        router: answers what clients ask.
        path: where to make the socket; about 100 bytes at the most, by the system's rule.
        ssl: a server's context for TLS.
        admit: as for `serve`.
        max_connections: as for `serve`.
        max_total_requests: as for `serve`.
        max_handshakes: as for `serve`.
        options: see `ConnectionOptions`.

    Raises:
        OSError: there is something at the path that is no socket, or it can't be made there.
    """

    async def open_server() -> Server[S, str]:
        server: Server[S, str] = Server(
            router,
            admit=admit,
            max_connections=max_connections,
            max_total_requests=max_total_requests,
            max_handshakes=max_handshakes,
            ssl=ssl,
            **options,
        )
        return server._listen([listen_unix(path)])

    return Opening(open_server())


def run(
    router: Router[S],
    host: str | Sequence[str] | None,
    port: int,
    *,
    ssl: SSLContext | None = None,
    admit: Callable[[Connection[S]], Verdict] | None = None,
    max_connections: int = MAX_CONNECTIONS,
    max_total_requests: int = MAX_TOTAL_REQUESTS,
    max_handshakes: int = MAX_HANDSHAKES,
    **options: Unpack[ConnectionOptions],
) -> None:
    """Serve a router over TCP until SIGINT or SIGTERM, then close it decently.

    It is the whole program: it starts the event loop (uvloop's where that is installed) and says
    on the `typed_amp` logger where it listens. A second signal cancels the responders that are
    still running. What there is in memory when it begins is left out of later collections of
    garbage (`gc.freeze`). To be called from the main thread.

    Args:
        router: answers what clients ask.
        host: as for `serve`.
        port: as for `serve`.
        ssl: as for `serve`.
        admit: as for `serve`.
        max_connections: as for `serve`.
        max_total_requests: as for `serve`.
        max_handshakes: as for `serve`.
        options: see `ConnectionOptions`.

    Raises:
        OSError: as `serve`.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serve(
            router,
            host,
            port,
            ssl=ssl,
            admit=admit,
            max_connections=max_connections,
            max_total_requests=max_total_requests,
            max_handshakes=max_handshakes,
            **options,
        ) as server:
            is_stopping = False

            def stop() -> None:
                nonlocal is_stopping
                server.close(drain_timeout=0 if is_stopping else None)
                is_stopping = True

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            _logger.info("serving at %s", ", ".join(map(shown, server.addresses)))
            # What the program is made of stays: a full collection of garbage, during which nobody
            # is served, need not look at it again.
            gc.collect()
            gc.freeze()
            await server.serve_forever()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Say what makes event loops here: uvloop where it is installed, None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
