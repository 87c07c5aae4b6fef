"""Calls over NATS, by a real server."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Annotated, Any

import pytest

from tests.nats_servers import NatsServer, nats_server, plain_client
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
from tests.peers import LogCapture, cancel, until
from typed_amp import (
    CallTimeoutError,
    Command,
    ConnectionLostError,
    DecodeError,
    Descriptor,
    EncodeError,
    InvalidArgumentsError,
    NatsClient,
    NoRespondersError,
    NotAllowedError,
    RemoteAmpError,
    Router,
    StartTLS,
    TooLongError,
    UnhandledCommandError,
    UnknownRemoteError,
    connect_nats,
    encode_box,
    serve_nats,
)
from typed_amp.nats_link import flush

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_call_is_answered(nats: NatsServer) -> None:
    async with joined_by_nats(Service().router, nats.url) as (client, _):
        assert await client.call(Repeat(text="ab", times=3)) == Text(text="ababab")
        assert await client.call_remote(Repeat, text="é", times=2) == Text(text="éé")
        with pytest.raises(ValueError, match="tims"):
            await client.call_remote(Repeat, text="ab", tims=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_calls_run_side_by_side(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, serving):
        calls = [asyncio.ensure_future(client.call(Wait(text=f"{n}"))) for n in range(50)]
        for _ in calls:
            await service.began.get()
        assert serving.counters.requests_in_flight == client.counters.calls_in_flight == 50
        service.gate.set()
        assert [answer.text for answer in await asyncio.gather(*calls)] == [
            f"{n}" for n in range(50)
        ]
        await until(lambda: not serving.counters.requests_in_flight)
        assert client.counters.calls == serving.counters.requests == 50


async def test_errors_are_those_of_a_connection(nats: NatsServer, log: LogCapture) -> None:
    async with joined_by_nats(Service().router, nats.url) as (client, serving):
        with pytest.raises(OutOfStock) as stock:
            await client.call(Buy(sku="teapot"))
        assert (stock.value.sku, stock.value.left) == ("teapot", 2)
        with pytest.raises(KeyError, match="spoon"):
            await client.call(Buy(sku="spoon"))
        with pytest.raises(NotAllowedError, match="say what"):
            await client.call(Buy(sku=""))
        assert not log.lines()
        with pytest.raises(UnknownRemoteError, match="Unknown Error"):
            await client.call(Buy(sku="bug"))
        assert "ZeroDivisionError" in log.only_line()

        class AnyRepeat(Command[Text], name="Repeat"):
            text: str
            times: int

        with pytest.raises(InvalidArgumentsError) as refused:
            await client.call(AnyRepeat(text="ab", times=-1))
        assert refused.value.errors[0]["loc"] == ("times",)

        with pytest.raises(RemoteAmpError):
            await client.call_box("Buy", {b"sku": b"teapot"})
        codes = {"OUT_OF_STOCK", "NO_SUCH_SKU", "NOT_ALLOWED", "UNKNOWN", "INVALID_ARGUMENTS"}
        assert serving.counters.refusals.keys() == client.counters.call_errors.keys() == codes


async def test_answer_that_is_not_what_was_declared(nats: NatsServer) -> None:
    class Number(Command[Text], name="Repeat"):
        text: str

    async with (
        connect_nats(nats.url, service="calc") as client,
        plain_client(nats) as plain,
    ):

        async def answer(message: Any) -> None:
            await message.respond(replies.pop())

        replies = [b"hello", b"", encode_box({b"_answer": b"2"}), encode_box({b"x": b"y"})]
        await plain.subscribe("calc.Repeat", cb=answer)
        await flush(plain)
        for reason in ("not one box", "text", "not one box", "not one box"):
            with pytest.raises(DecodeError, match=rf"the answer to Repeat.*{reason}"):
                await client.call(Number(text=""), timeout=10)


async def test_nobody_who_answers_is_an_immediate_error(nats: NatsServer) -> None:
    async with joined_by_nats(Service().router, nats.url) as (client, serving):
        with pytest.raises(NoRespondersError) as nobody:
            await client.call(Nowhere(), timeout=math.inf)
        assert "nobody answers at calc.Nowhere" in str(nobody.value)
        assert isinstance(nobody.value, ConnectionLostError)
        assert not nobody.value.was_sent
        serving.close()
        await serving.wait_closed()
        with pytest.raises(NoRespondersError):
            await client.call(Repeat(text="a"))


async def test_call_waits_for_somebody_who_answers(nats: NatsServer) -> None:
    async with connect_nats(
        nats.url, service="calc", wait_for_responders=True, backoff=QUICK
    ) as client:
        with pytest.raises(CallTimeoutError):
            await client.call(Repeat(text="a"), timeout=0.1)
        call = asyncio.ensure_future(client.call(Repeat(text="a")))
        await until(lambda: client.counters.calls == 2)
        async with serve_nats(Service().router, nats.url, service="calc"):
            assert await call == Text(text="a")


async def test_command_without_answer_is_sent(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, serving):
        await client.call(Note(line="one"))
        await client.call_box("Note", {b"line": b"two"}, requires_answer=False)
        assert {await service.notes.get(), await service.notes.get()} == {"one", "two"}
        await client.call_box("Nowhere", requires_answer=False)
        assert not serving.counters.refusals
        client.close()
        await client.wait_closed()


async def test_what_was_told_is_sent_before_the_client_is_closed(nats: NatsServer) -> None:
    service = Service()
    async with serve_nats(service.router, nats.url, service="calc"):
        async with connect_nats(nats.url, service="calc") as client:
            for number in range(100):
                await client.call(Note(line=f"{number}"))
        assert {await service.notes.get() for _ in range(100)} == {f"{n}" for n in range(100)}


async def test_deadline_travels(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, serving):
        left = (await client.call(Left(), timeout=5)).seconds
        assert left is not None
        assert 0 < left <= 5
        assert (await client.call(Left(), timeout=math.inf)).seconds is None
        left = (await client.call(Left())).seconds
        assert left is not None
        assert 5 < left <= 30
        with pytest.raises(CallTimeoutError, match=r"Wait: no answer from NATS at .* within 0.05"):
            await client.call(Wait(text="a"), timeout=0.05)
        await until(lambda: service.cancelled == ["a"])
        await until(lambda: serving.counters.refusals == {"TIMEOUT": 1})
        assert await client.call(Repeat(text="on")) == Text(text="on")
        with pytest.raises(CallTimeoutError, match="no time was left"):
            await client.call(Repeat(text="on"), timeout=0)


async def test_deadline_holds_for_calls_within_a_responder(nats: NatsServer) -> None:
    inner = Service()
    outer = Router()
    async with joined_by_nats(inner.router, nats.url) as (client, _):

        @outer.responder(Left)
        async def pass_on(command: Left) -> Any:
            return await client.call(command)

        async with (
            serve_nats(outer, nats.url, service="outer"),
            connect_nats(nats.url, service="outer") as caller,
        ):
            left = (await caller.call(Left(), timeout=3)).seconds
            assert left is not None
            assert left <= 3


async def test_cancelled_call_leaves_nothing_behind(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, _):
        call = asyncio.ensure_future(client.call(Wait(text="a")))
        await service.began.get()
        await cancel(call)
        assert client.counters.calls_in_flight == 0
        service.gate.set()
        await until(lambda: client.counters.late == 1)
        assert await client.call(Repeat(text="on")) == Text(text="on")


async def test_too_long_a_command_is_refused_here(nats: NatsServer) -> None:
    service = Service()
    async with joined_by_nats(service.router, nats.url) as (client, serving):
        for _ in range(2):
            with pytest.raises(TooLongError, match=r"Repeat is 1,\d+,\d+ bytes long; the NATS"):
                await client.call(Repeat(text="x" * 1_048_576))
        with pytest.raises(TooLongError) as told:
            await client.call_box(
                "Note", {b"k%d" % n: bytes(65_000) for n in range(17)}, requires_answer=False
            )
        assert told.value.limit == 1_048_576
        assert serving.counters.requests == 0
        assert len((await client.call(Repeat(text="x" * 1_000_000))).text) == 1_000_000


async def test_too_long_an_answer_is_an_error_here_and_logged_there(
    nats: NatsServer, log: LogCapture
) -> None:
    async with joined_by_nats(Service().router, nats.url) as (client, _):
        with pytest.raises(TooLongError) as error:
            await client.call(Repeat(text="x" * 1_000, times=2_000))
        assert error.value.what == "the answer to Repeat"
        assert error.value.limit == 1_048_576
        assert error.value.length > 2_000_000
        assert "the NATS server's max_payload allows at most 1,048,576" in str(error.value)
        assert "TooLongError: the answer to Repeat is 2,00" in log.only_line()


async def test_limit_is_what_the_server_says(tmp_path: Any) -> None:
    with nats_server(tmp_path, config="max_payload: 2000") as server:
        async with joined_by_nats(Service().router, server.url) as (client, _):
            with pytest.raises(TooLongError, match="at most 2,000 in one message"):
                await client.call(Repeat(text="x" * 2_000))
            with pytest.raises(TooLongError, match="at most 2,000 in one message"):
                await client.call(Repeat(text="x" * 200, times=10))


async def test_what_cannot_work_is_refused(nats: NatsServer) -> None:
    class Give(Command[None]):
        file: Annotated[int, Descriptor()]

    async with joined_by_nats(Service().router, nats.url) as (client, _):
        with pytest.raises(EncodeError, match="can't be called over NATS"):
            await client.call(StartTLS())
        with pytest.raises(EncodeError, match="StartTLS"):
            await client.call_box("StartTLS")
        reading, writing = os.pipe()
        try:
            with pytest.raises(EncodeError, match="file descriptors"):
                await client.call(Give(file=reading))
        finally:
            os.close(reading)
            os.close(writing)
        with pytest.raises(TooLongError, match="shorter name"):
            await client.call_box("x" * 1_000)


async def test_fallback_answers_what_has_no_responder(nats: NatsServer) -> None:
    service = Service()

    @service.router.fallback
    async def any_command(box: dict[bytes, bytes]) -> dict[bytes, bytes]:
        if box[b"_command"] == b"refuse":
            raise RemoteAmpError("NO", "not that", {b"more": b"1"})
        return {b"name": box[b"_command"], b"k": box[b"k"]}

    async with joined_by_nats(service.router, nats.url) as (client, serving):
        assert "calc.*" in serving.subjects
        for name in ("a.b *>", "é", b"\xff", "Nowhere"):
            answer = await client.call_box(name, {b"k": b"v"})
            raw = name.encode() if isinstance(name, str) else name
            assert answer == {b"name": raw, b"k": b"v"}
        with pytest.raises(RemoteAmpError, match="NO: not that") as refused:
            await client.call_box("refuse")
        assert refused.value.fields[b"more"] == b"1"
        for _ in range(20):
            assert await client.call(Repeat(text="ab")) == Text(text="ab")
        assert serving.counters.requests == 25


async def test_unhandled_where_somebody_else_listens(nats: NatsServer) -> None:
    async with joined_by_nats(Service().router, nats.url) as (client, _):
        client._subjects[b"Nowhere"] = "calc.Repeat"
        with pytest.raises(UnhandledCommandError):
            await client.call(Nowhere())


async def test_calls_end_when_the_client_is_closed(nats: NatsServer) -> None:
    service = Service()
    async with serve_nats(service.router, nats.url, service="calc") as serving:
        client: NatsClient = await connect_nats(nats.url, service="calc")
        call = asyncio.ensure_future(client.call(Wait(text="a"), timeout=math.inf))
        again = asyncio.ensure_future(client.call(WaitAgain(text="b"), timeout=math.inf))
        await service.began.get()
        await service.began.get()
        assert repr(client).endswith(", open>")
        client.close()
        client.close()
        for each in (call, again):
            with pytest.raises(ConnectionLostError, match="is closed") as lost:
                await each
            assert lost.value.was_sent
        await client.wait_closed()
        assert client.is_closed
        assert not client.is_connected
        assert repr(client).endswith(", closed>")
        with pytest.raises(ConnectionLostError, match="is closed") as late:
            await client.call(Repeat(text="a"))
        assert not late.value.was_sent
        serving.close(drain_timeout=0)


async def test_idempotent_command_is_sent_again_where_no_answer_comes(nats: NatsServer) -> None:
    seen: list[bytes] = []
    async with (
        connect_nats(nats.url, service="calc", resend_after=0.05) as client,
        plain_client(nats) as plain,
    ):

        async def be_silent(message: Any) -> None:
            seen.append(message.data)
            if len(seen) == 3:
                async with serve_nats(service.router, nats.url, service="calc"):
                    await answered.wait()

        service = Service()
        service.gate.set()
        answered = asyncio.Event()
        silent = await plain.subscribe("calc.WaitAgain", "q", cb=be_silent)
        await plain.subscribe("calc.Wait", "q", cb=be_silent)
        await flush(plain)
        with pytest.raises(CallTimeoutError):
            await client.call(Wait(text="once"), timeout=0.5)
        assert len(seen) == 1
        assert await client.call(WaitAgain(text="again"), timeout=20) == Text(text="again")
        answered.set()
        assert len(seen) >= 3
        assert client.counters.calls == 2
        await silent.unsubscribe()


async def test_responder_that_runs_it_already_does_not_run_it_twice(nats: NatsServer) -> None:
    service = Service()
    async with (
        serve_nats(service.router, nats.url, service="calc") as serving,
        connect_nats(nats.url, service="calc", resend_after=0.02) as client,
    ):
        call = asyncio.ensure_future(client.call(WaitAgain(text="a")))
        await until(lambda: serving.counters.strays >= 2)
        service.gate.set()
        assert await call == Text(text="a")
        assert service.began.qsize() == 1
        assert serving.counters.requests == 1


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"service": "a b"}, ValueError, "can't be the name of a service"),
        ({"service": ""}, ValueError, "can't be the name of a service"),
        ({"servers": []}, ValueError, "one at least"),
        ({"call_timeout": 0}, ValueError, "call_timeout must be positive"),
        ({"resend_after": -1}, ValueError, "resend_after must be positive"),
        ({"tsl": True}, TypeError, "no such option: tsl"),
    ],
)
async def test_options_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    given: dict[str, Any] = {"servers": "nats://127.0.0.1:1", "service": "calc", **options}
    with pytest.raises(error, match=reason):
        connect_nats(**given)
