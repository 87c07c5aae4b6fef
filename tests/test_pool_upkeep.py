"""Servers that join a pool and leave it."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import Counter
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, example_router
from tests.peers import LogCapture, port_of, settled, until
from tests.places import QUICK, free_port
from tests.test_connection_pool import names_of, places_named, places_of, pool_of
from tests.test_resending import Once, Serving
from typed_amp import CallTimeoutError, ClientStatus, connect_pool, serve


class Registry:
    """Says where the servers are, as a test has told it."""

    def __init__(self, *addresses: Any) -> None:
        self.addresses = [*addresses]
        self.asked = 0
        self.error: Exception | None = None

    async def __call__(self) -> list[Any]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.addresses

    async def is_asked_again(self) -> None:
        asked = self.asked
        await until(lambda: self.asked > asked + 1)


def pool_by(registry: Registry, **options: Any) -> Any:
    return connect_pool(registry, backoff=QUICK, look_up_every=0.01, **options)


async def test_servers_join_and_leave() -> None:
    async with places_named("abc") as (a, b, c):
        registry = Registry(a.address, b.address)
        async with pool_by(registry) as pool:
            await pool.wait_connected(2)
            assert Counter(await names_of(pool, 10)) == {"a": 5, "b": 5}
            registry.addresses = [b.address, c.address]
            await until(lambda: not a.connections and len(pool.connections) == 2)
            assert Counter(await names_of(pool, 10)) == {"b": 5, "c": 5}
            assert {server.address for server in pool.servers} == {b.address, c.address}
            assert pool.counters.calls == 20  # those to the server that left are not forgotten


async def test_one_that_leaves_answers_what_it_was_asked() -> None:
    leaving, staying = Serving(), Serving()
    async with places_of(leaving.router, staying.router) as (a, b):
        registry = Registry(a.address, b.address)
        async with pool_by(registry) as pool:
            await pool.wait_connected(2)
            calls = [asyncio.create_task(pool.call(Once(key=key))) for key in range(4)]
            await until(lambda: leaving.carried_out.total() == staying.carried_out.total() == 2)
            registry.addresses = [b.address]
            await until(lambda: len(pool.connections) == 1)
            calls += [asyncio.create_task(pool.call(Once(key=key))) for key in range(4, 8)]
            await until(lambda: staying.carried_out.total() == 6)
            (left,) = [server for server in pool.servers if server.address == a.address]
            assert (left.status, left.calls_in_flight) == (ClientStatus.CLOSED, 2)
            await registry.is_asked_again()
            assert a.connections
            leaving.release()
            await until(lambda: not a.connections)
            await until(lambda: len(pool.servers) == 1)
            staying.release()
            assert len(await asyncio.gather(*calls)) == 8
    assert leaving.carried_out.total() == 2


async def test_one_that_leaves_and_is_back_before_it_is_done() -> None:
    serving = Serving()
    async with places_of(serving.router, serving.router) as (a, b):
        registry = Registry(a.address, b.address)
        async with pool_by(registry) as pool:
            await pool.wait_connected(2)
            calls = [asyncio.create_task(pool.call(Once(key=key))) for key in range(2)]
            await until(lambda: serving.carried_out.total() == 2)
            registry.addresses = [b.address]
            await until(lambda: len(pool.connections) == 1)
            registry.addresses = [b.address, a.address]
            await pool.wait_connected(2)
            assert len(pool.servers) == 3
            assert len(a.connections) == 2
            serving.release()
            assert len(await asyncio.gather(*calls)) == 2
            await until(lambda: len(pool.servers) == 2 and len(a.connections) == 1)


@pytest.mark.usefixtures("nothing_left")
async def test_closing_ends_those_that_leave_too() -> None:
    serving = Serving()
    async with places_of(serving.router, serving.router) as (a, b):
        registry = Registry(a.address, b.address)
        pool = await pool_by(registry)
        await pool.wait_connected(2)
        calls = [asyncio.create_task(pool.call(Once(key=key))) for key in range(2)]
        await until(lambda: serving.carried_out.total() == 2)
        registry.addresses = [b.address]
        await until(lambda: len(pool.connections) == 1)
        pool.close()
        await pool.wait_closed()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["ConnectionLostError"] * 2


@pytest.mark.parametrize("error", [OSError("the registry is down"), LookupError("a bug"), None])
async def test_what_can_not_be_found_out_changes_nothing(
    error: Exception | None, log: LogCapture
) -> None:
    async with places_named("ab") as (a, b):
        registry = Registry(a.address)
        async with pool_by(registry) as pool:
            await registry.is_asked_again()
            registry.error = error
            registry.addresses = []
            await until(lambda: pool.state.error is not None)
            assert pool.state.error is error or str(pool.state.error) == "no address was found"
            await registry.is_asked_again()
            assert await names_of(pool, 3) == "aaa"
            registry.error = None
            registry.addresses = [b.address]
            await until(lambda: pool.state.error is None)
            await pool.wait_connected()
            assert await names_of(pool, 3) == "bbb"
    events = [vars(each) for each in log.records if vars(each).get("amp_event") == "look_up_failed"]
    assert events[0]["levelno"] == logging.WARNING
    assert {each["levelno"] for each in events[1:]} <= {logging.INFO}
    told = error or "no address was found"
    assert events[0]["message"].startswith(f"can't find servers: {told}; there are 1 as before")
    assert bool(events[0]["exc_info"]) == isinstance(error, LookupError)


async def test_calls_wait_until_servers_can_be_found() -> None:
    async with places_named("a") as (a,):
        registry = Registry()
        async with pool_by(registry, wait_for_first=False) as pool:
            with pytest.raises(CallTimeoutError) as caught:
                await pool.call(Repeat(text=""), timeout=0.05)
            assert str(caught.value.__cause__) == "no address was found"
            waiting = asyncio.create_task(names_of(pool, 1))
            await settled()
            registry.addresses = [a.address]
            assert await waiting == "a"


async def test_it_looks_at_once_when_a_server_is_lost() -> None:
    async with places_named("ab") as (a, b):
        registry = Registry(a.address)
        async with connect_pool(registry, backoff=QUICK, look_up_every=3600) as pool:
            registry.addresses = [b.address]
            await a.vanish()  # as when a machine is replaced by another
            await until(lambda: not pool.connections)
            assert await names_of(pool, 1) == "b"
            assert registry.asked == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only 127.0.0.1 is this machine there")
async def test_a_name_with_several_addresses(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    # The hosts of a network of its own: one port, and an address for each server.
    hosts = {"shop.example": ["127.0.0.1", "127.0.0.2"]}
    loop = asyncio.get_running_loop()
    system = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        found = [await system(one, port, **options) for one in hosts.get(host, [host])]
        return [address for each in found for address in each]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    tls = certificates.server_called("shop.example")
    async with serve(example_router(), "127.0.0.1", 0, ssl=tls) as first:
        port = port_of(first)
        async with (
            serve(example_router(), "127.0.0.2", port, ssl=tls),
            serve(example_router(), "127.0.0.3", port, ssl=tls) as third,
            connect_pool(
                "shop.example", port, look_up_every=0.01, backoff=QUICK, ssl=certificates.client
            ) as pool,
        ):
            await pool.wait_connected(2)
            for _ in range(4):
                assert await pool.call(Repeat(text="ab")) == Text(text="ab")
            assert [server.counters.calls for server in pool.servers] == [2, 2]
            hosts["shop.example"] = ["127.0.0.3", "127.0.0.2"]
            await until(lambda: third.connections and not first.connections)
            await pool.wait_connected(2)
            for _ in range(4):
                assert await pool.call(Repeat(text="ab")) == Text(text="ab")
            assert {server.address for server in pool.servers} == {
                ("127.0.0.3", port),
                ("127.0.0.2", port),
            }


async def test_a_name_that_is_unknown() -> None:
    name = "nowhere.invalid"
    async with connect_pool(name, free_port(), backoff=QUICK, wait_for_first=False) as pool:
        with pytest.raises(CallTimeoutError) as caught:
            await pool.call(Repeat(text=""), timeout=0.5)
        assert isinstance(caught.value.__cause__, socket.gaierror)


async def test_errors_say_what_is_wrong_with_the_first_few() -> None:
    addresses = [("127.0.0.1", free_port()) for _ in range(8)]
    pool = connect_pool(addresses, backoff=QUICK, wait_for_first=False, wait_for_connection=False)
    async with pool as opened:
        await until(lambda: all(server.failures for server in opened.servers))
        with pytest.raises(ConnectionError) as caught:
            await opened.call(Repeat(text=""))
        assert str(caught.value).count("[Errno ") == 5
        assert str(caught.value).endswith("; and 3 more")


async def test_many_pools_begin_with_different_servers() -> None:
    firsts: set[str] = set()
    async with places_named("ab") as places:
        while len(firsts) < 2:
            async with pool_of(places) as pool:
                await pool.wait_connected(2)
                firsts.add(await names_of(pool, 1))
