"""Serving over NATS: what is refused, how much runs, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from tests.nats_servers import NatsServer, plain_client
from tests.nats_services import (
    QUICK,
    Note,
    Nowhere,
    Repeat,
    Service,
    Text,
    Wait,
    joined_by_nats,
)
from tests.peers import LogCapture, until
from typed_amp import (
    CallTimeoutError,
    Command,
    Connection,
    DefinitionError,
    Descriptor,
    Limits,
    NoRespondersError,
    RemoteAmpError,
    Router,
    StartTLS,
    TooLongError,
    connect_nats,
    encode_box,
    serve_nats,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


def taking_the_connection(router: Router) -> None:
    @router.responder(Nowhere)
    async def respond(command: Nowhere, connection: Connection) -> Text:
        raise AssertionError


def with_a_fallback_that_takes_it(router: Router) -> None:
    @router.fallback
    async def respond(box: dict[bytes, bytes], connection: Connection) -> dict[bytes, bytes]:
        raise AssertionError


def with_a_guard(router: Router) -> None:
    @router.guard
    def logged_in(connection: Connection) -> None: ...


def with_a_hook(router: Router) -> None:
    @router.on_connect
    async def greet(connection: Connection) -> None: ...


def with_the_other_hook(router: Router) -> None:
    @router.on_disconnect
    async def part(connection: Connection) -> None: ...


def with_a_function_that_blocks(router: Router) -> None:
    @router.responder(Nowhere)
    def respond(command: Nowhere) -> Text:
        raise AssertionError


def with_a_transition(router: Router) -> None:
    @router.responder(StartTLS)
    async def start_tls(command: StartTLS) -> Any: ...


def with_descriptors(router: Router) -> None:
    class Give(Command[None]):
        file: Annotated[int, Descriptor()]

    @router.responder(Give)
    async def take(command: Give) -> None: ...


def with_a_long_name(router: Router) -> None:
    class Long(Command, name="x" * 600):
        pass

    @router.responder(Long)
    async def answer(command: Long) -> None: ...


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (taking_the_connection, r"Nowhere, .*respond.* takes the connection"),
        (with_a_fallback_that_takes_it, r"the fallback, .*respond.* takes the connection"),
        (with_a_guard, r"behind the guard .*logged_in.*permissions"),
        (with_a_hook, r"greet.* is run for connections"),
        (with_the_other_hook, r"part.* is run for connections"),
        (with_a_function_that_blocks, r"Nowhere, .*respond.* is a plain function"),
        (with_a_transition, r"StartTLS, .* changes what a connection speaks"),
        (with_descriptors, r"Give, .* takes or gives file descriptors"),
        (with_a_long_name, r"at most 512. Give the command a shorter name"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_opened(
    spoil: Callable[[Router], None], reason: str
) -> None:
    router = Service().router
    spoil(router)
    error = TooLongError if spoil is with_a_long_name else DefinitionError
    with pytest.raises(error, match=reason):
        await serve_nats(router, "nats://127.0.0.1:1", service="calc")


async def test_router_with_a_state_serves_what_does_not_need_it(nats: NatsServer) -> None:
    router = Router(state=dict[str, str])
    router.include(Service().router)
    async with joined_by_nats(router, nats.url) as (client, _):
        assert await client.call(Repeat(text="ab")) == Text(text="ab")


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"service": "a.b"}, ValueError, "can't be the name of a service"),
        ({"queue": "a b"}, ValueError, "can't be the name of a queue group"),
        ({"version": "1"}, ValueError, "is no version"),
        ({"version": "1.0.0-01"}, ValueError, "is no version"),
        ({"version": "1.0.0-a..b"}, ValueError, "is no version"),
        ({"metadata": {"replicas": 3}}, TypeError, "'replicas': 3 is not one"),
        ({"drain_timeout": -1}, ValueError, "drain_timeout"),
        ({"servers": ""}, ValueError, "one at least"),
        ({"userr": "ann"}, TypeError, "no such option: userr"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    given = {"servers": "nats://127.0.0.1:1", "service": "calc", **options}
    with pytest.raises(error, match=reason):
        serve_nats(Router(), given.pop("servers"), **given)


def test_extra_that_is_missing_is_named() -> None:
    program = """
import asyncio, sys
import typed_amp
assert "nats" not in sys.modules
sys.modules["nats"] = None
for opening in (
    typed_amp.serve_nats(typed_amp.Router(), "nats://127.0.0.1:1", service="calc"),
    typed_amp.connect_nats("nats://127.0.0.1:1", service="calc"),
):
    async def main():
        try:
            await opening
        except ImportError as error:
            print(error)
    asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    line = "NATS is an extra, and needs nats-py: pip install 'typed_amp[nats]'\n"
    assert (result.stdout, result.stderr) == (line * 2, "")


async def test_service_is_shared_by_those_who_serve_it(nats: NatsServer) -> None:
    services = [Service() for _ in range(3)]
    async with (
        serve_nats(services[0].router, nats.url, service="calc") as first,
        serve_nats(services[1].router, nats.url, service="calc") as second,
        serve_nats(services[2].router, nats.url, service="calc", queue="others") as other,
        connect_nats(nats.url, service="calc") as client,
    ):
        for _ in range(60):
            await client.call(Repeat(text="a"))
        await until(lambda: other.counters.requests == 60)
        shares = [each.counters.requests for each in (first, second)]
        assert sum(shares) == 60
        assert min(shares) > 5
        assert first.id != second.id


async def test_as_many_run_as_may_and_others_wait(nats: NatsServer) -> None:
    service = Service()
    limits = Limits(max_requests=3)
    async with joined_by_nats(service.router, nats.url, limits=limits) as (client, serving):
        calls = [asyncio.ensure_future(client.call(Wait(text=f"{n}"))) for n in range(10)]
        told = asyncio.ensure_future(client.call(Repeat(text="last")))
        await until(lambda: serving.counters.requests == 11)
        await until(lambda: service.began.qsize() == 3)
        assert serving.counters.requests_in_flight == 3
        with pytest.raises(CallTimeoutError):
            await client.call(Wait(text="late"), timeout=0.05)
        await until(lambda: serving.counters.requests == 12)
        clock = asyncio.get_running_loop().time
        over = clock() + 0.06
        await until(lambda: clock() > over)
        assert not told.done()
        service.gate.set()
        await asyncio.gather(*calls, told)
        await until(lambda: serving.counters.refusals == {"TIMEOUT": 1})
        assert service.began.qsize() == 10


async def test_what_is_too_much_to_wait_is_refused_and_sent_again(
    nats: NatsServer, log: LogCapture
) -> None:
    service = Service()
    limits = Limits(max_requests=1, max_held_bytes=1_500)
    async with joined_by_nats(service.router, nats.url, limits=limits) as (client, serving):
        calls = [asyncio.ensure_future(client.call(Wait(text=f"{n}"))) for n in range(4)]
        await until(lambda: serving.counters.refusals.get("BUSY", 0) > 5)
        await until(service.began.qsize)
        assert log.only_line().endswith("refused with BUSY: max_held_bytes")
        assert service.began.qsize() == 1
        with pytest.raises(CallTimeoutError):
            await client.call(Repeat(text="a"), timeout=0.05)
        service.gate.set()
        answers = await asyncio.gather(*calls)
        assert [each.text for each in answers] == ["0", "1", "2", "3"]
        assert sorted(service.began.get_nowait() for _ in range(4)) == ["0", "1", "2", "3"]


async def test_other_responder_takes_what_one_is_too_busy_for(nats: NatsServer) -> None:
    busy, free = Service(), Service()
    free.gate.set()
    limits = Limits(max_requests=1, max_held_bytes=1)
    async with (
        serve_nats(busy.router, nats.url, service="calc", limits=limits, drain_timeout=0) as one,
        connect_nats(nats.url, service="calc", backoff=QUICK) as client,
    ):
        stuck = asyncio.ensure_future(client.call(Wait(text="stuck")))
        await busy.began.get()
        async with serve_nats(free.router, nats.url, service="calc"):
            for number in range(20):
                await client.call(Wait(text=f"{number}"))
            assert one.counters.refusals["BUSY"] > 0
            assert free.began.qsize() == 20
            assert not stuck.done()
            one.close()
            with pytest.raises(RemoteAmpError, match="CANCELLED"):
                await stuck


async def test_closing_finishes_what_runs_and_what_waits(nats: NatsServer) -> None:
    service = Service()
    limits = Limits(max_requests=2)
    async with joined_by_nats(service.router, nats.url, limits=limits) as (client, serving):
        calls = [asyncio.ensure_future(client.call(Wait(text=f"{n}"))) for n in range(5)]
        await until(lambda: serving.counters.requests == 5)
        serving.close()
        assert repr(serving).endswith(", closing>")
        while True:
            try:
                await client.call(Repeat(text="a"), timeout=0.05)
            except CallTimeoutError:
                continue  # it came before NATS knew, and waits
            except NoRespondersError:
                break
        assert not serving.is_closed
        service.gate.set()
        assert [each.text for each in await asyncio.gather(*calls)] == [f"{n}" for n in range(5)]
        await serving.wait_closed()
        assert serving.is_closed
        assert repr(serving).endswith(", closed>")
        serving.close()


async def test_closing_cancels_what_takes_too_long(nats: NatsServer, log: LogCapture) -> None:
    service = Service()
    limits = Limits(max_requests=1)
    async with joined_by_nats(service.router, nats.url, limits=limits) as (client, serving):
        runs = asyncio.ensure_future(client.call(Wait(text="runs")))
        await service.began.get()
        waits = asyncio.ensure_future(client.call(Wait(text="waits")))
        await until(lambda: serving.counters.requests == 2)
        serving.close(drain_timeout=60)
        serving.close(drain_timeout=0)
        with pytest.raises(RemoteAmpError, match=r"CANCELLED: .* closing"):
            await runs
        with pytest.raises(NoRespondersError):  # it was refused, and sent to nobody
            await waits
        await serving.wait_closed()
        assert service.cancelled == ["runs"]
        assert serving.counters.refusals == {"CANCELLED": 1, "CLOSING": 1}
        assert not log.lines()


async def test_cancelled_serve_forever_closes(nats: NatsServer) -> None:
    async with joined_by_nats(Service().router, nats.url) as (_, serving):
        task = asyncio.ensure_future(serving.serve_forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert serving.is_closed


async def test_messages_that_are_not_amp_cost_nobody_else_anything(
    nats: NatsServer, log: LogCapture
) -> None:
    service = Service()
    limits = Limits(max_keys=20)
    async with (
        joined_by_nats(service.router, nats.url, limits=limits) as (client, serving),
        plain_client(nats) as plain,
    ):
        two = encode_box({b"_ask": b"1", b"_command": b"Repeat", b"text": b"a"}) * 2
        answer = encode_box({b"_answer": b"1"})
        none = encode_box({b"k": b"v"})
        many = encode_box({b"%d" % number: b"" for number in range(21)})
        for data in (b"", b"hello", b"\0\0", two, answer, none, many):
            message = await plain.request("calc.Repeat", data, timeout=10)
            assert message.data == b""
            assert message.headers is not None
            assert message.headers["Nats-Service-Error-Code"] == "400"
            assert "not one box of AMP" in message.headers["Nats-Service-Error"]
        await plain.publish("calc.Repeat", b"hello")
        await plain.publish("calc.Note", encode_box({b"_ask": b"1", b"_command": b"Note"}))
        await until(lambda: serving.counters.violations == 8)
        await until(lambda: serving.counters.refusals == {"INVALID_ARGUMENTS": 1})
        assert "not one box of AMP" in log.only_line()
        assert await client.call(Repeat(text="on")) == Text(text="on")


async def test_plain_functions_run_in_threads(nats: NatsServer) -> None:
    router = Service().router

    @router.responder(Nowhere, thread=True)
    def respond(command: Nowhere) -> Text:
        return Text(text=str(threading.current_thread() is threading.main_thread()))

    async with joined_by_nats(router, nats.url) as (client, _):
        assert await client.call(Nowhere()) == Text(text="False")


async def test_answer_is_the_box_that_a_connection_would_send(nats: NatsServer) -> None:
    async with (
        joined_by_nats(Service().router, nats.url),
        plain_client(nats) as plain,
    ):
        ask = {b"_ask": b"x", b"_command": b"Repeat", b"text": b"ab", b"times": b"2"}
        message = await plain.request("calc.Repeat", encode_box(ask), timeout=10)
        assert message.data == encode_box({b"_answer": b"x", b"text": b"abab"})
        ask[b"times"] = b"-2"
        message = await plain.request("calc.Repeat", encode_box(ask), timeout=10)
        assert message.data.startswith(encode_box({b"_error": b"x"})[:-2])
        assert message.headers == {
            "Nats-Service-Error-Code": "400",
            "Nats-Service-Error": "INVALID_ARGUMENTS: times: Input should be greater than or"
            " equal to 0",
        }


@pytest.mark.parametrize(
    ("box", "code", "text"),
    [
        ({b"_command": b"Buy", b"sku": b"teapot"}, 422, "OUT_OF_STOCK: sku='teapot', left=2"),
        ({b"_command": b"Buy", b"sku": b""}, 403, "NOT_ALLOWED: say what"),
        ({b"_command": b"Buy", b"sku": b"bug"}, 500, "UNKNOWN: Unknown Error"),
        ({b"_command": b"Buy"}, 400, "INVALID_ARGUMENTS: "),
        ({b"_command": b"Nowhere"}, 404, "UNHANDLED: "),
        ({b"_command": b"Left", b"_deadline": b"0"}, 408, "TIMEOUT: "),
    ],
)
async def test_errors_are_numbers_to_the_tools_of_nats(
    nats: NatsServer, box: dict[bytes, bytes], code: int, text: str
) -> None:
    async with joined_by_nats(Service().router, nats.url), plain_client(nats) as plain:
        ask = encode_box({b"_ask": b"1", **box})
        message = await plain.request("calc.Buy", ask, timeout=10)
        assert message.headers is not None
        assert int(message.headers["Nats-Service-Error-Code"]) == code
        assert message.headers["Nats-Service-Error"].startswith(text)


async def test_failure_that_nobody_is_told_is_logged(nats: NatsServer, log: LogCapture) -> None:
    router = Router()

    @router.responder(Note)
    async def note(command: Note) -> None:
        raise ValueError("no paper")

    async with joined_by_nats(router, nats.url) as (client, serving):
        await client.call(Note(line="a"))
        await until(lambda: log.lines())
        assert "the responder of Note failed" in log.only_line()
        assert "no paper" in log.only_line()
        assert log.records[-1].__dict__["amp_connection"] == serving.name
