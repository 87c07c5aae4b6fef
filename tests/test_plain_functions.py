from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import BaseModel

from tests.peers import LogCapture, until
from typed_amp import (
    CallTimeoutError,
    Client,
    Command,
    CommandError,
    Connection,
    DefinitionError,
    Router,
    UnknownRemoteError,
    connect,
    remaining_time,
    serve,
)
from typed_amp.plain_functions import abandoned, run_in_thread, run_inline
from typed_amp.testing import connection_pair


class Sum(BaseModel):
    total: int


class Negative(CommandError):
    number: int


class Add(Command[Sum], errors={Negative: "NEGATIVE"}):
    numbers: list[int]


class Ping(Command):
    pass


def add(command: Add) -> Sum:
    for number in command.numbers:
        if number < 0:
            raise Negative(number=number)
    return Sum(total=sum(command.numbers))


def with_add() -> Router:
    router = Router()
    router.responder(Add)(add)
    return router


PLAIN = r'^the responder of Add, .*\.add \(".*", line \d+\), is a plain function, .* thread=True'


# -- Where a router with plain functions may be served --------------------------------------------


async def test_what_would_hold_up_an_event_loop_is_not_served() -> None:
    with pytest.raises(DefinitionError, match=PLAIN):
        await serve(with_add(), "127.0.0.1", 0)
    with pytest.raises(DefinitionError, match=PLAIN):
        await connect("127.0.0.1", 9, router=with_add())
    with pytest.raises(DefinitionError, match=PLAIN):
        Client("127.0.0.1", 9, router=with_add())
    with pytest.raises(DefinitionError, match=PLAIN):
        async with connection_pair(with_add()):
            pass


async def test_a_router_that_is_served_takes_no_plain_function() -> None:
    router = Router()
    outer = Router()
    outer.include(router)
    async with connection_pair(outer) as (client, _):
        with pytest.raises(DefinitionError, match=PLAIN):
            router.responder(Add)(add)
        with pytest.raises(DefinitionError, match=PLAIN):
            outer.include(with_add())
        router.responder(Add, thread=True)(add)
        assert await client.call(Add(numbers=[1, 2])) == Sum(total=3)


async def test_a_plain_function_is_returned_unchanged() -> None:
    assert Router().responder(Add)(add) is add
    assert Router().responder(Add, thread=True)(add) is add


def test_an_async_function_is_not_run_in_a_thread() -> None:
    async def add(command: Add) -> Sum:
        raise NotImplementedError

    with pytest.raises(DefinitionError, match=r"must be a plain function: .* in a thread"):
        Router().responder(Add, thread=True)(add)


async def test_plain_functions_run_as_the_router_was_told() -> None:
    router = with_add()
    router.run_plain_functions(run_inline)
    async with connection_pair(router) as (client, _):
        assert await client.call(Add(numbers=[1, 2])) == Sum(total=3)
        with pytest.raises(Negative) as caught:
            await client.call(Add(numbers=[-3]))
        assert caught.value.number == -3


# -- Threads --------------------------------------------------------------------------------------


async def test_a_thread_holds_up_nobody() -> None:
    router: Router[dict[str, int]] = Router(state=lambda: {"first": 4})
    goes_on = threading.Event()
    threads: list[threading.Thread] = []

    @router.responder(Add, thread=True)
    def add(command: Add, connection: Connection[dict[str, int]]) -> Sum:
        threads.append(threading.current_thread())
        assert goes_on.wait(60)
        return Sum(total=connection.state["first"] + sum(command.numbers))

    @router.responder(Ping)
    async def ping(command: Ping) -> None:
        pass

    async with connection_pair(router) as (client, _), asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(client.call(Add(numbers=[n]))) for n in range(3)]
        await client.call(Ping())
        goes_on.set()
    assert [call.result().total for call in calls] == [4, 5, 6]
    assert threading.current_thread() not in threads


async def test_errors_travel_from_a_thread(log: LogCapture) -> None:
    router = Router()
    router.responder(Add, thread=True)(add)

    @router.responder(Ping, thread=True)
    def ping(command: Ping) -> None:
        raise StopIteration

    async with connection_pair(router) as (client, _):
        with pytest.raises(Negative):
            await client.call(Add(numbers=[-1]))
        with pytest.raises(UnknownRemoteError):
            await client.call(Ping())
    assert "a plain function raised StopIteration" in log.only_line()


async def test_a_thread_has_the_context_and_the_deadline() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[Any] = []
    router = Router()

    @router.on_connect
    async def begin(connection: Connection) -> None:
        pass

    @router.responder(Ping, thread=True)
    def ping(command: Ping) -> None:
        seen.extend([variable.get(), remaining_time()])

    variable.set("set")
    async with connection_pair(router) as (client, _):
        await client.call(Ping())
        await client.call(Ping(), timeout=50)
    assert seen[:3] == ["set", None, "set"]
    assert 40 < seen[3] <= 50


async def test_a_thread_that_nobody_waits_for_counts_until_it_is_over() -> None:
    router = Router()
    began, goes_on = threading.Event(), threading.Event()

    @router.responder(Ping, thread=True)
    def ping(command: Ping) -> None:
        began.set()
        assert goes_on.wait(60)
        raise ValueError("which nobody hears of")

    async with connection_pair(router) as (client, server):
        call = asyncio.create_task(client.call(Ping()))
        await asyncio.to_thread(began.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(CallTimeoutError):
            await client.call(Ping(), timeout=0.01)
        await until(lambda: len(abandoned()) == 2)
        assert server.counters.requests_in_flight == 2
        goes_on.set()
    assert not abandoned()


async def test_what_has_not_begun_when_it_is_cancelled_never_runs() -> None:
    asyncio.get_running_loop().set_default_executor(one := ThreadPoolExecutor(1))
    goes_on = threading.Event()
    ran: list[str] = []
    first = asyncio.create_task(run_in_thread(goes_on.wait, 60))
    second = asyncio.create_task(run_in_thread(ran.append, "second"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    assert not second.done()
    goes_on.set()
    assert await first
    with pytest.raises(asyncio.CancelledError):
        await second
    assert not ran
    one.shutdown()
