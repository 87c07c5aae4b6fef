"""grpclib, gRPC in Python alone, with protobuf: one channel.

The methods and the mapping are what its generated code makes. Nothing is set: its windows of 4 MiB
hold all that is under way here.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpclib
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.server import Server

from benchmarks import work
from benchmarks.peers import loop
from benchmarks.peers.messages import ANSWERS, CHECKS, METHODS, REQUESTS, OutOfRangeError
from benchmarks.peers.turn import HOST, port_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn


def handler(answer: Callable[[Any], Any]) -> Any:
    async def handle(stream: Any) -> None:
        request = await stream.recv_message()
        try:
            response = answer(request)
        except OutOfRangeError as error:
            raise grpclib.GRPCError(Status.INVALID_ARGUMENT, f"{error} is out of range") from None
        await stream.send_message(response)

    return handle


async def find(stream: Any) -> None:
    request = await stream.recv_message()
    raise grpclib.GRPCError(Status.NOT_FOUND, work.complaint(request.name))


class Works:
    """The service."""

    def __mapping__(self) -> dict[str, Any]:
        handlers = {**{name: handler(answer) for name, answer in ANSWERS.items()}, "Find": find}
        return {
            path: Handler(handlers[name], Cardinality.UNARY_UNARY, request, response)
            for name, (path, request, response) in METHODS.items()
        }


@asynccontextmanager
async def serve_turn(turn: Turn) -> AsyncGenerator[int, None]:
    server: Any = Server([Works()])
    listener = turn.listen()
    await server.start(sock=listener, ssl=turn.server_context())
    yield port_of(listener)
    server.close()


@asynccontextmanager
async def connect_turn(turn: Turn) -> AsyncGenerator[Mapping[str, Call], None]:
    opening: Any
    if turn.path:
        opening = Channel(path=turn.path)
    else:
        context = turn.client_context()
        if context is not None:
            context.set_alpn_protocols(["h2"])
        opening = Channel(HOST, turn.port, ssl=context)
    async with opening as channel:
        yield {name: call_of(name, channel) for name in REQUESTS}


def call_of(name: str, channel: Any) -> Call:
    method, make = REQUESTS[name]
    stub: Any = UnaryUnaryMethod(channel, *METHODS[method])

    async def call() -> None:
        check(await stub(make()))

    async def call_error() -> None:
        try:
            await stub(make())
        except grpclib.GRPCError as error:
            assert error.status is Status.NOT_FOUND
            assert error.message == work.complaint(work.MISSING)
        else:
            raise AssertionError("there was no error")

    if name == "error":
        return call_error
    check = CHECKS[name]
    return call


run_server = partial(loop.run_server, serve_turn)
run_client = partial(loop.run_client, connect_turn)
