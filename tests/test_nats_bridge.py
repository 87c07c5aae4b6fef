"""From plain AMP to a service in NATS, by connections of our own. See also `tests/interop`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.nats_servers import NatsServer, nats_server
from tests.nats_services import (
    QUICK,
    Buy,
    Left,
    Note,
    Nowhere,
    OutOfStock,
    Repeat,
    Service,
    Text,
    Wait,
    WaitAgain,
    joined_by_nats,
)
from tests.peers import joined, until
from typed_amp import (
    CallTimeoutError,
    Connection,
    NotAllowedError,
    RemoteAmpError,
    Router,
    UnhandledCommandError,
    connect_nats,
    nats_bridge,
    serve_nats,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_calls_cross_the_bridge(nats: NatsServer) -> None:
    service = Service()
    async with (
        joined_by_nats(service.router, nats.url) as (client, _),
        joined(nats_bridge(client)) as (connection, _),
    ):
        assert await connection.call(Repeat(text="ab", times=2)) == Text(text="abab")
        with pytest.raises(OutOfStock) as error:
            await connection.call(Buy(sku="teapot"))
        assert error.value.left == 2
        with pytest.raises(NotAllowedError, match="say what"):
            await connection.call(Buy(sku=""))
        await connection.call(Note(line="a line"))
        assert await service.notes.get() == "a line"
        with pytest.raises(UnhandledCommandError, match="nobody in the cluster answers Nowhere"):
            await connection.call(Nowhere())
        assert await connection.call(Repeat(text="on")) == Text(text="on")


async def test_what_nats_cannot_carry_is_told(nats: NatsServer) -> None:
    async with (
        joined_by_nats(Service().router, nats.url) as (client, _),
        joined(nats_bridge(client)) as (connection, _),
    ):
        with pytest.raises(RemoteAmpError, match=r"NOT_OVER_NATS: Repeat is .* max_payload"):
            await connection.call(Repeat(text="x" * 1_100_000))
        with pytest.raises(RemoteAmpError, match=r"NOT_OVER_NATS: the answer to Repeat is .* max"):
            await connection.call(Repeat(text="x" * 1_000, times=2_000))
        with pytest.raises(RemoteAmpError, match="NOT_OVER_NATS: StartTLS"):
            await connection.start_tls()
        assert await connection.call(Repeat(text="on")) == Text(text="on")


async def test_deadline_crosses_the_bridge(nats: NatsServer) -> None:
    service = Service()
    async with (
        joined_by_nats(service.router, nats.url) as (client, _),
        joined(nats_bridge(client)) as (connection, _),
    ):
        await connection.call(Repeat(text="extensions are known"))
        left = (await connection.call(Left(), timeout=3)).seconds
        assert left is not None
        assert left <= 3
        with pytest.raises(CallTimeoutError):
            await connection.call(Wait(text="a"), timeout=0.1)
        await until(lambda: service.cancelled == ["a"])


async def test_nobody_in_time_is_a_timeout(nats: NatsServer) -> None:
    service = Service()
    async with (
        serve_nats(service.router, nats.url, service="calc"),
        connect_nats(nats.url, service="calc", call_timeout=0.1) as client,
        joined(nats_bridge(client)) as (connection, _),
    ):
        with pytest.raises(RemoteAmpError, match="TIMEOUT: nobody answered in time"):
            await connection.call(Wait(text="a"))


async def test_lost_cluster_is_told(tmp_path: Path) -> None:
    service = Service()
    with nats_server(tmp_path) as server:
        async with (
            serve_nats(service.router, server.url, service="calc", drain_timeout=0),
            connect_nats(server.url, service="calc") as client,
            joined(nats_bridge(client)) as (connection, _),
        ):
            call = asyncio.ensure_future(connection.call(Wait(text="a")))
            await service.began.get()
            server.kill()
            with pytest.raises(RemoteAmpError, match="CONNECTION_LOST"):
                await call
            client.close()
            with pytest.raises(RemoteAmpError, match="BUSY: the cluster is not there"):
                await connection.call(Repeat(text="a"))


async def test_idempotent_commands_are_those_that_are_named(nats: NatsServer) -> None:
    service = Service()
    async with (
        serve_nats(service.router, nats.url, service="calc") as serving,
        connect_nats(nats.url, service="calc", resend_after=0.02, backoff=QUICK) as client,
        joined(nats_bridge(client, idempotent=[WaitAgain])) as (connection, _),
    ):
        once = asyncio.ensure_future(connection.call(Wait(text="once")))
        await service.began.get()
        again = asyncio.ensure_future(connection.call(WaitAgain(text="again")))
        await until(lambda: serving.counters.strays >= 3)
        service.gate.set()
        assert await once == Text(text="once")
        assert await again == Text(text="again")
        assert service.began.qsize() == 1


async def test_guard_decides_who_crosses(nats: NatsServer) -> None:
    async with joined_by_nats(Service().router, nats.url) as (client, _):
        private = Router()
        private.include(nats_bridge(client))

        @private.guard
        def only_repeat(connection: Connection, name: str) -> None:
            if name != "Repeat":
                raise NotAllowedError("not that")

        async with joined(private) as (connection, _):
            assert await connection.call(Repeat(text="ab")) == Text(text="ab")
            with pytest.raises(NotAllowedError, match="not that"):
                await connection.call(Nowhere())
