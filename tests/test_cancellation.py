"""One test for each place where a task can be cancelled while it waits; and the state then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.example_commands import Echo, Log, Repeat, Text, Wait, example_router
from tests.peers import HOST, cancel, joined, port_of, raw_client_of, raw_server_of, settled, until
from typed_amp import Connection, Router, Server, connect, serve, serve_unix

LARGE = bytes(60_000)


async def works(connection: Connection[Any]) -> bool:
    return await connection.call(Repeat(text="ab")) == Text(text="ab")


def endless_router() -> tuple[Router, list[str]]:
    """Make a router whose Wait goes on until it is cancelled, and the list of what became of it."""
    router = example_router()
    events: list[str] = []

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")
        return Text(text="")

    return router, events


async def test_call_that_waits_for_its_answer() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="given up")))
        tag = (await peer.receive())[b"_ask"]
        await cancel(call)
        assert connection._link.dialogue.pending == 0
        # A plain peer is told nothing, and its late answer is ignored.
        await peer.send({b"_answer": tag, b"text": b"late"})
        again = asyncio.create_task(connection.call(Repeat(text="ab")))
        box = await peer.receive()
        assert box[b"text"] == b"ab"
        assert box[b"_ask"] != tag
        await peer.send({b"_answer": box[b"_ask"], b"text": b"ab"})
        assert await again == Text(text="ab")
        assert connection._link.dialogue.late == 1


async def test_call_whose_answer_is_here_already() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="")))
        tag = (await peer.receive())[b"_ask"]
        await peer.send({b"_answer": tag, b"text": b""})
        await until(lambda: connection._link.dialogue.pending == 0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert connection._link.dialogue.strays == 0
        assert not connection.is_closed


@pytest.mark.parametrize("command", [Repeat(text="never"), Log(line=b"never")])
async def test_call_that_waits_its_turn_is_never_sent(command: Any) -> None:
    async with raw_server_of() as (connection, peer):
        tasks: list[asyncio.Task[Any]] = []
        while not connection._link.writer.held():
            tasks.append(asyncio.create_task(connection.call(Echo(data=LARGE))))
            await settled(3)
        pending = connection._link.dialogue.pending
        call = asyncio.create_task(connection.call(command))
        await settled()
        await cancel(call)
        assert connection._link.dialogue.pending == pending
        assert len(connection._link.writer.held()) == 1
        assert not connection._link.calls._untold
        last = asyncio.create_task(connection.call(Repeat(text="last")))
        names: list[bytes] = []
        while (box := await peer.receive()).get(b"text") != b"last":
            names.append(box[b"_command"])
        assert names == [b"Echo"] * len(tasks)
        for task in [*tasks, last]:
            task.cancel()
        await asyncio.wait([*tasks, last])


async def test_wait_closed_of_a_connection() -> None:
    async with joined(example_router()) as (client, _):
        await cancel_once_waiting(client.wait_closed())
        assert await works(client)


async def cancel_once_waiting(waiting: Any) -> None:
    task = asyncio.create_task(waiting)
    await settled()
    await cancel(task)


async def test_leaving_the_block_of_a_connection_that_drains() -> None:
    router, events = endless_router()
    async with joined(example_router(), router, drain_timeout=60) as (client, server):
        call = asyncio.create_task(server.call(Wait()))
        await until(lambda: events)

        async def leave() -> None:
            async with client:
                pass

        await cancel_once_waiting(leave())
        # Only the waiting has stopped: it is still draining.
        assert "closing" in repr(client)
        assert events == ["begun"]
        client.close(drain_timeout=0)
        await asyncio.wait([call])
        assert call.exception() is not None


async def test_wait_closed_and_serve_forever_of_a_server() -> None:
    server = await serve(example_router(), HOST, 0)
    await cancel_once_waiting(server.wait_closed())
    async with connect(HOST, port_of(server)) as client:
        assert await works(client)
        await cancel_once_waiting(server.serve_forever())
        await client.wait_closed()
    assert not server.connections
    with pytest.raises(OSError):
        await connect(HOST, port_of(server))


async def test_serve_forever_drains_though_cancelled() -> None:
    gate = asyncio.Event()
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await gate.wait()
        return Text(text="drained")

    server = await serve(router, HOST, 0, drain_timeout=60)
    serving = asyncio.create_task(server.serve_forever())
    async with connect(HOST, port_of(server)) as client:
        call = asyncio.create_task(client.call(Wait()))
        await until(lambda: server.connections and server.connections[0]._link.responses.running)
        serving.cancel()
        await settled()
        assert not serving.done()
        gate.set()
        assert await call == Text(text="drained")
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_connect_before_the_connection_is_there() -> None:
    async with serve(example_router(), HOST, 0) as server:
        task = asyncio.create_task(connect_and_close(port_of(server)))
        await asyncio.sleep(0)
        await cancel(task)
        await drop_all(server)


async def drop_all(server: Server[Any]) -> None:
    """Wait until a server has met and lost whoever came, those it hasn't accepted yet too."""
    async with connect(HOST, port_of(server)) as last:
        assert await works(last)
    await until(lambda: not server.connections)


async def connect_and_close(port: int) -> None:
    async with connect(HOST, port):
        pass


@pytest.mark.parametrize("turns", range(8))
async def test_connect_at_any_time(turns: int) -> None:
    router = Router()

    @router.on_connect
    async def hook(connection: Connection) -> None:
        await asyncio.sleep(0)
        await connection.call(Repeat(text=""))

    async with serve(example_router(), HOST, 0) as server:

        async def open_it() -> Connection:
            return await connect(HOST, port_of(server), router=router)

        task = asyncio.create_task(open_it())
        await settled(turns)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result().close()
        await drop_all(server)


async def test_serve_before_the_socket_is_there(tmp_path: Path) -> None:
    async def serve_it() -> None:
        async with serve_unix(Router(), tmp_path / "socket"):
            await asyncio.Event().wait()

    task = asyncio.create_task(serve_it())
    await asyncio.sleep(0)
    await cancel(task)
    async with serve_unix(Router(), tmp_path / "socket") as server:
        assert server.addresses


async def test_responder_when_the_connection_goes() -> None:
    router, events = endless_router()
    async with raw_client_of(router) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await until(lambda: events)
        peer.socket.close()
        await connection.wait_closed()
        assert events == ["begun", "ended"]
        assert connection._link.responses.running == 0


async def test_responder_that_calls_when_the_connection_goes() -> None:
    outcomes: list[BaseException] = []
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait, connection: Connection) -> Text:
        try:
            return await connection.call(Repeat(text=""))
        except BaseException as error:
            outcomes.append(error)
            raise

    async with raw_client_of(router) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await peer.receive()
        peer.socket.close()
        await connection.wait_closed()
        assert len(outcomes) == 1
        assert connection._link.dialogue.pending == 0


async def test_responder_whose_cleaning_up_takes_time_is_waited_for() -> None:
    cleaned = asyncio.Event()
    may_end = asyncio.Event()
    begun = asyncio.Event()
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()
            cleaned.set()
        return Text(text="")

    async with raw_client_of(router, drain_timeout=60) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await begun.wait()
        peer.socket.close()
        await until(lambda: connection.is_closed)
        waiting = asyncio.create_task(connection.wait_closed())
        await settled()
        assert not waiting.done()
        may_end.set()
        await waiting
        assert cleaned.is_set()


async def test_hook_of_on_disconnect_that_raises_cancelled_does_not_keep_others_from_running() -> (
    None
):
    events: list[str] = []
    router = example_router()

    @router.on_disconnect
    async def first(connection: Connection) -> None:
        raise asyncio.CancelledError

    @router.on_disconnect
    async def second(connection: Connection) -> None:
        events.append("second")

    async with raw_client_of(router) as (peer, connection):
        peer.socket.close()
        await connection.wait_closed()
        assert events == ["second"]
