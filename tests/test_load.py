from __future__ import annotations

import asyncio

import pytest

from tests.example_commands import Buy, OutOfStock, Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import HOST, port_of, settled, until
from typed_amp import Client, CommandError, ConnectionLostError, EncodeError, serve
from typed_amp.load import Load, code_of


async def test_so_many_calls_are_made_and_so_many_at_a_time() -> None:
    gate = Gate()
    async with serve(gate.router, HOST, 0) as server, Client(HOST, port_of(server)) as client:
        load = Load([client], Wait(key=1), repeat=5, in_flight=3, timeout=None)
        running = asyncio.create_task(load.run())
        await until(lambda: server.counters.requests_in_flight == 3)
        await settled()
        assert server.counters.requests_in_flight == 3
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert load.result.done == 0
        assert load.result.seconds > 0


async def test_errors_are_counted_and_do_not_end_it() -> None:
    router = example_router()
    bought = 0

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        nonlocal bought
        bought += 1
        if bought % 3 == 0:
            raise OutOfStock(sku="tea")
        if bought % 3 == 1:
            raise KeyError("tea")
        return Text(text="tea")

    async with serve(router, HOST, 0) as server, Client(HOST, port_of(server)) as client:
        load = Load([client], Buy(), repeat=30, in_flight=4, timeout=5)
        await load.run()
    assert bought == 30
    assert load.result.errors == {"OUT_OF_STOCK": 10, "NO_SUCH_SKU": 10}
    assert load.result.latency.count == 10
    assert load.result.done == 30
    assert load.result.rate == 30 / load.result.seconds


async def test_what_can_never_be_sent_is_an_error_at_once() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        Client(HOST, port_of(server)) as client,
    ):
        load = Load([client], Repeat(text="x" * 70_000), repeat=9, in_flight=3, timeout=None)
        with pytest.raises(EncodeError):
            await load.run()


async def test_a_client_that_has_given_up_ends_it() -> None:
    server = await serve(example_router(), HOST, 0)
    async with Client(HOST, port_of(server), attempts=1) as client:
        server.close(drain_timeout=0)
        await server.wait_closed()
        load = Load([client], Repeat(text="a"), repeat=1_000_000, in_flight=2, timeout=None)
        await load.run()
        assert 0 < load.result.done <= 4
        assert set(load.result.errors) == {"CONNECTION_LOST"}


def test_errors_have_the_codes_of_the_wire() -> None:
    class Thin(OutOfStock):
        pass

    assert code_of(Buy(), Thin(sku="a")) == "OUT_OF_STOCK"
    assert code_of(Buy(), ConnectionLostError("gone")) == "CONNECTION_LOST"
    assert issubclass(Thin, CommandError)
