"""FastAPI on uvicorn, called by aiohttp with a pool of connections.

The server is set up as uvicorn's documentation says for speed: httptools reads HTTP, and there is
no access log. Functions are `async`, and what they return is declared, so that pydantic writes the
JSON. 60,000 bytes travel as they are, as the body: JSON would make them a third longer.

The client is aiohttp: its parser is written in C, and it makes several times as many calls a second
as httpx, with which FastAPI's own documentation tests. It keeps its default of 100 connections;
cookies and the timer for each call, which no other peer has, are off. The client checks answers by
the same pydantic models.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import aiohttp
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field

from benchmarks import work
from benchmarks.peers import loop, models
from benchmarks.peers.models import NumbersResult, RepeatResult, RowsResult
from benchmarks.peers.turn import HOST, port_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn

JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class Repeat(BaseModel):
    text: str
    times: Annotated[int, Field(ge=0, le=work.MAX_TIMES)] = 1


class Numbers(BaseModel):
    numbers: list[int]


class Rows(BaseModel):
    first: int
    count: Annotated[int, Field(ge=0, le=work.MAX_COUNT)]


class Find(BaseModel):
    name: str


class Problem(BaseModel):
    detail: str


async def repeat(command: Repeat) -> RepeatResult:
    return RepeatResult(text=command.text * command.times)


async def value(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


async def numbers(command: Numbers) -> NumbersResult:
    return NumbersResult(numbers=command.numbers[::-1])


async def rows(command: Rows) -> RowsResult:
    return models.rows(command.first, command.count)


async def find(command: Find) -> None:
    raise HTTPException(404, work.complaint(command.name))


@asynccontextmanager
async def serve_turn(turn: Turn) -> AsyncGenerator[int, None]:
    app: Any = FastAPI()
    for answer in (repeat, value, numbers, rows, find):
        app.add_api_route(f"/{answer.__name__}", answer, methods=["POST"])
    config: Any = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        ssl_certfile=turn.certificate if turn.is_encrypted else None,
        ssl_keyfile=turn.key if turn.is_encrypted else None,
    )
    server: Any = uvicorn.Server(config)
    listener = turn.listen()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield port_of(listener)
    server.should_exit = True
    await serving


@asynccontextmanager
async def connect_turn(turn: Turn) -> AsyncGenerator[Mapping[str, Call], None]:
    connector: Any
    if turn.path:
        connector, base = aiohttp.UnixConnector(turn.path), "http://localhost"
    elif context := turn.client_context():
        connector, base = aiohttp.TCPConnector(ssl=context), f"https://{HOST}:{turn.port}"
    else:
        connector, base = aiohttp.TCPConnector(), f"http://{HOST}:{turn.port}"
    opening: Any = aiohttp.ClientSession(
        base,
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
    )
    async with opening as session:
        yield calls_of(session)


def calls_of(session: Any) -> Mapping[str, Call]:
    async def call_repeat() -> None:
        command = Repeat(text=work.TEXT, times=work.TIMES)
        async with session.post("/repeat", data=command_data(command), headers=JSON) as response:
            assert response.status == 200
            result = RepeatResult.model_validate_json(await response.read())
        assert result.text == work.REPEATED

    async def call_value() -> None:
        async with session.post("/value", data=work.VALUE, headers=BYTES) as response:
            assert response.status == 200
            data = await response.read()
        assert data == work.VALUE

    async def call_list() -> None:
        command = Numbers(numbers=work.NUMBERS)
        async with session.post("/numbers", data=command_data(command), headers=JSON) as response:
            assert response.status == 200
            result = NumbersResult.model_validate_json(await response.read())
        assert result.numbers == work.REVERSED

    async def call_rows() -> None:
        command = Rows(first=work.FIRST, count=work.COUNT)
        async with session.post("/rows", data=command_data(command), headers=JSON) as response:
            assert response.status == 200
            result = RowsResult.model_validate_json(await response.read())
        models.check_rows(result)

    async def call_error() -> None:
        command = Find(name=work.MISSING)
        async with session.post("/find", data=command_data(command), headers=JSON) as response:
            assert response.status == 404
            problem = Problem.model_validate_json(await response.read())
        assert problem.detail == work.complaint(work.MISSING)

    return {
        "repeat": call_repeat,
        "value": call_value,
        "list": call_list,
        "rows": call_rows,
        "error": call_error,
    }


def command_data(command: BaseModel) -> bytes:
    return command.model_dump_json().encode()


run_server = partial(loop.run_server, serve_turn)
run_client = partial(loop.run_client, connect_turn)
