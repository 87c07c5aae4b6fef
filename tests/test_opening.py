from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from typed_amp import Connection, Router, Server, connect, serve
from typed_amp.opening import Opening


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(Router(), "127.0.0.1", 0) as server:
        yield server


def to(server: Server) -> Opening[Connection]:
    address = server.addresses[0]
    assert isinstance(address, tuple)
    return connect(*address)


async def test_awaited_it_is_open_until_somebody_closes_it(server: Server) -> None:
    connection = await to(server)
    assert not connection.is_closed
    connection.close()
    await connection.wait_closed()


async def test_entered_it_is_closed_at_the_end(server: Server) -> None:
    async with to(server) as connection:
        assert not connection.is_closed
    assert connection.is_closed
    await connection.wait_closed()


async def test_entered_it_is_closed_though_the_body_fails(server: Server) -> None:
    opened: list[Connection] = []
    with pytest.raises(ZeroDivisionError):
        async with to(server) as connection:
            opened.append(connection)
            raise ZeroDivisionError
    assert [connection.is_closed for connection in opened] == [True]


async def test_entered_it_is_closed_though_the_body_is_cancelled(server: Server) -> None:
    opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def body() -> None:
        async with to(server) as connection:
            opened.set_result(connection)
            await connection.wait_closed()

    task = asyncio.create_task(body())
    connection = await opened
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.is_closed


async def test_server_is_entered_likewise() -> None:
    async with serve(Router(), "127.0.0.1", 0) as server:
        async with to(server):
            pass
        opening = to(server)
    with pytest.raises(OSError):
        await opening


async def test_body_is_not_run_if_it_can_not_be_opened() -> None:
    async with serve(Router(), "127.0.0.1", 0) as server:
        opening = to(server)
    with pytest.raises(OSError):
        async with opening:
            pytest.fail("nothing listens there any more")


async def test_it_is_opened_once(server: Server) -> None:
    opening = to(server)
    async with opening:
        with pytest.raises(RuntimeError):
            await opening


async def test_it_serves_wherever_an_awaitable_does(server: Server) -> None:
    first = await asyncio.wait_for(to(server), 60)
    second, third = await asyncio.gather(to(server), to(server))
    async with AsyncExitStack() as stack:
        for connection in (first, second, third):
            await stack.enter_async_context(connection)
        fourth = await stack.enter_async_context(to(server))
    assert all(connection.is_closed for connection in (first, second, third, fourth))


async def test_nothing_is_opened_before_it_is_awaited(server: Server) -> None:
    opening = to(server)
    async with to(server):
        assert len(server.connections) == 1
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del opening
