"""grpcio's asyncio API, grpc.aio, with protobuf: one channel, which its documentation asks to keep.

The stubs and the handler are what the generated code makes. Nothing is set: of what gRPC's guide to
its performance names, a channel is used again, the API is the asynchronous one, and no compression
is on. Its threads share the one processor of their process.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from benchmarks import work
from benchmarks.peers import loop
from benchmarks.peers.messages import (
    ANSWERS,
    CHECKS,
    METHODS,
    REQUESTS,
    SERVICE,
    OutOfRangeError,
)
from benchmarks.peers.turn import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn


def handler(answer: Callable[[Any], Any]) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return answer(request)
        except OutOfRangeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{error} is out of range")

    return handle


async def find(request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.NOT_FOUND, work.complaint(request.name))


@asynccontextmanager
async def serve_turn(turn: Turn) -> AsyncGenerator[int, None]:
    server: Any = grpc.aio.server()
    handlers = {**{name: handler(answer) for name, answer in ANSWERS.items()}, "Find": find}
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            handlers[name],
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        for name, (_, request, response) in METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    if turn.path:
        server.add_insecure_port(f"unix:{turn.path}")
        port = 0
    elif turn.is_encrypted:
        pair = (turn.key.read_bytes(), turn.certificate.read_bytes())
        port = server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    yield port
    await server.stop(None)


@asynccontextmanager
async def connect_turn(turn: Turn) -> AsyncGenerator[Mapping[str, Call], None]:
    opening: Any
    if turn.is_encrypted:
        credentials = grpc.ssl_channel_credentials(turn.authority.read_bytes())
        opening = grpc.aio.secure_channel(f"{HOST}:{turn.port}", credentials)
    else:
        target = f"unix:{turn.path}" if turn.path else f"{HOST}:{turn.port}"
        opening = grpc.aio.insecure_channel(target)
    async with opening as channel:
        yield {name: call_of(name, channel) for name in REQUESTS}


def call_of(name: str, channel: Any) -> Call:
    method, make = REQUESTS[name]
    path, request, response = METHODS[method]
    stub: Any = channel.unary_unary(
        path,
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )

    async def call() -> None:
        check(await stub(make()))

    async def call_error() -> None:
        try:
            await stub(make())
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert error.details() == work.complaint(work.MISSING)
        else:
            raise AssertionError("there was no error")

    if name == "error":
        return call_error
    check = CHECKS[name]
    return call


run_server = partial(loop.run_server, serve_turn)
run_client = partial(loop.run_client, connect_turn)
