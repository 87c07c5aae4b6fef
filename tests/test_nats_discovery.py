"""What NATS micro's tools see of a service. nats-py's reading of the messages is the judge."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Annotated, Any

import pytest
from nats.aio.client import Client
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats, ServiceVerb, control_subject

from tests.nats_servers import NatsServer, nats_server, plain_client
from tests.nats_services import Buy, Note, OutOfStock, Repeat, Service, joined_by_nats
from tests.peers import until
from typed_amp import Codec, Command, Router, serve_nats
from typed_amp.nats_link import flush

pytestmark = pytest.mark.usefixtures("nothing_left")


async def told(client: Client, verb: ServiceVerb, *name_and_id: str) -> list[dict[str, Any]]:
    """Ask all the services there are, as `nats micro` does."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(control_subject(verb, *name_and_id), reply=inbox)
    await flush(client)
    await flush(client)  # behind whatever the services answered
    answers = []
    while subscription.pending_msgs:
        answers.append(json.loads((await subscription.next_msg()).data))
    await subscription.unsubscribe()
    return answers


async def test_service_is_found(nats: NatsServer) -> None:
    metadata = {"team": "shop"}
    async with (
        joined_by_nats(
            Service().router,
            nats.url,
            version="1.2.3",
            description="It repeats",
            metadata=metadata,
        ) as (_, first),
        serve_nats(Service().router, nats.url, service="calc") as second,
        serve_nats(Service().router, nats.url, service="other") as other,
        plain_client(nats) as plain,
    ):
        async with asyncio.timeout(20):
            pings: list[dict[str, Any]] = []
            while len(pings) < 3:
                pings = await told(plain, ServiceVerb.PING)
        assert {ping["id"] for ping in pings} == {first.id, second.id, other.id}
        message = await plain.request(control_subject(ServiceVerb.PING, "calc", first.id))
        ping = ServicePing.from_dict(json.loads(message.data))
        assert ping == ServicePing(first.id, "calc", "1.2.3", metadata)
        assert ping.type == json.loads(message.data)["type"]
        found = [each["id"] for each in await told(plain, ServiceVerb.PING, "calc")]
        assert set(found) <= {first.id, second.id}


async def test_commands_are_told_with_their_schemas(nats: NatsServer) -> None:
    service = Service()

    class Odd(Command, name="a.b c"):
        pass

    @service.router.responder(Odd)
    async def odd(command: Odd) -> None: ...

    async with (
        joined_by_nats(service.router, nats.url) as (client, serving),
        plain_client(nats) as plain,
    ):
        message = await plain.request(control_subject(ServiceVerb.INFO, "calc", serving.id))
        raw = json.loads(message.data)
        info = ServiceInfo.from_dict(raw)
        assert raw.keys() == info.to_dict().keys()
        assert (info.type, info.name) == ("io.nats.micro.v1.info_response", "calc")
        endpoints = {each.name: each for each in info.endpoints}
        assert [each.subject for each in info.endpoints] == serving.subjects
        repeat = endpoints["Repeat"]
        assert (repeat.subject, repeat.queue_group) == ("calc.Repeat", "q")
        schema = json.loads(repeat.metadata["command_schema"])
        assert schema["description"] == "Repeat a text."
        assert schema["properties"]["times"]["minimum"] == 0
        assert schema["required"] == ["text"]
        assert "text" in json.loads(repeat.metadata["answer_schema"])["properties"]
        assert json.loads(endpoints["Buy"].metadata["errors"]) == ["OUT_OF_STOCK", "NO_SUCH_SKU"]
        assert endpoints["Buy"].metadata["answer_schema"] == "null"
        assert endpoints["WaitAgain"].metadata["idempotent"] == "true"
        assert endpoints["Note"].metadata["requires_answer"] == "false"
        assert endpoints["a_b_c"].subject == "calc.a%2Eb%20c"
        assert endpoints["a_b_c"].metadata["command"] == "a.b c"
        await client.call(Odd())


async def test_numbers_are_told(nats: NatsServer) -> None:
    async with (
        joined_by_nats(Service().router, nats.url) as (client, serving),
        plain_client(nats) as plain,
    ):
        for _ in range(3):
            await client.call(Repeat(text="a"))
        with pytest.raises(OutOfStock):
            await client.call(Buy(sku="teapot"))
        await client.call(Note(line="a"))
        await until(lambda: serving.counters.requests == 5)
        message = await plain.request(control_subject(ServiceVerb.STATS, "calc", serving.id))
        raw = json.loads(message.data)
        stats = ServiceStats.from_dict(raw)
        assert raw.keys() == stats.to_dict().keys()
        assert stats.started.year >= 2024
        assert datetime.fromisoformat(raw["started"]).utcoffset() == timedelta()
        assert all(
            type(each[key]) is int
            for each in raw["endpoints"]
            for key in ("num_requests", "num_errors", "processing_time", "average_processing_time")
        )
        assert all(each["data"] == {} for each in raw["endpoints"])
        endpoints = {each.name: each for each in stats.endpoints}
        assert raw["endpoints"][0].keys() == stats.endpoints[0].to_dict().keys()
        repeat, buy = endpoints["Repeat"], endpoints["Buy"]
        assert (repeat.num_requests, repeat.num_errors, repeat.last_error) == (3, 0, "")
        assert repeat.processing_time // 3 == repeat.average_processing_time > 0
        assert (buy.num_requests, buy.num_errors) == (1, 1)
        assert buy.last_error == "OUT_OF_STOCK: sku='teapot', left=2"
        assert endpoints["Note"].num_requests == 1


async def test_type_without_a_schema_is_told_without_one(nats: NatsServer) -> None:
    class Thing:
        pass

    class ThingCodec(Codec[Thing]):
        def encode(self, value: Thing) -> bytes:
            return b""

        def decode(self, data: bytes) -> Thing:
            return Thing()

    class Use(Command):
        model_config = {"arbitrary_types_allowed": True}
        thing: Annotated[Thing, ThingCodec()]

    router = Router()

    @router.responder(Use)
    async def use(command: Use) -> None: ...

    @router.fallback
    async def any_command(box: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return {}

    async with joined_by_nats(router, nats.url) as (_, serving), plain_client(nats) as plain:
        message = await plain.request(control_subject(ServiceVerb.INFO, "calc", serving.id))
        use_endpoint, any_endpoint = ServiceInfo.from_dict(json.loads(message.data)).endpoints
        assert use_endpoint.metadata["command"] == "Use"
        assert "command_schema" not in use_endpoint.metadata
        assert (any_endpoint.subject, any_endpoint.metadata["command"]) == ("calc.*", "*")


async def test_schemas_are_left_out_where_they_are_too_long(tmp_path: Any) -> None:
    with nats_server(tmp_path, config="max_payload: 2000") as server:
        async with (
            joined_by_nats(Service().router, server.url) as (_, serving),
            plain_client(server) as plain,
        ):
            message = await plain.request(control_subject(ServiceVerb.INFO, "calc", serving.id))
            info = ServiceInfo.from_dict(json.loads(message.data))
            assert {each.metadata["command"] for each in info.endpoints} >= {"Repeat", "Buy"}
            assert not any("command_schema" in each.metadata for each in info.endpoints)
