"""Calls over NATS that nobody waits for any more, and what their responders learn of it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

import tests.strategies  # noqa: F401 - the profile of all tests with hypothesis
from tests.nats_servers import NatsServer, nats_cluster, nats_server, plain_client
from tests.nats_services import (
    QUICK,
    Note,
    Repeat,
    Service,
    Text,
    Wait,
    WaitAgain,
    joined_by_nats,
)
from tests.peers import LogCapture, cancel, joined, knows_all, raw_client_of, until
from typed_amp import (
    CallTimeoutError,
    ConnectionLostError,
    Limits,
    NatsClient,
    ProtocolViolationError,
    Router,
    connect_nats,
    encode_box,
    nats_bridge,
    serve_nats,
)
from typed_amp.nats_cancels import cancelled_reply
from typed_amp.nats_link import flush

pytestmark = pytest.mark.usefixtures("nothing_left")

CANCELS = "calc.typed-amp.cancel"


def cancel_box(reply: str) -> bytes:
    return encode_box({b"_command": b"typed-amp.cancel", b"ask": reply.encode()})


@contextlib.asynccontextmanager
async def listening(client: Client, subject: str) -> AsyncIterator[list[bytes]]:
    """Read along what is said at a subject."""
    heard: list[bytes] = []

    async def hear(message: object) -> None:
        heard.append(message.data)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    subscription = await client.subscribe(subject, cb=hear)
    await flush(client)
    yield heard
    await subscription.unsubscribe()


async def test_responder_is_cancelled_when_its_caller_gives_up(nats: NatsServer) -> None:
    services = [Service() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for each in services:
            await stack.enter_async_context(serve_nats(each.router, nats.url, service="calc"))
        client = await stack.enter_async_context(connect_nats(nats.url, service="calc"))
        calls = [
            asyncio.ensure_future(client.call(Wait(text=f"{n}"), timeout=math.inf))
            for n in range(9)
        ]
        await until(lambda: sum(each.began.qsize() for each in services) == 9)
        await cancel(calls[4])
        await until(lambda: [text for each in services for text in each.cancelled] == ["4"])
        for each in services:
            each.gate.set()
        del calls[4]
        assert [answer.text for answer in await asyncio.gather(*calls)] == [*"01235678"]
        await until(lambda: client.counters.late == 1)  # it was answered all the same
        assert client.counters.calls_in_flight == 0


async def test_time_limit_around_a_call_reaches_its_responder(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, serving):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.call(Wait(text="a"), timeout=math.inf)
        await until(lambda: service.cancelled == ["a"])
        await until(lambda: serving.counters.refusals == {"CANCELLED": 1})


async def test_second_reason_does_not_cancel_what_cleans_up(nats: NatsServer) -> None:
    router = Router()
    events: list[str] = []
    may_end = asyncio.Event()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cleaning")
            await may_end.wait()
            events.append("clean")
        raise AssertionError

    async with joined_by_nats(router, nats.url) as (client, serving), plain_client(nats) as plain:
        async with listening(plain, CANCELS) as heard:
            call = asyncio.ensure_future(client.call(Wait(text="a"), timeout=0.3))
            await until(lambda: events)
            await cancel(call)
            await until(lambda: "cleaning" in events)
            clock = asyncio.get_running_loop().time
            over = clock() + 0.4
            await until(lambda: heard)
            await plain.publish(CANCELS, heard[0])  # again
            await until(lambda: clock() > over)  # so would its time be
            serving.close(drain_timeout=0)
            await flush(plain)
        may_end.set()
        await serving.wait_closed()
        assert events == ["begun", "cleaning", "clean"]
        assert serving.counters.refusals == {"CANCELLED": 1}


async def test_what_waits_for_its_turn_is_never_begun(nats: NatsServer) -> None:
    service = Service()
    limits = Limits(max_requests=1)
    async with joined_by_nats(service.router, nats.url, limits=limits) as (client, serving):
        runs = asyncio.ensure_future(client.call(Wait(text="runs")))
        assert await service.began.get() == "runs"
        waits = asyncio.ensure_future(client.call(Wait(text="waits")))
        follows = asyncio.ensure_future(client.call(Wait(text="follows")))
        await until(lambda: serving.counters.requests == 3)
        await cancel(waits)
        await client.call(Note(line="behind it"))
        await until(lambda: serving.counters.requests == 4)
        service.gate.set()
        assert await runs == Text(text="runs")
        assert await follows == Text(text="follows")
        assert await service.began.get() == "follows"
        assert service.began.empty()
        assert not service.cancelled


async def test_many_that_are_given_up_at_once_are_all_ended(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, serving):
        calls = [asyncio.ensure_future(client.call(Wait(text=f"{n}"))) for n in range(500)]
        await until(lambda: client.counters.bytes_sent)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await client.call(Repeat(text="on")) == Text(text="on")
        await until(lambda: not serving.counters.requests_in_flight)
        await until(lambda: serving.counters.refusals == {"CANCELLED": 500})
        assert len(service.cancelled) == service.began.qsize()


async def test_cancel_that_overtakes_its_request_is_no_less_one(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (_, serving), plain_client(nats) as me:
        inbox = me.new_inbox()
        answers = await me.subscribe(inbox)
        await me.publish(CANCELS, cancel_box(inbox))
        await flush(me)
        await until(lambda: serving.counters.bytes_received)
        ask = encode_box({b"_ask": b"1", b"_command": b"Wait", b"text": b"a"})
        await me.publish("calc.Wait", ask, inbox)
        answer = await answers.next_msg(timeout=10)
        assert b"_error_code\0\x09CANCELLED" in answer.data
        assert service.began.empty()


async def test_cancel_after_the_answer_does_no_harm(nats: NatsServer, log: LogCapture) -> None:
    async with (
        joined_by_nats(Service().router, nats.url) as (client, serving),
        plain_client(nats) as plain,
    ):
        async with listening(plain, "calc.Repeat") as heard, listening(plain, CANCELS) as cancels:
            assert await client.call(Repeat(text="a")) == Text(text="a")
            await until(lambda: heard)
            assert not cancels
        await plain.publish(CANCELS, cancel_box("_INBOX.nobody"))
        await plain.publish(CANCELS, cancel_box("_INBOX." + "x" * 5_000))
        await until(lambda: serving.counters.bytes_received > 5_000)
        assert await client.call(Repeat(text="a")) == Text(text="a")
        assert not log.lines()
        assert not serving.counters.violations


async def test_number_of_those_that_are_remembered_has_an_end(nats: NatsServer) -> None:
    service = Service()
    service.gate.set()
    async with joined_by_nats(service.router, nats.url) as (_, serving), plain_client(nats) as me:
        inbox = me.new_inbox()
        answers = await me.subscribe(inbox)
        for reply in (inbox, *(f"_INBOX.{number}" for number in range(1_000))):
            await me.publish(CANCELS, cancel_box(reply))
        await flush(me)
        await until(lambda: serving.counters.bytes_received > 1_000 * len(cancel_box("_INBOX.1")))
        ask = encode_box({b"_ask": b"1", b"_command": b"Wait", b"text": b"a"})
        await me.publish("calc.Wait", ask, inbox)
        answer = await answers.next_msg(timeout=10)
        assert answer.data == encode_box({b"_answer": b"1", b"text": b"a"})


async def test_time_that_is_over_is_told_by_nobody(nats: NatsServer) -> None:
    service = Service()
    async with (
        joined_by_nats(service.router, nats.url) as (client, _),
        plain_client(nats) as plain,
        listening(plain, CANCELS) as heard,
    ):
        with pytest.raises(CallTimeoutError):
            await client.call(Wait(text="a"), timeout=0.05)
        await until(lambda: service.cancelled == ["a"])  # it knew itself
        call = asyncio.ensure_future(client.call(Wait(text="b")))
        await until(lambda: service.began.qsize() == 2)
        await cancel(call)
        await until(lambda: heard)
        assert len(heard) == 1
        assert cancelled_reply(heard[0], 10).startswith("_INBOX.")


async def test_nothing_is_told_of_a_call_that_nobody_has(nats: NatsServer) -> None:
    busy = Service()
    limits = Limits(max_requests=1, max_held_bytes=1)
    async with (
        plain_client(nats) as plain,
        listening(plain, CANCELS) as heard,
        serve_nats(busy.router, nats.url, service="calc", limits=limits) as serving,
        connect_nats(nats.url, service="calc", backoff=QUICK) as client,
    ):
        runs = asyncio.ensure_future(client.call(Wait(text="runs")))
        await busy.began.get()
        refused = asyncio.ensure_future(client.call(Wait(text="refused")))
        await until(lambda: serving.counters.refusals.get("BUSY"))
        await until(lambda: client.counters.call_errors.get("BUSY", 0) > 1)
        await until(lambda: client.counters.call_errors == serving.counters.refusals)
        refused.cancel()
        with pytest.raises(asyncio.CancelledError):
            await refused
        busy.gate.set()
        assert await runs == Text(text="runs")
        assert len(heard) <= 1  # if it was just on its way again


async def test_call_that_was_sent_to_two_is_cancelled_at_both(nats: NatsServer) -> None:
    services = Service(), Service()
    async with (
        serve_nats(services[0].router, nats.url, service="calc", queue="a"),
        serve_nats(services[1].router, nats.url, service="calc", queue="b"),
        connect_nats(nats.url, service="calc") as client,
    ):
        call = asyncio.ensure_future(client.call(WaitAgain(text="a"), timeout=math.inf))
        for each in services:
            await each.began.get()
        await cancel(call)
        await until(lambda: all(each.cancelled == ["a"] for each in services))


async def test_responders_are_cancelled_when_a_client_is_closed(nats: NatsServer) -> None:
    service = Service()
    async with serve_nats(service.router, nats.url, service="calc"):
        async with connect_nats(nats.url, service="calc") as client:
            calls = [
                asyncio.ensure_future(client.call(command, timeout=math.inf))
                for command in (Wait(text="a"), WaitAgain(text="b"))
            ]
            await until(lambda: service.began.qsize() == 2)
        for call in calls:
            with pytest.raises(ConnectionLostError):
                await call
        await until(lambda: sorted(service.cancelled) == ["a", "b"])


async def test_responder_is_cancelled_when_its_caller_has_lost_the_cluster(tmp_path: Path) -> None:
    service = Service()
    with nats_cluster(tmp_path, 2) as (first, second):
        async with (
            serve_nats(service.router, first.url, service="calc"),
            connect_nats(second.url, service="calc", reconnect_time_wait=0.05) as client,
        ):
            await until_it_is_there(client)
            call = asyncio.ensure_future(client.call(Wait(text="a"), timeout=math.inf))
            await service.began.get()
            second.kill()
            with pytest.raises(ConnectionLostError):
                await call
            await until(lambda: service.cancelled == ["a"])


async def until_it_is_there(client: NatsClient) -> None:
    """Wait until the cluster knows of the service."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ConnectionLostError):
                await client.call(Repeat(text="a"))
                return


async def test_user_who_may_not_tell_is_warned(tmp_path: Path, log: LogCapture) -> None:
    service = Service()
    users = """authorization { users: [
        { user: "service", password: "hush" },
        { user: "ann", password: "hush", permissions: { publish: ["calc.*", "%s"] } },
        { user: "bob", password: "hush", permissions: { publish: ["calc.*"] } }
    ] }"""
    with nats_server(tmp_path, config=users % CANCELS) as server:
        async with serve_nats(
            service.router, server.url, service="calc", user="service", password="hush"
        ):
            for user in ("ann", "bob"):
                async with connect_nats(
                    server.url, service="calc", user=user, password="hush"
                ) as client:
                    call = asyncio.ensure_future(client.call(Wait(text=user)))
                    await service.began.get()
                    assert not log.lines()
                    await cancel(call)
                    await client.call(Repeat(text="on"))
            assert "permissions violation for publish to" in log.only_line().lower()
            await until(lambda: "ann" in service.cancelled)


async def test_cancel_crosses_the_bridge(nats: NatsServer) -> None:
    service = Service()
    async with (
        joined_by_nats(service.router, nats.url) as (client, _),
        joined(nats_bridge(client)) as (connection, bridge),
    ):
        await until(lambda: knows_all(connection) and knows_all(bridge))
        calls = [asyncio.ensure_future(connection.call(Wait(text=text))) for text in ("a", "b")]
        await until(lambda: service.began.qsize() == 2)
        await cancel(calls[0])
        await until(lambda: service.cancelled == ["a"])
        service.gate.set()
        assert await calls[1] == Text(text="b")


async def test_peer_that_is_gone_is_told_of_across_the_bridge(nats: NatsServer) -> None:
    service = Service()
    async with (
        joined_by_nats(service.router, nats.url) as (client, _),
        raw_client_of(nats_bridge(client)) as (peer, connection),
    ):
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"text": b"a"})
        await service.began.get()
        peer.reset()
        await connection.wait_lost()
        await until(lambda: service.cancelled == ["a"])


async def test_what_is_no_cancel_is_a_violation(nats: NatsServer, log: LogCapture) -> None:
    async with (
        joined_by_nats(Service().router, nats.url) as (client, serving),
        plain_client(nats) as plain,
    ):
        for data in (
            b"",
            b"hello",
            encode_box({b"_command": b"Wait", b"ask": b"a"}),
            encode_box({b"_command": b"typed-amp.cancel"}),
            encode_box({b"ask": b"a"}),
        ):
            await plain.publish(CANCELS, data)
        await until(lambda: serving.counters.violations == 5)
        assert "a message at calc.typed-amp.cancel" in log.only_line()
        assert await client.call(Repeat(text="on")) == Text(text="on")


@settings(max_examples=200)
@given(
    st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from([b"_command", b"ask", b"x"]),
        st.sampled_from([b"typed-amp.cancel", b"_INBOX.a", b"\xff", b""]),
        min_size=1,
    ).map(encode_box)
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        reply = cancelled_reply(data, 10)
    except ProtocolViolationError:
        return
    assert b"typed-amp.cancel" in data
    assert reply in data.decode("utf-8", "replace")
