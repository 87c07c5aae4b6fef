"""The other ends that tests need: two joined connections, and a socket that knows nothing of us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typing_extensions import Unpack

from typed_amp import (
    Box,
    BoxReader,
    Connection,
    ConnectionOptions,
    Limits,
    Router,
    Server,
    connect,
    connect_unix,
    encode_box,
    serve,
    serve_unix,
)
from typed_amp.testing import connection_pair

HOST = "127.0.0.1"

S = TypeVar("S")

QUESTION = {b"_ask": b"0", b"_command": b"typed-amp.capabilities"}
"""What the side that connected asks first, but for its features."""


def port_of(server: Server[Any]) -> int:
    """Give the port of a server that listens at one."""
    ((_, port),) = server.addresses
    return int(port)


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until something is so; the test's timeout bounds it."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)


def hooked_router(seen: list[str]) -> Router:
    """Make a router whose hooks note that a connection has begun, and that it has ended."""
    router = Router()

    @router.on_connect
    async def begun(_: Connection) -> None:
        seen.append("begun")

    @router.on_disconnect
    async def ended(_: Connection) -> None:
        seen.append("ended")

    return router


async def settled(turns: int = 50) -> None:
    """Let the event loop turn so often that whatever can go on without help has gone on."""
    for _ in range(turns):
        await asyncio.sleep(0)


def knows_all(connection: Connection[Any]) -> bool:
    """Say whether it knows that its peer is a typed_amp program."""
    features = connection._link.features
    return (
        features.has_cancel
        and features.has_closing
        and features.has_deadlines
        and features.has_details
    )


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it is."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@asynccontextmanager
async def joined(
    router: Router[S],
    client_router: Router[Any] | None = None,
    *,
    limits: Limits | None = None,
    drain_timeout: float = 0,
) -> AsyncIterator[tuple[Connection[Any], Connection[S]]]:
    """Join two connections over TCP: the client's end and the server's."""
    client_router = client_router or Router()
    async with (
        serve(router, HOST, 0, limits=limits, drain_timeout=drain_timeout) as server,
        connect(
            HOST,
            port_of(server),
            router=client_router,
            limits=limits,
            drain_timeout=drain_timeout,
        ) as client,
    ):
        await until(lambda: server.connections)
        (accepted,) = server.connections
        yield client, accepted


@asynccontextmanager
async def joined_by(
    kind: str,
    router: Router[S],
    client_router: Router[Any] | None = None,
    *,
    drain_timeout: float = 0,
) -> AsyncIterator[tuple[Connection[Any], Connection[S]]]:
    """Join two connections over "tcp", over a "unix" socket or in "memory".

    Both the certificate's names fit: "localhost" over Unix, 127.0.0.1 over TCP. In memory nobody
    says a name.
    """
    client_router = client_router or Router()
    if kind == "memory":
        async with connection_pair(
            router, client_router=client_router, drain_timeout=drain_timeout
        ) as pair:
            yield pair
    elif kind == "tcp":
        async with joined(router, client_router, drain_timeout=drain_timeout) as pair:
            yield pair
    else:
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory, "amp"))
            async with (
                serve_unix(router, path, drain_timeout=drain_timeout) as server,
                connect_unix(
                    path,
                    router=client_router,
                    server_hostname="localhost",
                    drain_timeout=drain_timeout,
                ) as client,
            ):
                await until(lambda: server.connections)
                (accepted,) = server.connections
                yield client, accepted


class RawPeer:
    """A socket that writes what it is told, and reads when it is told.

    Both its buffers in the kernel are small, so that what it doesn't read soon waits at the other
    end.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        # Small boxes are to arrive one by one, as they are written.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._loop = asyncio.get_running_loop()
        self._reader = BoxReader()
        self._boxes: deque[Box] = deque()

    async def write(self, data: bytes) -> None:
        """Write bytes; returns when the system has taken them."""
        await self._loop.sock_sendall(self.socket, data)

    def write_now(self, data: bytes) -> int:
        """Write what the system takes at once, and say how much that was."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    async def read(self) -> bytes:
        """Read bytes, whatever they are; none at the end."""
        return await self._loop.sock_recv(self.socket, 65_536)

    async def send(self, *boxes: Box) -> None:
        """Write boxes, all in one piece."""
        await self.write(b"".join(encode_box(box) for box in boxes))

    async def receive(self) -> Box:
        """Read the next box.

        Raises:
            EOFError: the other end closed instead.
        """
        while not self._boxes:
            data = await self.read()
            if not data:
                raise EOFError
            self._boxes += self._reader.feed(data)
        return self._boxes.popleft()

    async def ask(self, box: Box) -> Box:
        """Send a box and read the next one."""
        await self.send(box)
        return await self.receive()

    async def receive_all(self) -> list[Box]:
        """Read boxes until the other end closes, and close as well."""
        boxes = []
        try:
            while True:
                boxes.append(await self.receive())
        except EOFError:
            self.socket.close()
            return boxes

    async def is_at_end(self) -> bool:
        """Say whether the other end closes now, and close as well."""
        return not await self.receive_all()

    def reset(self) -> None:
        """Close with a reset, as the kernel of a machine that crashed would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class SecurePeer:
    """What a raw peer becomes with TLS: it encrypts by itself, with nothing of asyncio's.

    Args:
        peer: in the clear.
        context: of its side.
        server_hostname: the name to check; None makes it TLS's server.
    """

    def __init__(
        self, peer: RawPeer, context: ssl.SSLContext, server_hostname: str | None = None
    ) -> None:
        self._peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._reader = BoxReader()
        self._boxes: deque[Box] = deque()
        self.piece_size = 1_000_000
        """How many bytes it writes at once."""

    def hello(self) -> bytes:
        """Give the first bytes of a client's handshake instead of writing them."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._object.do_handshake()
        return self._outgoing.read()

    async def shake_hands(self, received: bytes = b"") -> None:
        """Shake hands.

        Args:
            received: what was read already of the other end's side.

        Raises:
            ssl.SSLError: the other end is refused, or refuses.
            EOFError: the other end closed instead.
        """
        self._incoming.write(received)
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._read_on()
            else:
                await self._flush()
                return

    async def send(self, *boxes: Box) -> None:
        self._object.write(b"".join(encode_box(box) for box in boxes))
        await self._flush()

    async def receive(self) -> Box:
        while not self._boxes:
            try:
                data = self._object.read(65_536)
            except ssl.SSLWantReadError:
                await self._read_on()
                continue
            if not data:
                raise EOFError
            self._boxes += self._reader.feed(data)
        return self._boxes.popleft()

    async def ask(self, box: Box) -> Box:
        await self.send(box)
        return await self.receive()

    async def _flush(self) -> None:
        data = self._outgoing.read()
        for i in range(0, len(data), self.piece_size):
            await self._peer.write(data[i : i + self.piece_size])
            await asyncio.sleep(0)

    async def _read_on(self) -> None:
        data = await self._peer.read()
        if not data:
            raise EOFError
        self._incoming.write(data)


@asynccontextmanager
async def raw_client(server: Server[Any]) -> AsyncIterator[RawPeer]:
    """Connect to a server with no more than a socket."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port_of(server)))
        yield RawPeer(sock)


@asynccontextmanager
async def raw_client_of(
    router: Router[S], **options: Unpack[ConnectionOptions]
) -> AsyncIterator[tuple[RawPeer, Connection[S]]]:
    """Serve a router to one raw peer, with no time to drain unless told otherwise.

    Gives the peer and our end.
    """
    options = {"drain_timeout": 0, **options}
    async with (
        serve(router, HOST, 0, **options) as server,
        raw_client(server) as peer,
    ):
        await until(lambda: server.connections)
        (connection,) = server.connections
        yield peer, connection


@asynccontextmanager
async def raw_server_of(
    router: Router[Any] | None = None, **options: Unpack[ConnectionOptions]
) -> AsyncIterator[tuple[Connection[Any], RawPeer]]:
    """Connect to a raw peer; gives our end and the peer.

    Plain AMP, and no time to drain, unless told otherwise.
    """
    plain: ConnectionOptions = {"extensions": False, "drain_timeout": 0, **options}
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        listener.bind((HOST, 0))
        listener.listen()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        async with connect(
            HOST,
            listener.getsockname()[1],
            router=router or Router(),
            **plain,
        ) as connection:
            sock, _ = await loop.sock_accept(listener)
            with sock:
                yield connection, RawPeer(sock)


class LogCapture(logging.Handler):
    """What went to the `typed_amp` logger."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def lines(self, level: int = logging.WARNING) -> list[str]:
        """Give the messages of a level and above, formatted, with their tracebacks."""
        formatter = logging.Formatter("%(message)s")
        return [formatter.format(record) for record in self.records if record.levelno >= level]

    def only_line(self) -> str:
        """Give the one message that there is."""
        (line,) = self.lines()
        return line


@contextmanager
def captured_log() -> Iterator[LogCapture]:
    """Catch what goes to the `typed_amp` logger, its debug messages too."""
    logger = logging.getLogger("typed_amp")
    capture = LogCapture()
    level = logger.level
    logger.addHandler(capture)
    logger.setLevel(logging.DEBUG)
    try:
        yield capture
    finally:
        logger.removeHandler(capture)
        logger.setLevel(level)
