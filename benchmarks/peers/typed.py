"""typed_amp, as its README writes servers and clients: nothing is set for speed.

On a Unix socket it is `serve_unix` and `connect_unix`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmarks import work
from benchmarks.peers import loop, models
from benchmarks.peers.models import NumbersResult, RepeatResult, RowsResult, ValueResult
from benchmarks.peers.turn import HOST
from typed_amp import Command, Connection, Router, connect, connect_unix, serve, serve_unix

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn


class Repeat(Command[RepeatResult]):
    text: str
    times: Annotated[int, Field(ge=0, le=work.MAX_TIMES)] = 1


class Value(Command[ValueResult]):
    data: bytes


class Numbers(Command[NumbersResult]):
    numbers: list[int]


class Rows(Command[RowsResult]):
    first: int
    count: Annotated[int, Field(ge=0, le=work.MAX_COUNT)]


class NoSuchItemError(Exception):
    pass


class Find(Command, errors={NoSuchItemError: "NO_SUCH_ITEM"}):
    name: str


router = Router()


@router.responder(Repeat)
async def repeat(command: Repeat) -> RepeatResult:
    return RepeatResult(text=command.text * command.times)


@router.responder(Value)
async def value(command: Value) -> ValueResult:
    return ValueResult(data=command.data)


@router.responder(Numbers)
async def numbers(command: Numbers) -> NumbersResult:
    return NumbersResult(numbers=command.numbers[::-1])


@router.responder(Rows)
async def rows(command: Rows) -> RowsResult:
    return models.rows(command.first, command.count)


@router.responder(Find)
async def find(command: Find) -> None:
    raise NoSuchItemError(work.complaint(command.name))


@asynccontextmanager
async def serve_turn(turn: Turn) -> AsyncGenerator[int, None]:
    if turn.path:
        async with serve_unix(router, turn.path):
            yield 0
    else:
        async with serve(router, HOST, 0, ssl=turn.server_context()) as server:
            yield server.addresses[0][1]


@asynccontextmanager
async def connect_turn(turn: Turn) -> AsyncGenerator[Mapping[str, Call], None]:
    opening = (
        connect_unix(turn.path)
        if turn.path
        else connect(HOST, turn.port, ssl=turn.client_context())
    )
    async with opening as connection:
        yield calls_of(connection)


def calls_of(connection: Connection) -> Mapping[str, Call]:
    async def call_repeat() -> None:
        result = await connection.call(Repeat(text=work.TEXT, times=work.TIMES))
        assert result.text == work.REPEATED

    async def call_value() -> None:
        result = await connection.call(Value(data=work.VALUE))
        assert result.data == work.VALUE

    async def call_list() -> None:
        result = await connection.call(Numbers(numbers=work.NUMBERS))
        assert result.numbers == work.REVERSED

    async def call_rows() -> None:
        models.check_rows(await connection.call(Rows(first=work.FIRST, count=work.COUNT)))

    async def call_error() -> None:
        try:
            await connection.call(Find(name=work.MISSING))
        except NoSuchItemError as error:
            assert str(error) == work.complaint(work.MISSING)
        else:
            raise AssertionError("there was no error")

    return {
        "repeat": call_repeat,
        "value": call_value,
        "list": call_list,
        "rows": call_rows,
        "error": call_error,
    }


run_server = partial(loop.run_server, serve_turn)
run_client = partial(loop.run_client, connect_turn)
