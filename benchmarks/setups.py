"""The same calls with each feature of a connection alone on, for what each costs.

Rule of this module: a setup differs from the base in one thing, and the base is what is left when
all is off that can be. Limits can't be, nor counting, so that they are in all of them.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import work
from benchmarks.peers.commands import Wait
from benchmarks.peers.models import RepeatResult
from benchmarks.peers.turn import HOST, Turn
from benchmarks.peers.typed import Repeat, repeat, router
from benchmarks.race import make_certificates
from typed_amp import Box, Client, Connection, ConnectionOptions, Limits, Router, connect, serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from ssl import SSLContext

    Call = Callable[[], Coroutine[Any, Any, None]]

OFF: ConnectionOptions = {"extensions": False, "keepalive": None}
SECONDS = 60.0
"""A time that no call takes."""

MANY = 1_000_000


def plain_calls(caller: Any, timeout: float | None = None) -> Call:
    async def call() -> None:
        result = await caller.call(Repeat(text=work.TEXT, times=work.TIMES), timeout=timeout)
        assert result.text == work.REPEATED

    return call


def calls_within_time(caller: Any) -> Call:
    return plain_calls(caller, SECONDS)


def calls_within_asyncio_timeout(caller: Any) -> Call:
    async def call() -> None:
        async with asyncio.timeout(SECONDS):
            result = await caller.call(Repeat(text=work.TEXT, times=work.TIMES))
        assert result.text == work.REPEATED

    return call


def calls_with_counters(caller: Connection[Any]) -> Call:
    async def call() -> None:
        result = await caller.call(Repeat(text=work.TEXT, times=work.TIMES))
        assert result.text == work.REPEATED
        assert caller.counters.calls

    return call


def calls_by_boxes(caller: Connection[Any]) -> Call:
    arguments = {b"text": work.TEXT.encode(), b"times": b"%d" % work.TIMES}
    expected = work.REPEATED.encode()

    async def call() -> None:
        answer = await caller.call_box("Repeat", arguments)
        assert answer[b"text"] == expected

    return call


def calls_after_giving_up(caller: Connection[Any]) -> Call:
    """Give up one call before all others, of which the responder is told."""
    call = plain_calls(caller)

    async def give_up() -> None:
        await call()  # the peer is known by then
        waiting = asyncio.create_task(caller.call(Wait()))
        await call()  # its responder waits by then
        waiting.cancel()

    given_up: list[asyncio.Task[None]] = []

    async def call_then() -> None:
        if not given_up:
            given_up.append(asyncio.create_task(give_up()))
        if not given_up[0].done():
            await given_up[0]
        await call()

    return call_then


def waiting_router() -> Router[None]:
    made = Router()
    made.responder(Repeat)(repeat)

    @made.responder(Wait)
    async def wait(_: Wait) -> None:
        await asyncio.get_running_loop().create_future()

    return made


def box_router() -> Router[None]:
    made = Router()

    @made.fallback
    async def answer(box: Box) -> Box:
        return {b"text": box[b"text"] * int(box[b"times"])}

    return made


def guarded_router() -> Router[None]:
    made = Router()
    made.responder(Repeat)(repeat)

    @made.guard
    def check(connection: Connection[None], name: str) -> None:
        assert name == "Repeat"

    return made


def router_with_state() -> Router[list[int]]:
    made: Router[list[int]] = Router(state=list)

    @made.on_connect
    async def begin(connection: Connection[list[int]]) -> None:
        connection.state.append(1)

    @made.on_disconnect
    async def end(connection: Connection[list[int]]) -> None:
        connection.state.clear()

    @made.responder(Repeat)
    async def answer(command: Repeat, connection: Connection[list[int]]) -> RepeatResult:
        assert connection.state
        return RepeatResult(text=command.text * command.times)

    return made


def limited(**limits: Any) -> ConnectionOptions:
    return {**OFF, "limits": Limits(**limits)}


@dataclass(frozen=True)
class Setup:
    """How calls are made, and answered.

    Attributes:
        options: of the connection, for both ends.
        router: answers them.
        calls: makes what makes a call, from the connection or the `Client`.
        admit: of the server.
        is_encrypted: whether there is TLS.
        is_kept: whether a `Client` makes the connection, and makes it again.
        log_level: of typed_amp's logger.
    """

    options: ConnectionOptions
    router: Router[Any] = router
    calls: Callable[[Any], Call] = plain_calls
    admit: Callable[[Connection[Any]], bool] | None = None
    is_encrypted: bool = False
    is_kept: bool = False
    log_level: int = logging.WARNING


BASE = Setup(OFF)

SETUPS = {
    "the base once more": BASE,
    "as it comes, all defaults": Setup({}),
    "extensions": Setup({"keepalive": None}),
    "keepalive=30": Setup({"extensions": False, "keepalive": 30.0}),
    "call_timeout=60": Setup({**OFF, "call_timeout": SECONDS}),
    "timeout=60 for each call": Setup(OFF, calls=calls_within_time),
    "the same, and extensions: deadlines": Setup({"keepalive": None}, calls=calls_within_time),
    "asyncio.timeout(60) around each call": Setup(OFF, calls=calls_within_asyncio_timeout),
    "extensions, once a call was cancelled": Setup(
        {"keepalive": None}, waiting_router(), calls_after_giving_up
    ),
    "max_requests=1,000,000": Setup(limited(max_requests=MANY)),
    "max_requests=50, always reached": Setup(limited(max_requests=50)),
    "max_unwritten_bytes=1": Setup(limited(max_unwritten_bytes=1)),
    "idle_timeout=60": Setup(limited(idle_timeout=SECONDS)),
    "admit=": Setup(OFF, admit=lambda connection: True),
    "a guard": Setup(OFF, guarded_router()),
    "state= and hooks": Setup(OFF, router_with_state()),
    "logging at DEBUG": Setup(OFF, log_level=logging.DEBUG),
    "counters read after each call": Setup(OFF, calls=calls_with_counters),
    "Client, which comes back": Setup(OFF, is_kept=True),
    "TLS": Setup(OFF, is_encrypted=True),
    "boxes, no models: the caller": Setup(OFF, calls=calls_by_boxes),
    "boxes, no models: the responder": Setup(OFF, box_router()),
}
"""Each by its title. The last two are less than the base: they say what models cost."""


@cache
def contexts() -> tuple[SSLContext | None, SSLContext | None]:
    """Make the contexts of a server and a client."""
    with tempfile.TemporaryDirectory() as directory:
        make_certificates(Path(directory))
        turn = Turn(
            peer="typed_amp",
            loop="asyncio",
            transport="tls",
            work="repeat",
            in_flight=1,
            seconds=1,
            directory=directory,
        )
        return turn.server_context(), turn.client_context()


@asynccontextmanager
async def opened(setup: Setup) -> AsyncGenerator[Call, None]:
    """Serve and connect, both in this process, and give what makes a call."""
    ours, theirs = contexts() if setup.is_encrypted else (None, None)
    logger = logging.getLogger("typed_amp")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.setLevel(setup.log_level)
    try:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                serve(setup.router, HOST, 0, ssl=ours, admit=setup.admit, **setup.options)
            )
            make = Client if setup.is_kept else connect
            caller = await stack.enter_async_context(
                make(*server.addresses[0], ssl=theirs, **setup.options)
            )
            yield setup.calls(caller)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
