"""Pools of connections, under load, while their servers are killed and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from tests.peers import HOST, until
from tests.places import QUICK, free_port
from tests.programs import Program
from tests.test_client_under_load import Load, carried_out, standby
from typed_amp import ConnectionPool, connect_pool
from typed_amp.balancing import BALANCES, Balance

IN_FLIGHT = 200


async def three_servers(stack: contextlib.AsyncExitStack, directory: Path) -> dict[int, Program]:
    """Start them, each at a port of its own."""
    servers: dict[int, Program] = {}
    for _ in range(3):
        port = free_port()
        servers[port] = await stack.enter_async_context(standby())
        servers[port].type(f"{port} {directory / f'{port}.log'}")
    return servers


async def opened(servers: dict[int, Program], balance: Balance) -> ConnectionPool:
    addresses = [(HOST, port) for port in servers]
    return await connect_pool(addresses, backoff=QUICK, balance=balance)


@pytest.mark.parametrize("balance", BALANCES)
async def test_servers_killed_under_load_lose_no_idempotent_call(
    balance: Balance, tmp_path: Path
) -> None:
    async with asyncio.timeout(50), contextlib.AsyncExitStack() as stack:
        servers = await three_servers(stack, tmp_path)
        pool = await stack.enter_async_context(await opened(servers, balance))
        await pool.wait_connected(3)
        load = Load(pool)
        async with load.of(IN_FLIGHT):
            for number, port in enumerate([*servers]):
                following = await stack.enter_async_context(standby())
                await load.goes_on()
                await pool.wait_connected(3)
                servers[port].kill()
                await servers[port].rest()
                await load.goes_on()  # the others answer meanwhile
                assert len(pool.connections) == 2
                servers[port] = following
                following.type(f"{port} {tmp_path / f'{number}.log'}")
                await pool.wait_connected(3)  # it is back
            await load.goes_on()

    counted = carried_out(tmp_path)
    assert len(load.succeeded) + len(load.failed) == load.made
    assert all(key % 2 == 0 for key in load.failed)  # those that are idempotent all succeeded
    assert load.failed
    for key, error in load.failed.items():
        assert error.was_sent
        assert str(error).startswith("Once: the connection to ")
        assert counted[key] <= 1
    for key in load.succeeded:
        assert counted[key] == 1 if key % 2 == 0 else counted[key] >= 1
    assert max(counted.values()) > 1  # some were indeed sent again


@pytest.mark.parametrize("balance", BALANCES)
async def test_servers_replaced_under_load_lose_no_call(balance: Balance, tmp_path: Path) -> None:
    async with asyncio.timeout(50), contextlib.AsyncExitStack() as stack:
        servers = await three_servers(stack, tmp_path)
        pool = await stack.enter_async_context(await opened(servers, balance))
        load = Load(pool)
        async with load.of(IN_FLIGHT):
            for number, port in enumerate([*servers]):
                following = await stack.enter_async_context(standby())
                await pool.wait_connected(3)
                await load.goes_on()
                assert await servers[port].stop() == ""  # SIGTERM: it ends when all are answered
                assert servers[port].exit_code == 0
                servers[port] = following
                following.type(f"{port} {tmp_path / f'{number}.log'}")
            await pool.wait_connected(3)
            await load.goes_on()

    assert load.failed == {}
    assert carried_out(tmp_path) == dict.fromkeys(load.succeeded, 1)
    assert len(load.succeeded) == load.made


async def test_a_server_that_is_stopped_is_avoided(tmp_path: Path) -> None:
    async with asyncio.timeout(50), contextlib.AsyncExitStack() as stack:
        servers = await three_servers(stack, tmp_path)
        addresses = [(HOST, port) for port in servers]
        pool = await stack.enter_async_context(connect_pool(addresses, keepalive=0.1))
        await pool.wait_connected(3)
        load = Load(pool)
        async with load.of(30):
            await load.goes_on()
            port, stopped = next(iter(servers.items()))
            stopped._process.send_signal(signal.SIGSTOP)
            # It says nothing, and so is given up; what is idempotent goes elsewhere.
            await until(lambda: len(pool.connections) == 2)
            await load.goes_on()
            stopped._process.send_signal(signal.SIGCONT)
            await pool.wait_connected(3)
            (back,) = [server for server in pool.servers if server.address == (HOST, port)]
            calls = back.counters.calls
            await load.goes_on()
            await until(lambda: any(each.counters.calls > calls for each in pool.servers))
    assert all(key % 2 == 0 for key in load.failed)
