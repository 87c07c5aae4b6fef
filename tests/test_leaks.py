"""Nothing stays of a connection that is gone, nor of a call that is over."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.example_commands import Buy, Echo, Log, Repeat, Text, Wait, example_router
from tests.leftovers import descriptors
from tests.peers import HOST, joined, port_of, raw_client, raw_server_of, settled, until
from typed_amp import (
    AmpError,
    CallTimeoutError,
    Connection,
    Router,
    connect,
    connect_unix,
    serve,
    serve_unix,
)
from typed_amp.testing import connection_pair


def full_router() -> Router:
    """Make a router with hooks, and with responders of every outcome."""
    router = example_router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise KeyError(command.sku)

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await asyncio.Event().wait()
        return Text(text="never")

    @router.responder(Log)
    async def note(command: Log) -> None:
        pass

    @router.on_connect
    async def meet(connection: Connection) -> None:
        await asyncio.sleep(0)

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        await asyncio.sleep(0)

    return router


async def use(client: Connection) -> None:
    """Call in every way, and end as it may be."""
    assert await client.call(Repeat(text="ab")) == Text(text="ab")
    await client.call(Log(line=b""))
    with pytest.raises(KeyError):
        await client.call(Buy())
    with pytest.raises(CallTimeoutError):
        await client.call(Wait(), timeout=0)
    call = asyncio.create_task(client.call(Wait()))
    await settled(2)
    call.cancel()
    await asyncio.wait([call])


def ours() -> list[object]:
    """Find what the garbage collector holds of what a connection is made of."""
    gc.collect()
    return [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, (asyncio.BaseTransport, asyncio.Task))
        or (
            str(type(thing).__module__).startswith("typed_amp.")
            and type(thing).__name__
            in {"Connection", "Server", "Dialogue", "Responses", "BoxWriter", "BoxReader", "Asked"}
        )
    ]


async def stays_level(scenario: Callable[[], Awaitable[None]], times: int = 5) -> None:
    """Run a scenario once, then more often, and see that nothing grows with it."""
    asyncio.get_running_loop().set_debug(False)
    logging.disable()  # pytest keeps what is logged, and so what it was logged of
    try:
        await measure(scenario, times)
    finally:
        logging.disable(logging.NOTSET)


async def measure(scenario: Callable[[], Awaitable[None]], times: int) -> None:
    await scenario()
    await settled()
    things, files, tasks = len(ours()), len(descriptors()), len(asyncio.all_tasks())
    for _ in range(times):
        await scenario()
    await settled()
    assert len(ours()) <= things
    assert len(descriptors()) <= files
    assert len(asyncio.all_tasks()) <= tasks


async def test_connections_over_tcp() -> None:
    async with serve(full_router(), HOST, 0, drain_timeout=0) as server:

        async def scenario() -> None:
            router = full_router()
            async with connect(HOST, port_of(server), router=router, drain_timeout=0) as client:
                await use(client)
            await until(lambda: not server.connections)

        await stays_level(scenario)


async def test_servers_over_unix(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            serve_unix(full_router(), tmp_path / "socket", drain_timeout=0),
            connect_unix(tmp_path / "socket") as client,
        ):
            await use(client)

    await stays_level(scenario)


async def test_connections_over_tls(certificates: Certificates) -> None:
    async def scenario() -> None:
        async with (
            serve(full_router(), HOST, 0, ssl=certificates.server, drain_timeout=0) as server,
            connect(HOST, port_of(server), ssl=certificates.client) as client,
        ):
            await use(client)

    await stays_level(scenario)


async def test_connections_in_memory() -> None:
    async def scenario() -> None:
        async with connection_pair(full_router(), drain_timeout=0) as (client, _):
            await use(client)

    await stays_level(scenario)


async def test_peers_that_end_badly() -> None:
    async with serve(full_router(), HOST, 0, drain_timeout=0) as server:

        async def scenario() -> None:
            async with raw_client(server) as peer:
                await peer.send({b"_ask": b"1", b"_command": b"Wait"})
                await peer.write(b"\0\4half")
                peer.reset()
            async with raw_client(server) as peer:
                await peer.write(b"GET / HTTP/1.1\r\n\r\n")
                await peer.receive_all()
            await until(lambda: not server.connections)

        await stays_level(scenario)


async def test_connections_that_never_come_about() -> None:
    failing = Router()

    @failing.on_connect
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError

    async with serve(Router(), HOST, 0) as closed:
        pass
    async with serve(Router(), HOST, 0) as server:

        async def scenario() -> None:
            with pytest.raises(OSError):
                await connect(HOST, port_of(closed))
            with pytest.raises(AmpError):
                await connect(HOST, port_of(server), router=failing)
            await until(lambda: not server.connections)

        await stays_level(scenario)


async def test_calls_on_one_connection() -> None:
    asyncio.get_running_loop().set_debug(False)
    async with joined(full_router()) as (client, server):

        async def calls(count: int) -> int:
            for _ in range(count):
                await use(client)
            for _ in range(3):
                await client.call(Repeat(text=""))
            server._link.responses.cancel()  # those of Wait, whose callers gave up
            await until(lambda: not server._link.responses.running)
            await settled()
            gc.collect()
            return sys.getallocatedblocks()

        before = await calls(20)
        assert await calls(200) - before < 500
        assert client._link.dialogue.pending == 0
        assert server._link.dialogue.unanswered == 0


async def test_calls_that_waited_their_turn() -> None:
    async with raw_server_of() as (connection, peer):
        tasks: list[asyncio.Task[Any]] = []
        while len(connection._link.writer.held()) < 5:
            command: Any = Log(line=bytes(60_000)) if len(tasks) % 2 else Echo(data=bytes(60_000))
            tasks.append(asyncio.create_task(connection.call(command)))
            await settled(3)
        for _ in tasks:
            box = await peer.receive()
            if b"_ask" in box:
                await peer.send({b"_answer": box[b"_ask"], b"data": b""})
        await asyncio.wait(tasks)
        assert not connection._link.writer.held()
        assert not connection._link.calls._untold
        assert connection._link.dialogue.pending == 0


async def test_closed_connection_is_freed() -> None:
    asyncio.get_running_loop().set_debug(False)
    async with serve(full_router(), HOST, 0) as server:
        connection = await connect(HOST, port_of(server))
        await connection.call(Repeat(text=""))
        gone = weakref.ref(connection)
        connection.close()
        await connection.wait_closed()
        await settled()
        del connection
        gc.collect()
        assert gone() is None
